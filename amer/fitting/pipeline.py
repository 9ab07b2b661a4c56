"""The stages from a user's questions and documents to a search model. Most do the work of one command."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from rich.console import Console

from amer.corpus import DocumentEncoder, DocumentStore, encode_corpus, open_documents
from amer.corpus.known_encoders import known_query_prompt
from amer.data import RetrievalDataset, build_compound, build_python_api, load_dataset_dir
from amer.data.custom import build_custom
from amer.data.token_cache import TokenDataset
from amer.evaluation import target_similarity
from amer.evaluation.provenance import machine_of, metadata_of
from amer.extras import import_extra
from amer.fitting.comparison import Comparison, compare
from amer.fitting.examples import HITS_A_PART, PARTS, example_questions, example_table
from amer.fitting.report import RESULTS, save_report
from amer.fitting.settings import Settings
from amer.fitting.stages import Stages, command_line
from amer.fitting.table import comparison_table
from amer.fitting.training import run_trainings
from amer.hub_cards.rendering import duration
from amer.machine import chosen_device, chosen_dtype
from amer.offline import resolve_model
from amer.search import ExactIndex, Searcher, open_model
from modeling_amer import QuestionEncoder
from modeling_amer.publishing_amer import is_repo_id

STAGES = 7


def fit(settings: Settings, console: Console) -> Comparison:
    """Build the data, train the models and compare them; finished work of an earlier call is kept.

    Args:
        settings: Input, output folder and sizes.
        console: Console for the progress, the table of five systems, three questions and the next commands.

    Raises:
        ValueError, OSError: The input is not usable, or the folder holds results of other settings.
        ChildProcessError: A training failed.
        ImportError: A package of the extra `cpu` or `gpu` is missing.
    """
    encoder, stages, device = checked_encoder(settings), Stages(console, STAGES), chosen_device()
    with stages.stage("Questions and documents", settings.dataset_command()):
        documents = build_questions(settings)
    with stages.stage("Questions of several parts", settings.compound_command()):
        splits = build_parts(settings)
    with stages.stage("Vectors of the documents", settings.encode_command()):
        store = encode_documents(documents, settings)
    with stages.stage("Token vectors of the questions"):
        cache_tokens(splits, encoder, settings.tokens)
    trainings = settings.trainings(len(splits["train"]), len(store))
    with stages.stage("Trainings", *(training.arguments for training in trainings)):
        run_trainings(trainings, console)
    test, index = splits["test"].link(store), ExactIndex(store, device)
    model, one_vector = open_model(settings.model, device), open_model(settings.one_vector, device)
    with stages.stage("Evaluation on the test questions"):
        comparison = compare(model, one_vector, test, index, console)
    with stages.stage("Report"):
        belongs = metadata_of(str(settings.model), str(settings.dataset), settings.dataset, "test", store)
        similarity = target_similarity(test.linked_rows, store)
        save_report(comparison, similarity, {**belongs, **machine_of(device)}, settings.output)
    console.print(comparison_table(comparison))
    show_examples(Searcher(model, index), test, console)
    took = duration(sum(stages.seconds.values()))
    console.print(f"All results are in {settings.output}; this took {took}.", markup=False, highlight=False)
    show_next(settings, example_questions(test)[0], console)
    return comparison


def checked_encoder(settings: Settings) -> QuestionEncoder:
    """Load and check the document encoder before anything is built.

    Raises:
        ValueError: The encoder does not use mean pooling, or is more than a transformer.
        OSError: The encoder cannot be loaded.
        ImportError: A package that a later stage needs is not installed.
    """
    for module in ("matplotlib", "sentence_transformers"):
        import_extra(module, "cpu", "amer fit")
    identity, where, device = identity_of(settings.encoder), resolve_model(settings.encoder), chosen_device()
    encoder = QuestionEncoder.from_identity(identity, where, chosen_dtype("auto", device))
    encoder.check_pools_the_mean()
    return encoder.to(device)


def identity_of(encoder: str) -> dict[str, str | None]:
    """The encoder's identity, as `amer corpus encode` records it."""
    prompt = known_query_prompt(encoder)
    return {"name": encoder, "revision": None, "document_prompt": "", "query_prompt": prompt}


def build_questions(settings: Settings) -> pa.Table:
    """Build the dataset of single questions and return its documents."""
    if settings.questions is None:
        build_python_api(settings.source, settings.packages)
        return open_documents(settings.corpus)
    documents = None if settings.documents is None else open_documents(settings.documents)
    build_custom(settings.source, settings.questions, documents)
    return open_documents(settings.corpus) if documents is None else documents


def build_parts(settings: Settings) -> dict[str, RetrievalDataset]:
    """Join the questions and return the splits.

    Raises:
        ValueError: A split is missing, or has too few questions to join.
    """
    build_compound(
        settings.compound,
        settings.source,
        settings.templates,
        num_train=settings.num_train,
        num_validation=settings.held_out,
        num_test=settings.held_out,
    )
    splits = load_dataset_dir(settings.dataset)
    missing = [name for name in ("train", "validation", "test") if name not in splits]
    if missing:
        raise ValueError(
            f"the questions have no split {' and no '.join(missing)}: give more questions, or a file for that split"
        )
    return splits


def encode_documents(documents: pa.Table, settings: Settings) -> DocumentStore:
    """Encode the corpus.

    Raises:
        ValueError: Another process is encoding it.
    """
    encoder = DocumentEncoder.from_identity(identity_of(settings.encoder), dtype="auto")
    store = encode_corpus(documents, encoder, settings.store)
    if store is None:
        raise ValueError(f"another process is encoding into {settings.store}: wait for it, then run this again")
    return store


def cache_tokens(splits: dict[str, RetrievalDataset], encoder: QuestionEncoder, folder: Path) -> None:
    """Write the token vectors that the trainings read: of the parts and of the whole questions."""
    for name in ("train", "validation"):
        for of_parts in (True, False):
            TokenDataset.build(folder, splits[name], encoder, of_parts, show_progress_bar=True)


def show_examples(searcher: Searcher, test: RetrievalDataset, console: Console) -> None:
    """Ask some test questions, and show which part of each found which document."""
    questions = example_questions(test)
    for question, hits in zip(questions, searcher.search(questions, HITS_A_PART * max(PARTS)), strict=True):
        console.print()
        console.print(example_table(question, hits, searcher.parts(question)))
    console.print()


def show_next(settings: Settings, question: str, console: Console) -> None:
    """Print the commands to run next."""
    where = ["--model", str(settings.model), "--store", str(settings.store)]
    results = ["--results", str(settings.output / RESULTS), "--system", "AMER"]
    commands = [["search", question, *where], ["serve", *where]]
    if is_repo_id(settings.encoder):  # others cannot load an encoder from a local folder
        commands.append(["push", "model", str(settings.model), "YOU/NAME", *results])
    console.print("Next:")
    for command in commands:
        console.print(f"  {command_line(command)}", markup=False, highlight=False, soft_wrap=True)
