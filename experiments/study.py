"""The description of a study: datasets, decoders, seeds and sizes for every figure and table of the paper."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from amer.corpus.known_encoders import check_usable
from experiments.training_jobs import ROOT

STUDIES = ROOT / "configs" / "paper" / "studies"
BM25_NAME = "BM25"
OWN_FIELDS = {"base_model", "dataset", "store", "output_dir", "seed", "num_query_vectors"}  # set by the study itself
OWN_FOLDERS = {"results", "synthetic", "decoders", "wikipedia"}  # other folders beside those of the datasets


def slug(name: str) -> str:
    """Make a name part of a path: "SmolLM2, 4 layers" -> "smollm2-4-layers"."""
    return "-".join(re.findall(r"[\w.]+", name.lower()))


class Strict(BaseModel):
    """A part of the YAML file, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StudyDataset(Strict):
    """A dataset, and the settings of its training and search.

    Attributes:
        builder: Name of the builder function, `amer.data.build_<builder>`.
        arguments: Arguments of the builder: sizes, or paths of the published files.
        searches: Searches for gold documents: "BM25" or names of document encoders (paper A.3).
        training: YAML file of `amer train`, relative to the project.
        num_query_vectors: m in validation and in search (paper §6.1).
    """

    builder: Literal["wordnet", "ambigqa", "qampari"]
    arguments: dict[str, Any] = {}
    searches: list[str] = []
    training: Path
    num_query_vectors: int = Field(ge=2)


class Decoder(Strict):
    """A base model, whole or cut to its first `layers` layers."""

    name: str
    layers: int | None = Field(default=None, ge=1)


class Synthetic(Strict):
    """The synthetic study (Figure 3), as options of `experiments/synthetic.py`."""

    training: Path
    per_device_train_batch_size: int | None = None
    base_model: str | None = None
    dim: int = 1024
    num_train: int = 20_000
    num_test: int = 1_000
    corpus_size: int = 200_000


class Study(Strict):
    """The content of a YAML file in `configs/paper/studies`.

    Attributes:
        encoder: The frozen document encoder of the trained retrievers; it must be one of `retrievers`.
        query_prompts: Encoder -> its query prompt, if `amer.corpus.known_encoders` has none.
        trust_remote_code: Encoders that may run their own code.
        retrievers: Off-the-shelf retrievers for Figure 1: "BM25" or names of document encoders.
        search_device: Device of the document search. Default: a GPU if there is one.
        chat: Chat model that expands and rewrites questions.
        chat_endpoint: OpenAI-compatible URL of the chat model. Default: run it locally.
        chat_max_new_tokens: Largest number of tokens of a reply.
        wikipedia: Folder of the published chunks, the corpus of AmbigQA and QAMPARI.
        datasets: Name in tables -> dataset.
        base_models: Name in tables -> base model; four, one for each of Tables 5 to 8.
        seeds: Seeds of the trainings, one training each.
        overrides: Fields of `amer train` that replace those of the datasets' YAML files.
        single_query: Fields of `amer train` for the Single-Query baseline only.
        synthetic: Settings for Figure 3.
    """

    encoder: str
    query_prompts: dict[str, str] = {}
    trust_remote_code: list[str] = []
    search_device: str | None = None
    retrievers: list[str] = Field(min_length=1)
    chat: str
    chat_endpoint: str | None = None
    chat_max_new_tokens: int = Field(default=256, ge=1)
    wikipedia: Path | None = None
    datasets: dict[str, StudyDataset] = Field(min_length=1)
    base_models: dict[str, Decoder] = Field(min_length=4, max_length=4)
    seeds: list[int] = Field(min_length=1)
    overrides: dict[str, str | int | float | bool] = {}
    single_query: dict[str, str | int | float | bool] = {}
    synthetic: Synthetic

    @field_validator("seeds", "retrievers")
    @classmethod
    def _distinct(cls, values: list) -> list:
        if len(set(values)) != len(values):
            raise ValueError(f"{values} repeat: give each once")
        return values

    @field_validator("overrides", "single_query")
    @classmethod
    def _not_its_own(cls, fields: dict) -> dict:
        if OWN_FIELDS & set(fields):
            raise ValueError(f"{', '.join(OWN_FIELDS & set(fields))}: remove these fields, the study sets them itself")
        return fields

    @model_validator(mode="after")
    def _whole(self) -> Study:
        if self.encoder not in self.retrievers:
            raise ValueError(f"the encoder {self.encoder} must be among the retrievers, since it is a baseline")
        for name in self.retrievers:
            check_usable(name, name in self.trust_remote_code)
        for names in (self.datasets, self.base_models):
            slugs = [slug(name) for name in names]
            if len(set(slugs)) != len(slugs) or "" in slugs or OWN_FOLDERS & set(slugs):
                raise ValueError(
                    f"{list(names)} give the folders {slugs}: they must differ from each other and from "
                    f"{', '.join(sorted(OWN_FOLDERS))}"
                )
        return self


def load_study(name: str) -> Study:
    """Load the study in `configs/paper/studies/<name>.yaml`.

    Raises:
        ValueError: There is no such study, or the file is invalid; the message names the field.
    """
    file = STUDIES / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in STUDIES.glob("*.yaml")))
        raise ValueError(f"there is no study {name!r} in {STUDIES}: choose from {known}")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} must hold a mapping, got {type(content).__name__}")
    try:
        return Study(**content)
    except ValidationError as error:
        raise ValueError(f"{file} does not describe a study: {error}") from error
