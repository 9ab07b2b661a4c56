"""AMER: a retriever that emits several query vectors per question."""

__version__ = "0.1.0"
