"""Settings of `amer fit`: its input, its output folders, and the equivalent commands of its stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amer.data.compound import TEMPLATES
from amer.fitting.training import Training
from amer.offline import MINILM
from amer.trainer.parsing import parse

MOST_HELD_OUT = 1_000  # maximum number of compound questions for validation, and for the test
ONE_VECTOR = {"splits_questions": "false", "max_query_vectors": 1, "objective": "mixture", "encoder_weight": 0}
EVERY = {
    "save_steps": 50,
    "logging_steps": 10,
    "disable_tqdm": "true",
}  # small losses on interruption, and a moving display


@dataclass(frozen=True)
class Settings:
    """Settings of `fit`.

    Attributes:
        output: Folder for all results; a new call resumes an interrupted one there.
        questions: Source of the questions for `build_custom`. None: the API reference of installed Python packages.
        documents: The corpus for `open_documents`. None: the positives are texts.
        encoder: The document encoder, a sentence-transformers model with mean pooling.
        packages: Packages of the API reference. None: the default ones.
        templates: Templates that join questions, for `load_templates`.
        num_train: Number of questions of several parts to draw for training.
        train_steps: Number of training steps of 64 questions.

    Raises:
        ValueError: Settings that exclude each other, or a number below 1.
    """

    output: Path
    questions: str | None = None
    documents: str | None = None
    encoder: str = MINILM
    packages: Sequence[str] | None = None
    templates: Path = TEMPLATES
    num_train: int = 20_000
    train_steps: int = 1_200

    def __post_init__(self) -> None:
        if self.questions is None and self.documents is not None:
            raise ValueError("documents belong to questions of your own: also give questions")
        if self.questions is not None and self.packages is not None:
            raise ValueError("packages apply to the API reference only: leave out packages or questions")
        for name in ("num_train", "train_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def source(self) -> Path:
        """Folder of the single questions, and of their documents if they are built."""
        return self.output / "questions"

    @property
    def corpus(self) -> str:
        """Source of the documents."""
        return self.documents or str(self.source / "documents.parquet")

    @property
    def compound(self) -> Path:
        """Folder of the questions of several parts."""
        return self.output / "compound"

    @property
    def dataset(self) -> Path:
        """Dataset directory of the questions of several parts."""
        return self.compound / "dataset"

    @property
    def store(self) -> Path:
        """Folder of the documents with their vectors."""
        return self.output / "store"

    @property
    def tokens(self) -> Path:
        """Folder of the questions' token vectors."""
        return self.output / "tokens"

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.output / "model"

    @property
    def one_vector(self) -> Path:
        """Folder of the model of one vector, trained the same way."""
        return self.output / "one-vector"

    @property
    def held_out(self) -> int:
        """Number of compound questions for validation, and for the test."""
        return min(self.num_train, MOST_HELD_OUT)

    def dataset_command(self) -> list[str]:
        """The command that builds the single questions."""
        output = ["--output", str(self.source)]
        if self.questions is None:
            packages = [word for name in self.packages or () for word in ("--package", name)]
            return ["dataset", "python-api", *packages, *output]
        documents = [] if self.documents is None else ["--documents", self.documents]
        return ["dataset", "own", "--source", self.questions, *documents, *output]

    def compound_command(self) -> list[str]:
        """The command that joins the questions."""
        templates = [] if self.templates == TEMPLATES else ["--templates", str(self.templates)]
        sizes = {"train": self.num_train, "validation": self.held_out, "test": self.held_out}
        numbers = [word for split, number in sizes.items() for word in (f"--num-{split}", str(number))]
        where = ["--source", str(self.source), "--output", str(self.compound)]
        return ["dataset", "compound", *where, *templates, *numbers]

    def encode_command(self) -> list[str]:
        """The command that encodes the documents."""
        where = ["--documents", self.corpus, "--output", str(self.store)]
        return ["corpus", "encode", *where, "--encoder", self.encoder]

    def trainings(self, num_questions: int, num_documents: int) -> list[Training]:
        """The trainings of AMER-mini and of the one-vector model; a small corpus limits the random negatives."""
        data = {"dataset": self.dataset, "store": self.store, "token_cache": self.tokens}
        shared = {**data, "max_steps": self.train_steps, **EVERY}
        trainings = []
        for title, output, own in (("AMER", self.model, {}), ("one vector", self.one_vector, ONE_VECTOR)):
            arguments = ["mini"]
            for field, value in {**shared, **own, "output_dir": output}.items():
                arguments += [f"--{field}", str(value)]
            recipe = parse(arguments)[2]
            if recipe.num_random_negatives > num_documents:
                arguments += ["--num_random_negatives", str(num_documents)]
            epoch = math.ceil(num_questions / recipe.train_batch_size)
            trainings.append(Training(title, output, ["train", *arguments], self.train_steps, epoch))
        return trainings
