"""`amer evaluate`: compare a trained model, with several numbers of query vectors, with the encoder and baselines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amer.commands.options import (
    COLLECTION,
    Collection,
    Dataset,
    Device,
    Index,
    Model,
    Revision,
    Split,
    Store,
    TrustRemoteCode,
)

if TYPE_CHECKING:
    from amer.corpus import DocumentEncoder
    from amer.data import RetrievalDataset
    from amer.evaluation import SystemResult
    from amer.search import Searcher
    from modeling_amer import AMERConfig, AMERModel

OFF_THE_SHELF = "off-the-shelf"
AUTO = "AMER, m of its choice"
USUAL = (1, 2, 3, 5)
CUTOFFS = [10, 100]


def evaluate(
    model: Model,
    dataset: Dataset,
    store: Store,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for results.json, report.md and a plot.")],
    index: Index = None,
    baselines: Annotated[
        list[str] | None,
        typer.Option("--baseline", help="Another trained AMER model, such as Single-Query. Up to two."),
    ] = None,
    split: Split = "test",
    num_query_vectors: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="A number of query vectors to evaluate, besides the model's own. May be repeated. Default: those of "
            "1, 2, 3, 5 below the model's own.",
        ),
    ] = None,
    ks: Annotated[list[int], typer.Option("--k", min=1, help="Cut-off. May be repeated.")] = CUTOFFS,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions per batch.")] = 64,
    collection: Collection = COLLECTION,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    device: Device = None,
) -> None:
    """Measure Recall and MRecall of a model and of baselines.

    The document encoder itself is a baseline. If the dataset marks the parts of the questions, two more baselines are
    the encoder on those parts and the encoder on parts split by rule. The report has p-values of the differences.
    """
    _check_names(baselines or [])
    from rich.console import Console

    from amer.corpus import DocumentEncoder
    from amer.evaluation import Report, plot_by_diversity, target_similarity
    from amer.evaluation.provenance import machine_of, metadata_of
    from amer.hub import pull_folder
    from amer.search import Searcher

    searcher = Searcher.from_pretrained(
        model,
        store,
        index,
        device=device,
        trust_remote_code=trust_remote_code,
        revision=revision,
        collection=collection,
    )
    device = str(searcher.model.device)
    folder = pull_folder(dataset)
    questions, seconds = load_dataset(folder, split, searcher, device, batch_size, trust_remote_code)
    evaluation = Evaluation(searcher, questions, seconds, ks, batch_size)
    described = evaluation.references(baselines or [], device)
    references, own = [*described], searcher.model.config.num_query_vectors
    for m in numbers_of_vectors(num_query_vectors, own):
        evaluation.add(searcher.model, m, f"AMER, m = {m}")
    if not baselines:
        references.append(evaluation.systems[len(references)].name)
    chooses = searcher.model.config.chooses_number
    if chooses:
        evaluation.add(searcher.model, None, AUTO)
    if questions.spans is not None:
        evaluation.add_parts(DocumentEncoder.from_identity(searcher.store.encoder, device, trust_remote_code))
    metadata = {
        "system": AUTO if chooses else f"AMER, m = {own}",
        **metadata_of(model, dataset, folder, split, searcher.store),
        **{f"baseline {name}": what for name, what in described.items()},
        "batch size": batch_size,
        **machine_of(device),
    }
    similarity = target_similarity(questions.linked_rows, searcher.store)
    report = Report(evaluation.systems, similarity, tuple(references), metadata)
    report.save(output)
    plot_by_diversity(report, f"mrecall@{max(ks)}", output / "by_diversity.png")
    Console().print(report.table())


class Evaluation:
    """Compares systems on the same questions.

    Attributes:
        systems: Results of the systems, in the order of their measurement.
    """

    def __init__(
        self, searcher: Searcher, questions: RetrievalDataset, encoding_seconds: float, ks: list[int], batch_size: int
    ) -> None:
        """Prepare the comparison; `encoding_seconds` is the document encoder's time per question."""
        self.systems: list[SystemResult] = []
        self._index, self._questions, self._seconds = searcher.index, questions, encoding_seconds
        self._ks, self._batch_size = ks, batch_size

    def add(self, model: AMERModel, m: int | None, name: str) -> None:
        """Measure a model with `m` query vectors. None: the model's own number or its own choice."""
        from amer.evaluation import evaluate_model

        read = self._seconds if model.config.needs_question_vectors else 0.0
        questions, batch_size = self._questions, self._batch_size
        self.systems.append(
            evaluate_model(
                model, questions, self._index, m, name, self._ks, batch_size, None, True, encoding_seconds=read
            )
        )

    def references(self, baselines: list[str], device: str) -> dict[str, str]:
        """Measure the baselines, and the document encoder if the questions are texts.

        Returns:
            A description of each system by its name.
        """
        from amer.evaluation import evaluate_embeddings
        from amer.search import open_model

        described = {}
        vectors = self._questions.input_vectors
        if self._questions.queries is not None and vectors is not None:
            one_each, seconds = vectors[:, None], self._seconds
            result = evaluate_embeddings(
                one_each, self._questions, self._index, OFF_THE_SHELF, self._ks, encoding_seconds=seconds
            )
            self.systems.append(result)
            described[OFF_THE_SHELF] = "the document encoder's own vector of the question"
        for baseline in baselines:
            model, name = open_model(baseline, device), baseline_name(baseline)
            self.add(model, None, name)
            described[name] = description(model.config)
        return described

    def add_parts(self, encoder: DocumentEncoder) -> None:
        """Measure the document encoder on the parts of each question: split by rule, and as the dataset marks them."""
        from amer.baselines.splitting import RULE, TOLD, encode_parts, split_by_rule, split_by_spans
        from amer.evaluation import evaluate_embeddings

        queries, spans = self._questions.queries or [], self._questions.spans or []
        marked = [split_by_spans(*pair) for pair in zip(queries, spans, strict=True)]
        for name, parts in ((RULE, [split_by_rule(query) for query in queries]), (TOLD, marked)):
            started = time.perf_counter()
            vectors = encode_parts(parts, lambda texts: encoder.encode_queries(texts, self._batch_size))
            seconds = (time.perf_counter() - started) / len(queries)
            self.systems.append(
                evaluate_embeddings(vectors, self._questions, self._index, name, self._ks, encoding_seconds=seconds)
            )


