"""Build a new model and its trainer from the settings of a training."""

from __future__ import annotations

from collections.abc import Mapping

from amer.corpus import DocumentStore
from amer.data import RetrievalDataset
from amer.data.token_cache import TokenDataset
from amer.machine import chosen_dtype
from amer.offline import resolve_model
from amer.search import ExactIndex
from amer.trainer.arguments import AMERTrainingArguments, ModelArguments
from amer.trainer.collator import AMERCollator
from amer.trainer.metrics import RetrievalMetrics
from amer.trainer.trainer import AMERTrainer
from modeling_amer import AMERModel


def build_model(args: ModelArguments, store: DocumentStore, reads_text: bool) -> AMERModel:
    """Build a new model for the documents of the store, on a base or from scratch.

    Raises:
        OSError: The base cannot be loaded.
        ValueError: There is a prompt_template, but the questions are vectors only.
    """
    if args.prompt_template is not None and not reads_text:
        raise ValueError(
            "prompt_template is set, but the questions of the dataset are vectors only: leave out prompt_template, or "
            "use a dataset with texts."
        )
    fields = ("anchor", "emission", "stop_score", "splits_questions", "max_query_vectors", "encoder_weight")
    shared = {name: getattr(args, name) for name in fields}
    if args.layers:
        return AMERModel.from_scratch(
            store.dim,
            args.num_query_vectors,
            args.layers,
            args.width,
            document_encoder=store.encoder,
            **shared,
        )
    return AMERModel.from_base(
        args.base_model if args.base_model_revision else resolve_model(args.base_model),
        document_dim=store.dim,
        num_query_vectors=args.num_query_vectors,
        lora=args.lora,
        token_vectors=args.token_vectors,
        **shared,
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
    splits: Mapping[str, RetrievalDataset],
    max_eval_queries: int | None = None,
    eval_ks: tuple[int, ...] = (10, 100),
    eval_search_device: str | None = None,
    token_cache: str | None = None,
) -> AMERTrainer:
    """Build a trainer on the `train` split; it validates on the `validation` split, if there is one."""
    validation = splits.get("validation")
    if validation is not None:
        validation = validation.select(range(len(validation))[:max_eval_queries]).link(store)
    reads_tokens = splits["train"].queries is not None and model.config.token_vectors
    if reads_tokens:
        model.document_encoder_dtype = chosen_dtype("auto", args.device)
    collator = AMERCollator(model, store, args.num_random_negatives, args.max_targets, args.seed)
    metrics = None
    if validation is not None:
        metrics = RetrievalMetrics(validation, ExactIndex(store, eval_search_device or args.device), args, eval_ks)

    def with_tokens(split: RetrievalDataset) -> RetrievalDataset | TokenDataset:
        if token_cache is None or not reads_tokens:
            return split
        encoder = model.document_encoder.to(args.device)
        with args.main_process_first():
            return TokenDataset.build(token_cache, split, encoder, model.config.splits_questions)

    return AMERTrainer(
        model=model,
        args=args,
        train_dataset=with_tokens(splits["train"].link(store)),
        eval_dataset=None if validation is None else with_tokens(validation),
        data_collator=collator,
        compute_metrics=metrics,
    )
