"""Datasets: their format, and one builder for each."""

from __future__ import annotations

from amer.data.dataset import RetrievalDataset, load_dataset_dir, save_dataset_dir
from amer.data.synthetic import build_synthetic
from amer.data.wordnet import build_wordnet

__all__ = ["RetrievalDataset", "build_synthetic", "build_wordnet", "load_dataset_dir", "save_dataset_dir"]
