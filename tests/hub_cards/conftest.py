"""A report, a training record and configurations of every kind that a card may be about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from amer.evaluation import Report, SystemResult
from modeling_amer import AMERConfig, AMERModel
from tests.conftest import DIM, LORA, build, tiny_tokenizer

BASE = "org/base"
REVISION = "0123456789abcdef0123456789abcdef01234567"
ENCODER = {"name": "org/encoder", "revision": None, "document_prompt": "passage: ", "query_prompt": "query: "}
QUERIES = 60


def a_config(**changes) -> AMERConfig:
    """An adapter on `BASE` that reads text, unless told otherwise."""
    values = {
        "text_config": LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=8),
        "base_model_name_or_path": BASE,
        "base_model_revision": REVISION,
        "document_dim": DIM,
        "num_query_vectors": 3,
        "prompt_template": "<|user|>\n{query}\n<|assistant|>\n",
        "document_encoder": ENCODER,
        "lora": LORA,
        "weights": "adapter",
    }
    return AMERConfig(**{**values, **changes})


FULL = {"lora": None, "weights": "full"}
VECTORS_ONLY = {**FULL, "prompt_template": None, "base_model_name_or_path": None, "base_model_revision": None}


@pytest.fixture(scope="session")
def report() -> dict:
    """`results.json` of four systems; the model is "AMER, m = 3", which the cheaper "trained alone" outdoes."""
    rng = np.random.default_rng(0)
    means = {"off-the-shelf": 0.3, "trained alone": 0.8, "AMER, m = 1": 0.4, "AMER, m = 3": 0.6}
    systems = [
        SystemResult(
            name,
            {
                "recall@10": rng.beta(10 * mean, 10 * (1 - mean), QUERIES),
                "mrecall@10": (rng.permutation(QUERIES) < mean * QUERIES).astype(float),
            },
            searches_per_query=3 if name.endswith("3") else 1,
            seconds_per_query=0.0125 if name.endswith("3") else 0.0045,
        )
        for name, mean in means.items()
    ]
    metadata = {
        "system": "AMER, m = 3",
        "model": "/home/somebody/models/secret-plan",
        "dataset": "Tiny senses",
        "split": "test",
        "corpus": "/data/private/corpus",
        "machine": "a toaster, 2 cores",
    }
    references = ("off-the-shelf", "trained alone")
    return Report(systems, np.linspace(0, 1, QUERIES), references, metadata, resamples=300).to_dict()


@pytest.fixture(scope="session")
def training() -> dict:
    """What `training_record` gives of a training with everything in it."""
    return {
        "date": "2026-11-23T14:32:07+00:00",
        "settings": {"objective": "matched", "temperature": 0.05, "max_targets": None, "learning_rate": 1e-3},
        "steps": 80,
        "epochs": 0.51,
        "seconds": 367.4,
        "batch": {"per_process": 16, "processes": 2, "accumulation": 1, "effective": 32},
        "candidates_per_query": {"least": 8241, "most": 8257},
        "parameters": {"trained": 2_904_576, "all": 137_419_776},
        "best": {"metric": "eval_recall@10", "value": 0.625, "step": 40},
        "hardware": {"device": "Toaster 9000", "cores": 2},
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "dataset": {
            "repo_id": "org/senses",
            "revision": REVISION,
            "source": "WordNet 3.0",
            "licence": "WordNet License",
            "builder": "amer.data.wordnet 0.1.0",
            "splits": {"train": {"queries": 5000, "targets": 13959, "documents": 12936}},
        },
        "store": {"name": "store", "count": 25_000, "dim": DIM, "encoder": ENCODER},
        "log_history": [
            {"step": 10, "loss": 5.0},
            {"step": 20, "loss": 4.0},
            {"step": 20, "eval_loss": 4.5, "eval_recall@10": 0.625},
        ],
    }


@pytest.fixture
def saved(tmp_path, llama) -> Callable[..., tuple[Path, AMERModel, Path]]:
    """Saves a tiny model and a tiny encoder of its documents: both folders, and the model between them."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    def save(objective: str = "matched", **kwargs) -> tuple[Path, AMERModel, Path]:
        torch.manual_seed(0)
        encoder = sentence_transformers.SentenceTransformer(
            modules=[StaticEmbedding(tiny_tokenizer().backend_tokenizer, embedding_dim=DIM)], device="cpu"
        )
        encoder.save(str(tmp_path / "encoder"))
        model = build(llama, document_encoder=ENCODER, **kwargs)
        model.config.objective = objective
        model.save_pretrained(tmp_path / "model")
        return tmp_path / "model", model, tmp_path / "encoder"

    return save
