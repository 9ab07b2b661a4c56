"""Settings of a training: the model, the data, and `TrainingArguments` with AMER's own fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from amer.ranges import Range, check_choice, check_ranges
from amer.trainer.sampling import SCHEDULES
from modeling_amer.configuration_amer import ANCHORS, EMISSIONS, OBJECTIVES, AMERConfig

SINGLE_QUERY = {"max_targets": 1, "num_query_vectors": 1}
"""Training settings of the Single-Query baseline (paper §5.2): one vector, and one target drawn for each use."""

WIDTH = 192  # default width of a decoder from scratch
LORA_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OF_LORA = {"lora_alpha": 16, "lora_dropout": 0.0, "lora_target_modules": LORA_MODULES}  # and defaults
OF_A_BASE = {"base_model_revision": None, "prompt_template": None, "lora_r": None, "dtype": "float32"}  # and defaults
DTYPES = ("float32", "bfloat16", "float16", "auto")
STRATEGIES = ("random", "group_by_length")
COUNT, MANY, COUNT_OF_STEPS = Range(1, 2**16), Range(0, 10**6), Range(1, 10**9)
NOT_NEGATIVE, POSITIVE = Range(0), Range(0, above=True)
MODEL_RANGES = {
    **dict.fromkeys(("layers", "num_query_vectors", "max_query_vectors", "lora_r"), COUNT),
    "width": Range(32, 2**16),
    "lora_alpha": POSITIVE,
    "lora_dropout": Range(0, 1, below=True),
    "encoder_weight": NOT_NEGATIVE,
}
DATA_RANGES = {"max_eval_queries": Range(1), "eval_ks": Range(1)}
TRAINING_RANGES = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), COUNT),
    **dict.fromkeys(("gradient_accumulation_steps", "max_targets"), COUNT),
    **dict.fromkeys(("learning_rate", "weight_decay", "adam_epsilon", "max_grad_norm", "warmup_steps"), NOT_NEGATIVE),
    **dict.fromkeys(("span_weight", "stop_weight"), NOT_NEGATIVE),
    **dict.fromkeys(("temperature", "num_train_epochs", "save_steps", "eval_steps", "logging_steps"), POSITIVE),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), Range(0, 1, below=True)),
    **dict.fromkeys(("seed", "data_seed"), Range(0, 2**32 - 1)),
    "num_random_negatives": MANY,
}


@dataclass
class ModelArguments:
    """Settings of the decoder and of its LoRA.

    Raises:
        ValueError: A value outside its range, or settings that exclude each other.
    """

    base_model: str = field(
        default="", metadata={"help": "Decoder LM: a Hub name or a folder. Required unless `layers` is set."}
    )
    layers: int | None = field(
        default=None,
        metadata={
            "help": "Layers of a small decoder from scratch, which reads the encoder's token vectors; no base_model."
        },
    )
    width: int = field(default=WIDTH, metadata={"help": "Width of the decoder from scratch."})
    base_model_revision: str | None = field(default=None, metadata={"help": "Commit, tag or branch of the base."})
    dtype: str = field(default="float32", metadata={"help": "Precision of the decoder's frozen weights."})
    num_query_vectors: int = field(default=5, metadata={"help": "m at inference and in validation."})
    max_query_vectors: int | None = field(
        default=None, metadata={"help": "Maximum number of vectors per question. Default: num_query_vectors."}
    )
    anchored: bool = field(default=False, metadata={"help": "The same as `anchor: vector`."})
    anchor: str | None = field(
        default=None,
        metadata={
            "help": "vector: emit corrections of the document encoder's own vector; tokens: emit corrections of "
            "weighted means of the encoder's token vectors."
        },
    )
    token_vectors: bool = field(
        default=False,
        metadata={"help": "Read the encoder's token vectors, as decoders from scratch and token anchors always do."},
    )
    emission: str = field(
        default="autoregressive",
        metadata={"help": "autoregressive: one vector after another; one_pass: all vectors in one pass."},
    )
    stop_score: bool = field(default=False, metadata={"help": "Learn how many vectors a question needs."})
    splits_questions: bool = field(
        default=False,
        metadata={
            "help": "Find the parts of a question and read each by itself. Needs `layers`, and a dataset with spans."
        },
    )
    encoder_weight: float = field(
        default=0.0, metadata={"help": "Weight of the encoder's own vector, added to each vector after training."}
    )
    prompt_template: str | None = field(default=None, metadata={"help": "The prompt, with {query} in it."})
    lora_r: int | None = field(default=None, metadata={"help": "Rank of LoRA. Without it, the whole decoder trains."})
    lora_alpha: int = field(default=16, metadata={"help": "LoRA's scale."})
    lora_dropout: float = field(default=0.0, metadata={"help": "LoRA's dropout."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: [*LORA_MODULES],
        metadata={"help": "Linear layers that get LoRA."},
    )

    def __post_init__(self) -> None:
        check_ranges(self, MODEL_RANGES)
        for name, choices in (("dtype", DTYPES), ("anchor", ANCHORS), ("emission", EMISSIONS)):
            check_choice(name, getattr(self, name), choices)
        if self.anchored and self.anchor == "tokens":
            raise ValueError("anchored is the same as anchor 'vector', but anchor is 'tokens': leave out one of them.")
        if self.anchored:
            self.anchor = "vector"
        for name, default in OF_LORA.items():
            if self.lora_r is None and getattr(self, name) != default:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, but the whole decoder trains, without LoRA: also set lora_r, "
                    f"or leave out {name}."
                )
        self._check_decoder()
        self._check_outputs()

    def _check_decoder(self) -> None:
        """Refuse settings of a base for a decoder from scratch, and the other way round."""
        if not self.layers:
            if self.width != WIDTH:
                raise ValueError(
                    f"width is {self.width}, but it applies to a decoder from scratch only: also set layers, or leave "
                    "out width."
                )
            return
        if self.base_model:
            raise ValueError("layers builds a decoder from scratch, without a base: leave out base_model or layers.")
        for name, default in OF_A_BASE.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, but it applies to a base model only, and layers builds a "
                    f"decoder from scratch: leave out {name}, or replace layers by base_model."
                )

    def _check_outputs(self) -> None:
        """Refuse what no model can be built with, before a base is loaded for it."""
        if self.encoder_weight and self.anchor is None:
            raise ValueError(
                f"encoder_weight is {self.encoder_weight}, but it applies to anchored models only: set anchor to "
                "'vector' or 'tokens', or leave out encoder_weight."
            )
        if self.prompt_template is not None and self.prompt_template.count("{query}") != 1:
            raise ValueError(f"prompt_template must hold {{query}} exactly once, got {self.prompt_template!r}.")
        most = self.num_query_vectors if self.max_query_vectors is None else self.max_query_vectors
        if self.emission == "one_pass" and most < self.num_query_vectors:
            raise ValueError(
                f"max_query_vectors is {most}, but a model of one pass needs at least num_query_vectors "
                f"({self.num_query_vectors}): raise max_query_vectors, or leave it out."
            )
        if self.splits_questions and not (self.layers and self.emission == "autoregressive" and not self.stop_score):
            raise ValueError(
                "splits_questions needs a decoder from scratch that emits one vector after another, without a stop "
                f"score: set layers, and leave out base_model, stop_score and emission (got layers {self.layers}, "
                f"base_model {self.base_model!r}, stop_score {self.stop_score}, emission {self.emission!r})."
            )

    @property
    def reads_tokens(self) -> bool:
        """Whether the model reads the encoder's token vectors."""
        return self.token_vectors or self.layers is not None or self.anchor == "tokens"

    @property
    def lora(self) -> dict[str, Any] | None:
        """LoRA's configuration for `AMERModel.from_base`; None if the whole decoder is trained."""
        if self.lora_r is None:
            return None
        scale = {"r": self.lora_r, "lora_alpha": self.lora_alpha, "lora_dropout": self.lora_dropout}
        return {**scale, "target_modules": list(self.lora_target_modules)}


