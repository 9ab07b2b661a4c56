"""From a user's files to a model that searches, and a report of what it is worth: what `amer fit` does."""

from __future__ import annotations

from amer.fitting.pipeline import fit
from amer.fitting.settings import Settings

__all__ = ["Settings", "fit"]
