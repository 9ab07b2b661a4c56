"""Train an AMER retriever: `accelerate launch train.py configs/quickstart.yaml [--any_field value ...]`."""

from __future__ import annotations

import difflib
import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments, set_seed

from amer.corpus import DocumentStore
from amer.data import RetrievalDataset, load_dataset_dir
from amer.data.token_cache import TokenCache, TokenDataset
from amer.files import read_json, write_json
from amer.hub import origin, pull_folder
from amer.offline import resolve_model
from amer.search import ExactIndex, locate_encoder
from amer.trainer import AMERCollator, AMERTrainer, AMERTrainingArguments, RetrievalMetrics
from amer.trainer.record import training_record
from modeling_amer import AMERModel


@dataclass
class ModelArguments:
    """The decoder and how it is adapted."""

    base_model: str = field(
        default="", metadata={"help": "Decoder LM: a Hub name or a folder. Required, but for a decoder from scratch."}
    )
    layers: int | None = field(
        default=None,
        metadata={"help": "Layers of a small decoder from scratch, which reads the encoder's token vectors: no base."},
    )
    width: int = field(default=192, metadata={"help": "Width of the decoder from scratch."})
    base_model_revision: str | None = field(default=None, metadata={"help": "Commit, tag or branch of the base."})
    dtype: str = field(default="float32", metadata={"help": "Precision of the decoder's frozen weights."})
    num_query_vectors: int = field(default=5, metadata={"help": "m at inference and in validation."})
    max_query_vectors: int | None = field(
        default=None, metadata={"help": "Most vectors of a question; num_query_vectors when not given."}
    )
    anchored: bool = field(default=False, metadata={"help": "Emit corrections of the document encoder's own vector."})
    anchor: str | None = field(
        default=None, metadata={"help": "vector: as `anchored`; tokens: start from the encoder's token vectors."}
    )
    token_vectors: bool = field(default=False, metadata={"help": "Read the encoder's token vectors."})
    emission: str = field(
        default="autoregressive", metadata={"help": "autoregressive: one vector after another; one_pass: at once."}
    )
    stop_score: bool = field(default=False, metadata={"help": "Learn how many vectors a question needs."})
    prompt_template: str | None = field(default=None, metadata={"help": "The prompt, with {query} in it."})
    lora_r: int | None = field(default=None, metadata={"help": "Rank of LoRA; none trains the whole decoder."})
    lora_alpha: int = field(default=16, metadata={"help": "LoRA's scale."})
    lora_dropout: float = field(default=0.0, metadata={"help": "LoRA's dropout."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        metadata={"help": "Linear layers that get LoRA."},
    )

    @property
    def lora(self) -> dict | None:
        if self.lora_r is None:
            return None
        scale = {"r": self.lora_r, "lora_alpha": self.lora_alpha, "lora_dropout": self.lora_dropout}
        return {**scale, "target_modules": list(self.lora_target_modules)}


@dataclass
class DataArguments:
    """The questions and the documents."""

    dataset: str = field(default="", metadata={"help": "Dataset: a directory, or a name on the Hub. Required."})
    store: str = field(default="", metadata={"help": "Document store: a directory, or a name on the Hub. Required."})
    max_eval_queries: int | None = field(
        default=None, metadata={"help": "Use the first so many validation questions."}
    )
    token_cache: str | None = field(
        default=None,
        metadata={
            "help": "Folder for the questions' token vectors, for a model that reads them: made once (30 MB for 1,000 "
            "questions of MiniLM), and then read from there in every epoch."
        },
    )
    eval_ks: list[int] = field(default_factory=lambda: [10, 100], metadata={"help": "Cut-offs of MRecall and Recall."})
    eval_search_device: str | None = field(
        default=None,
        metadata={
            "help": "Where validation searches: the training's device, a GPU then holding the store; cpu: no GPU."
        },
    )


# Of the Trainer's own arguments, those that decide what a run ends in.
DECISIVE = {
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "max_grad_norm", "optim", "max_steps", "num_train_epochs", "gradient_accumulation_steps", "seed", "bf16", "fp16",
    "train_sampling_strategy", "data_seed", "lr_scheduler_kwargs", "gradient_checkpointing",
}  # fmt: skip

Arguments = tuple[ModelArguments, DataArguments, AMERTrainingArguments]


def parse(argv: list[str]) -> Arguments:
    """YAML file first, command line over it.

    Raises:
        ValueError: a file that is not a YAML mapping, an unknown key in it, or a required field that is not set.
    """
    classes = (ModelArguments, DataArguments, AMERTrainingArguments)
    if argv and argv[0].endswith((".yaml", ".yml")):
        known = {item.name for cls in classes for item in fields(cls)}
        argv = [*as_options(read_yaml(argv[0], known)), *argv[1:]]
    arguments = HfArgumentParser(classes, description=__doc__).parse_args_into_dataclasses(args=argv)
    model_args, _, args = arguments
    for group, name in zip((0, 1, 1), ("base_model", "dataset", "store"), strict=True):
        if not getattr(arguments[group], name) and not (name == "base_model" and model_args.layers):
            raise ValueError(f"{name} is not set: give it in the YAML file or as --{name}.")
    if model_args.base_model and model_args.layers:
        raise ValueError("layers are those of a decoder from scratch: leave out base_model, or layers.")
    if args.objective == "matched" and args.max_targets and args.max_targets < model_args.num_query_vectors:
        raise ValueError(
            f"max_targets is {args.max_targets}, so vectors after that are never trained: "
            f"num_query_vectors cannot be {model_args.num_query_vectors}; set both, for Single-Query to 1."
        )
    return arguments


def as_options(values: dict) -> list[str]:
    """The mapping as a command line, so that both are checked alike; an empty value leaves the field's default."""
    options = []
    for name, value in values.items():
        if isinstance(value, list):
            options += [f"--{name}", *map(str, value)]
        elif value is not None:
            options.append(f"--{name}={json.dumps(value) if isinstance(value, dict) else value}")
    return options


def read_yaml(path: str, known: set[str]) -> dict:
    """The mapping in a YAML file, whose keys must be known fields."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of field names to values, got {type(values).__name__}.")
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else "; see `python train.py --help`."
            raise ValueError(f"{path}: unknown key {key!r}{hint}")
    return values


def build_model(args: ModelArguments, store: DocumentStore, reads_text: bool, seed: int = 0) -> AMERModel:
    """A new model, on a base or from scratch, for the documents of the store."""
    emission = {name: getattr(args, name) for name in ("emission", "stop_score", "max_query_vectors")}
    anchor = "vector" if args.anchored and args.anchor is None else args.anchor
    if args.layers:
        torch.manual_seed(seed)
        return AMERModel.from_scratch(
            store.dim,
            args.num_query_vectors,
            args.layers,
            args.width,
            anchor=anchor,
            document_encoder=store.encoder,
            **emission,
        )
    return AMERModel.from_base(
        args.base_model if args.base_model_revision else resolve_model(args.base_model),
        document_dim=store.dim,
        num_query_vectors=args.num_query_vectors,
        lora=args.lora,
        anchor=anchor,
        token_vectors=args.token_vectors,
        **emission,
        reads_text=reads_text,
        prompt_template=args.prompt_template,
        document_encoder=store.encoder,
        revision=args.base_model_revision,
        dtype=args.dtype,
    )


def build_trainer(
    model: AMERModel,
    args: AMERTrainingArguments,
    store: DocumentStore,
    splits: dict[str, RetrievalDataset],
    max_eval_queries: int | None = None,
    eval_ks: tuple[int, ...] = (10, 100),
    eval_search_device: str | None = None,
    token_cache: str | None = None,
) -> AMERTrainer:
    """A trainer on the `train` split, validated on the `validation` split if there is one."""

    def with_tokens(split: RetrievalDataset | None) -> RetrievalDataset | TokenDataset | None:
        if split is None or token_cache is None or not model.config.token_vectors:
            return split
        with args.main_process_first():
            folder = Path(token_cache, hashlib.sha256(json.dumps(split.queries).encode()).hexdigest()[:16])
            return TokenDataset(split, TokenCache.build(folder, model.document_encoder, split.queries))

    validation = splits.get("validation")
    if validation is not None:
        validation = validation.select(range(len(validation))[:max_eval_queries]).link(store)
    collator = AMERCollator(model, store, args.num_random_negatives, args.max_targets, args.seed)
    metrics = None
    if validation is not None:
        metrics = RetrievalMetrics(validation, ExactIndex(store, eval_search_device or args.device), args, eval_ks)
    return AMERTrainer(
        model=model,
        args=args,
        train_dataset=with_tokens(splits["train"].link(store)),
        eval_dataset=with_tokens(validation),
        data_collator=collator,
        compute_metrics=metrics,
    )


def last_checkpoint(folder: str) -> str | None:
    """The latest checkpoint that was written whole: the Trainer writes its state last."""
    whole = [file.parent for file in Path(folder).glob("checkpoint-*/trainer_state.json") if _is_json(file)]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _is_json(file: Path) -> bool:
    """Whether all of it was written."""
    try:
        read_json(file)
    except ValueError:
        return False
    return True


def check_same_run(
    folder: Path,
    checkpoint: str | None,
    model_args: ModelArguments,
    data_args: DataArguments,
    args: AMERTrainingArguments,
) -> None:
    """Note what is trained here; a checkpoint of something else is not gone on with.

    How many processes share a batch may change, the batch may not.

    Raises:
        ValueError: the folder holds a checkpoint of other settings; names them.
    """
    own = {item.name for item in fields(AMERTrainingArguments)} - {item.name for item in fields(TrainingArguments)}
    given = args.to_dict()
    chosen = {name: given[name] for name in sorted(own | DECISIVE)}
    batch = {"batch_of_all_processes": args.per_device_train_batch_size * args.world_size}
    data = {"dataset": data_args.dataset, "store": data_args.store}
    settings = {**asdict(model_args), **data, **batch, **chosen}
    note = folder / "run.json"
    if checkpoint is not None and note.is_file():
        before = read_json(note)
        differing = [
            f"{name} (was {before.get(name)!r}, now {value!r})"
            for name, value in settings.items()
            if before.get(name) != value
        ]
        if differing:
            raise ValueError(
                f"{folder} holds a checkpoint of other settings: {', '.join(differing)}; use another output_dir."
            )
    if args.process_index == 0:
        write_json(note, settings)


def main(argv: list[str] | None = None) -> None:
    model_args, data_args, args = parse(sys.argv[1:] if argv is None else argv)
    set_seed(args.seed)
    store = DocumentStore.open(pull_folder(data_args.store))
    dataset = pull_folder(data_args.dataset)
    splits = load_dataset_dir(dataset)
    if "train" not in splits:
        raise ValueError(f"{data_args.dataset} has no split `train`, it holds {', '.join(splits)}: add train.parquet.")
    model = build_model(model_args, store, reads_text=splits["train"].queries is not None, seed=args.seed)
    locate_encoder(model)
    reads_vector = model.config.anchored and not model.config.token_vectors
    if reads_vector and any(split.input_vectors is None for split in splits.values()):
        raise ValueError(
            f"An anchored model reads query_vector, which {data_args.dataset} lacks: see with_input_vectors."
        )
    searched = (
        data_args.max_eval_queries,
        tuple(data_args.eval_ks),
        data_args.eval_search_device,
        data_args.token_cache,
    )
    trainer = build_trainer(model, args, store, splits, *searched)
    trainer.sources = {
        "dataset": {**origin(data_args.dataset, dataset), **read_json(dataset / "dataset.json")},
        "store": {**origin(data_args.store, store.path), **store.info},
    }
    checkpoint = args.resume_from_checkpoint or last_checkpoint(args.output_dir)  # an interrupted run goes on
    check_same_run(Path(args.output_dir), checkpoint, model_args, data_args, args)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    if trainer.is_world_process_zero():
        write_json(Path(args.output_dir) / "training_record.json", training_record(trainer, **trainer.sources))
    trainer.save_state()


if __name__ == "__main__":
    main()