@dataclass
class DataArguments:
    """Settings of the questions and the documents."""

    dataset: str = field(default="", metadata={"help": "Dataset: a directory, or a name on the Hub. Required."})
    store: str = field(default="", metadata={"help": "Document store: a directory, or a name on the Hub. Required."})
    max_eval_queries: int | None = field(default=None, metadata={"help": "Validate on the first N questions only."})
    token_cache: str | None = field(
        default=None,
        metadata={
            "help": "Folder that caches the questions' token vectors, for a model that reads them. They are computed "
            "once (30 MB for 1,000 questions with MiniLM) and read in every epoch."
        },
    )
    eval_ks: list[int] = field(default_factory=lambda: [10, 100], metadata={"help": "Cut-offs of MRecall and Recall."})
    eval_search_device: str | None = field(
        default=None,
        metadata={
            "help": "Device of the validation search. Default: the training's device; a GPU then holds the store. "
            "cpu: keep the store off the GPU."
        },
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Allow the store's encoder to run its own code (anchored models)."}
    )

    def __post_init__(self) -> None:
        check_ranges(self, DATA_RANGES)


@dataclass
class AMERTrainingArguments(TrainingArguments):
    """Arguments of [`AMERTrainer`].

    Differences from `TrainingArguments`: `remove_unused_columns` is False and `label_names` is empty, because the
    collator reads whole dataset rows and the trainer computes the loss. `train_sampling_strategy` has two values.

    Raises:
        ValueError: An unknown objective or schedule, a number outside its range, or an unsupported
            `train_sampling_strategy` or `auto_find_batch_size`.
    """

    # Parameters that control the loss
    objective: str = field(
        default="matched",
        metadata={
            "help": "matched: the paper's InfoNCE on query vectors matched to targets; mixture: every query vector "
            "explains every target."
        },
    )
    temperature: float = field(default=0.05, metadata={"help": "tau of Eq. 1."})
    span_weight: float = field(
        default=0.5,
        metadata={
            "help": "Used if the dataset has spans. With token anchors: vector j gets target j, and the loss adds, "
            "with this weight, -log of the vector's attention within the span of part j. 0: match the targets and "
            "ignore the spans. For a model that splits questions: weight of the loss on where parts begin and end."
        },
    )
    stop_weight: float = field(
        default=0.5, metadata={"help": "Weight of the stop score's cross-entropy, for a model that has one."}
    )
    scheduled_sampling: str = field(
        default="linear",
        metadata={"help": "linear: the paper's min(0.8, step / total); always_predicted; teacher_forcing."},
    )

    if TYPE_CHECKING:
        output_dir: str = ""  # TrainingArguments fills in a default

    # Parameters that control the data
    max_targets: int | None = field(
        default=None, metadata={"help": "Maximum number of targets per question, drawn for each use. 1: Single-Query."}
    )
    num_random_negatives: int = field(
        default=32,
        metadata={
            "help": "Random documents of the whole corpus to draw per question. All questions of a forward pass, in "
            "all processes, share them. Gradient accumulation does not add candidates to a query."
        },
    )
    train_sampling_strategy: str = field(
        default="random",
        metadata={"help": "random; group_by_length: batches of questions of similar length, with less padding."},
    )

    # Changed defaults
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads whole rows."})
    label_names: list[str] | None = field(default_factory=list, metadata={"help": "The loss needs no label column."})

    def __post_init__(self) -> None:
        check_ranges(self, TRAINING_RANGES)
        if self.max_steps != -1 and self.max_steps not in COUNT_OF_STEPS:
            raise ValueError(f"max_steps must {COUNT_OF_STEPS}, or -1 for num_train_epochs; got {self.max_steps}.")
        super().__post_init__()
        check_choice("objective", self.objective, OBJECTIVES)
        check_choice("scheduled_sampling", self.scheduled_sampling, SCHEDULES)
        check_choice("train_sampling_strategy", self.train_sampling_strategy, STRATEGIES)
        if self.auto_find_batch_size:
            raise ValueError(
                "auto_find_batch_size is not supported, because it would change the candidates of a query: set a "
                "batch size that fits."
            )

    def check_model(self, model: ModelArguments | AMERConfig) -> None:
        """Check that training reaches the parts of the model which choose the number of vectors.

        Raises:
            ValueError: The model splits questions or has a stop score, and the training would leave it random.
        """
        for name, weight in (("splits_questions", "span_weight"), ("stop_score", "stop_weight")):
            if not getattr(model, name):
                continue
            if self.objective != "matched":
                raise ValueError(
                    f"objective is {self.objective!r}, which cannot train a model with {name}: set objective to "
                    f"'matched', or {name} to false."
                )
            if not getattr(self, weight):
                raise ValueError(
                    f"{weight} is 0, so a model with {name} would not learn how many vectors a question needs: set "
                    f"{weight} above 0, or {name} to false."
                )


Arguments = tuple[ModelArguments, DataArguments, AMERTrainingArguments]