def load_dataset(
    folder: Path, split: str, searcher: Searcher, device: str, batch_size: int, trust_remote_code: bool
) -> tuple[RetrievalDataset, float]:
    """Load a split and link it to the store; questions in text also get the document encoder's embeddings.

    Returns:
        The split, and the embedding time per question in seconds.
    """
    from amer.corpus import DocumentEncoder
    from amer.data import load_split

    dataset = load_split(folder, split).link(searcher.store)
    if dataset.queries is None:
        return dataset, 0.0
    encoder = searcher.encoder or DocumentEncoder.from_identity(searcher.store.encoder, device, trust_remote_code)
    started = time.perf_counter()
    vectors = encoder.encode_queries(dataset.queries, batch_size, show_progress_bar=True)
    return dataset.with_input_vectors(vectors), (time.perf_counter() - started) / len(dataset)


def baseline_name(model: str) -> str:
    """The name of a baseline in the report: the last part of its folder or of its name on the Hub."""
    return Path(model).absolute().name


def _check_names(baselines: list[str]) -> None:
    names = [baseline_name(name) for name in baselines]
    if len(names) > 2 or len({*names, OFF_THE_SHELF}) != len(names) + 1:
        raise typer.BadParameter(
            f"--baseline takes up to two models whose folders have different names, got {', '.join(names)}"
        )


def numbers_of_vectors(asked: list[int] | None, own: int) -> list[int]:
    """The values of m to evaluate: the model's own, and those asked for; by default the usual ones below its own."""
    others = asked or [m for m in USUAL if m < own]
    return sorted({*others, own})


def description(config: AMERConfig) -> str:
    """A description of a baseline for the report."""
    vectors = "one query vector" if config.num_query_vectors == 1 else f"{config.num_query_vectors} query vectors"
    return f"trained for {vectors}, {'anchored, ' if config.anchored else ''}objective {config.objective}"
