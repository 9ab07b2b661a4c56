"""AMER in the frameworks that people use: one file a framework, each with an extra of its own."""
