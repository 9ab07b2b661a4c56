"""Datasets and corpora: their formats, and one builder for each."""

from __future__ import annotations

from amer.corpus.documents import open_documents, take_documents
from amer.data.ambigqa import build_ambigqa
from amer.data.compound import build_compound
from amer.data.custom import build_custom
from amer.data.dataset import RetrievalDataset, load_dataset_dir, save_dataset_dir
from amer.data.multihop import build_2wikimultihopqa, build_hotpotqa, build_musique
from amer.data.python_api import build_python_api
from amer.data.qampari import build_qampari
from amer.data.synthetic import build_synthetic
from amer.data.wikipedia import build_wikipedia
from amer.data.wordnet import build_wordnet

__all__ = [
    "RetrievalDataset",
    "build_2wikimultihopqa",
    "build_ambigqa",
    "build_compound",
    "build_custom",
    "build_hotpotqa",
    "build_musique",
    "build_python_api",
    "build_qampari",
    "build_synthetic",
    "build_wikipedia",
    "build_wordnet",
    "load_dataset_dir",
    "open_documents",
    "save_dataset_dir",
    "take_documents",
]
