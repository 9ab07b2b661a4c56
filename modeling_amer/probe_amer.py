"""A probe: a few questions with the query vectors of a model, saved with its weights.

Loading a model elsewhere (other library versions, another attention kernel, another copy of the base) can succeed and
still give other vectors. The probe detects this.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import peft
import torch
import transformers
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from .configuration_amer import AMERConfig
from .staging_amer import place_of_save, saved_file

PROBE_FILE = "probe.json"
TOKENS = 6  # number of tokens per question, for a model that reads token vectors
QUESTIONS = ["bank", "Which actors played the same part in films of different decades?"]
TOLERANCE = {"float32": 5e-3}  # kernels differ in the last bits; a wrong base or a lost weight differs by far more
TOLERANCE_HALF = 0.15  # for bfloat16 and float16, whose rounding errors add up over layers and steps
LEAST_CORRECTION = 1e-2  # lower bound for an anchored model; a model with a shorter one is almost untrained


class ProbedModel(Protocol):
    """The parts of `AMERModel` that this file uses. It cannot import the class: the model imports this file.

    Attributes:
        config: Configuration: the model's inputs, and whether it is anchored.
        backbone: The decoder.
        device: Device of the model.
    """

    config: AMERConfig
    backbone: PreTrainedModel

    @property
    def device(self) -> torch.device: ...

    def encode_query(
        self,
        texts: list[str] | None = None,
        *,
        num_query_vectors: int | None = None,
        batch_size: int = 64,
        input_vectors: Any = None,
    ) -> torch.Tensor:
        """Query vectors `(n, m, dim)` of texts, vectors or both."""


@dataclass(frozen=True)
class ProbeReport:
    """How well a model reproduces the vectors of its probe.

    Args:
        reproduced: Whether the deviation is within the tolerance for the decoder's precision.
        deviation: Largest distance between a query vector and the one in the probe, relative to the decoder's
            contribution: the length of the vector (1) or, for an anchored model, of its correction of the anchor.
        max_difference: Largest difference of two components; components lie between -1 and 1.
        min_cosine: Smallest cosine between a query vector and the one in the probe.
        saved_with: Versions, device and precision at the time of saving.
        here: Versions, device and precision of this machine and model.
    """

    reproduced: bool
    deviation: float
    max_difference: float
    min_cosine: float
    saved_with: dict[str, str]
    here: dict[str, str]

    def __str__(self) -> str:
        differing = [
            f"{name} {self.saved_with.get(name)} there, {value} here"
            for name, value in self.here.items()
            if self.saved_with.get(name) != value
        ]
        return (
            f"{'reproduced' if self.reproduced else 'NOT reproduced'}: largest difference {self.max_difference:.2g}, "
            f"smallest cosine {self.min_cosine:.6f}, deviation {self.deviation:.2g}; "
            f"{', '.join(differing) or 'same versions, device and precision'}"
        )


@dataclass(frozen=True)
class Probe:
    """Questions and their vectors.

    Args:
        questions: The questions as text; None for a model that reads vectors only.
        input_vectors: The questions as vectors, `(n, dim)`, or as token vectors, `(n, length, dim)`; None for a model
            that reads text only. They are fixed random vectors, so a probe does not need the document encoder.
        query_embeddings: The model's query vectors, `(n, m, dim)`.
        environment: Versions, device and precision.
    """

    questions: list[str] | None
    input_vectors: list[Any] | None
    query_embeddings: list[list[list[float]]]
    environment: dict[str, str]

    @classmethod
    def take(cls, model: ProbedModel) -> Probe:
        """Encode the questions with a model.

        Raises:
            ValueError: The vectors are not finite, so the model has diverged.
        """
        config, vectors = model.config, None
        if config.reads_vectors:
            generator = torch.Generator().manual_seed(0)
            lengths = (TOKENS,) if config.token_vectors else ()
            vectors = torch.randn(len(QUESTIONS), *lengths, config.document_dim, generator=generator)
            vectors = normalize(vectors, dim=-1)
        questions = QUESTIONS if config.reads_text else None
        query_embeddings = model.encode_query(questions, input_vectors=vectors)
        if not torch.isfinite(query_embeddings).all():
            raise ValueError("The model's query vectors are NaN or infinite: it has diverged, train it again.")
        return cls(
            questions=questions,
            input_vectors=None if vectors is None else vectors.tolist(),
            query_embeddings=query_embeddings.tolist(),
            environment=_environment(model),
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **options: Any) -> Probe:
        """Load the probe of a saved model; `options` (`revision`, `token`, ...) go to transformers' `cached_file`.

        Raises:
            OSError: The model has no probe.
            ValueError: The file is not a probe.
        """
        options["subfolder"] = place_of_save(pretrained_model_name_or_path, options.get("subfolder") or "")
        file = saved_file(pretrained_model_name_or_path, PROBE_FILE, **options)
        try:
            with open(file, encoding="utf-8") as stream:
                fields = json.load(stream)
                if "query_vectors" in fields:  # its name up to 0.1.0
                    fields["input_vectors"] = fields.pop("query_vectors")
                return cls(**fields)._checked()
        except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(f"{file} is not the probe of an AMER model ({error}); save the model again.") from error

    def _checked(self) -> Probe:
        """Return the probe, or raise ValueError or TypeError if a field is invalid."""
        count = len(self.questions if self.questions is not None else self.input_vectors or [])
        embeddings = torch.tensor(self.query_embeddings, dtype=torch.float32)
        if (
            embeddings.dim() != 3
            or len(embeddings) != count
            or not embeddings.numel()
            or not embeddings.isfinite().all()
        ):
            raise ValueError(f"query_embeddings are {tuple(embeddings.shape)} for {count} questions")
        if self.questions is not None and not all(isinstance(text, str) for text in self.questions):
            raise TypeError("questions are not all texts")
        if self.input_vectors is not None and len(torch.tensor(self.input_vectors, dtype=torch.float32)) != count:
            raise ValueError(f"there are {len(self.input_vectors)} input_vectors for {count} questions")
        if not isinstance(self.environment, dict) or not isinstance(self.environment.get("precision"), str):
            raise TypeError("environment does not say the precision")
        return self

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the probe as JSON; floats keep all their bits."""
        with open(file, "w", encoding="utf-8") as stream:
            json.dump(asdict(self), stream, ensure_ascii=False, allow_nan=False)

    def compare(self, model: ProbedModel) -> ProbeReport:
        """Encode the same questions with a model and compare the vectors.

        Raises:
            ValueError: The model does not read the probe's inputs, or has another `document_dim`.
        """
        there = torch.tensor(self.query_embeddings)
        here = model.encode_query(
            self.questions, num_query_vectors=there.shape[1], input_vectors=self.input_vectors, batch_size=len(there)
        )
        if here.shape != there.shape:
            raise ValueError(
                f"The probe has vectors {tuple(there.shape)}, the model gives {tuple(here.shape)}: the probe belongs "
                "to another model."
            )
        contribution = torch.ones(())
        if model.config.anchored:
            anchors = torch.tensor(self.input_vectors)
            anchors = anchors.mean(dim=1) if model.config.token_vectors else anchors
            anchors = normalize(anchors, dim=-1)[:, None]
            contribution = (there - anchors).norm(dim=-1).mean().clamp(min=LEAST_CORRECTION)
        deviation = ((here - there).norm(dim=-1).max() / contribution).item()
        sides = (self.environment, _environment(model))
        allowed = max(TOLERANCE.get(side["precision"], TOLERANCE_HALF) for side in sides)
        return ProbeReport(
            reproduced=deviation <= allowed,
            deviation=deviation,
            max_difference=(here - there).abs().max().item(),
            min_cosine=(here * there).sum(dim=-1).min().item(),
            saved_with=self.environment,
            here=sides[1],
        )

    def check(self, model: ProbedModel) -> None:
        """Raise ValueError if the model does not reproduce the vectors, or cannot read the questions."""
        report = self.compare(model)
        if not report.reproduced:
            raise ValueError(
                f"This model does not reproduce the vectors that were saved with it: {report}. Use the same base, "
                "precision and versions, or load it without verify=True."
            )


def _environment(model: ProbedModel) -> dict[str, str]:
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": model.device.type,
        "precision": str(model.backbone.dtype).removeprefix("torch."),
        "attention": str(model.backbone.config._attn_implementation),
    }
