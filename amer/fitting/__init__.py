"""Fit a search model to a user's files and report its quality: the work of `amer fit`."""

from __future__ import annotations

from amer.fitting.pipeline import fit
from amer.fitting.settings import Settings

__all__ = ["Settings", "fit"]
