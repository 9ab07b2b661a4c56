"""`amer dataset`: build a dataset or a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from amer.commands.opening import chosen_device
from amer.commands.options import Device, TrustRemoteCode

if TYPE_CHECKING:
    import pyarrow as pa

    from amer.baselines.bm25 import BM25
    from amer.baselines.dense import DenseRetriever

app = typer.Typer(
    no_args_is_help=True,
    help="Build a dataset or a corpus. A build that was killed goes on with the same command.",
)

REPORTED = ("splits", "stages", "drops", "paper", "documents", "words_per_document")
REPORTS = ("dataset/dataset.json", "documents/documents.json")

Output = Annotated[Path, typer.Option(metavar="DIR", help="A new directory, or that of a killed build.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same files.")]
Depth = Annotated[int, typer.Option(min=1, help="Candidates of each search.")]
Stores = Annotated[
    list[str] | None,
    typer.Option("--store", metavar="DIR", help="A document store of the corpus to search too. May be repeated."),
]
DOCUMENTS = typer.Option(help="The corpus: a folder of Arrow parts, or a .parquet file.")
INDEX = typer.Option("--bm25", help="Folder of the corpus's BM25 index, which is built when missing.")


@app.command()
def wordnet(
    output: Output,
    source: Annotated[
        str | None, typer.Option(help="A `dict` folder of WordNet 3.0. The packaged extract when not given.")
    ] = None,
    num_train: Annotated[
        int | None, typer.Option(help="Random choice of so many queries. All when not given.")
    ] = None,
    num_validation: Annotated[int | None, typer.Option(help="See --num-train.")] = None,
    num_test: Annotated[int | None, typer.Option(help="See --num-train.")] = None,
    corpus_size: Annotated[
        int | None, typer.Option(help="Documents in the corpus. Every gloss when not given.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """WordNet: lemmas, and the glosses of their senses."""
    from amer.data import build_wordnet

    build_wordnet(output, source, num_train, num_validation, num_test, corpus_size, seed)
    report(output)


@app.command()
def synthetic(
    output: Output,
    transformation: Annotated[Literal["linear", "mlp"], typer.Option(help="Of the targets.")] = "linear",
    setting: Annotated[Literal["single", "multi", "ood"], typer.Option(help="Input distributions.")] = "single",
    dim: Annotated[int, typer.Option(help="Size of the vectors.")] = 1024,
    num_train: Annotated[int, typer.Option(help="Queries, a tenth of them for validation.")] = 20_000,
    num_test: Annotated[int, typer.Option(help="Test queries.")] = 1_000,
    corpus_size: Annotated[int, typer.Option(help="Targets and random vectors together.")] = 200_000,
    seed: Seed = 0,
) -> None:
    """The paper's synthetic study: dataset and document store."""
    from amer.data import build_synthetic

    build_synthetic(output, transformation, setting, dim, num_train, num_test, corpus_size, seed)
    report(output)


@app.command()
def wikipedia(
    output: Output,
    chunks: Annotated[Path, typer.Option(help="Folder of QAMPARI's unpacked chunked_wikipedia, *.jsonl.")],
) -> None:
    """The corpus of AmbigQA and QAMPARI."""
    from amer.data import build_wikipedia

    build_wikipedia(output, chunks)
    report(output)


@app.command()
def ambigqa(
    output: Output,
    documents: Annotated[str, DOCUMENTS],
    bm25: Annotated[Path, INDEX],
    source: Annotated[str, typer.Option(help="On the Hub, or a folder of the published files.")] = "sewon/ambig_qa",
    nq_open: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Development or test file of NQ-Open. May be repeated.")
    ] = None,
    test_fraction: Annotated[float, typer.Option(help="Of the mapped development questions.")] = 0.5,
    depth: Depth = 500,
    stores: Stores = None,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Seed = 0,
) -> None:
    """AmbigQA, and the questions of NQ-Open with several answers."""
    from amer.data import build_ambigqa

    corpus, searches = open_corpus(documents, bm25, stores or [], device, trust_remote_code)
    fractions = {"test_fraction": test_fraction}
    build_ambigqa(output, corpus, searches, source, nq_open or [], depth=depth, seed=seed, **fractions)
    report(output)


@app.command()
def qampari(
    output: Output,
    documents: Annotated[str, DOCUMENTS],
    bm25: Annotated[Path, INDEX],
    source: Annotated[str, typer.Option(help="Folder of train_data.jsonl and dev_data.jsonl.")],
    depth: Depth = 500,
    seed: Seed = 0,
) -> None:
    """QAMPARI: its questions with five to eight answers."""
    from amer.data import build_qampari

    corpus, searches = open_corpus(documents, bm25)
    build_qampari(output, corpus, searches, source, depth=depth, seed=seed)
    report(output)


@app.command()
def own(
    output: Output,
    source: Annotated[str, typer.Option(help="A file, a folder of splits, or a dataset of the Hub.")],
    documents: Annotated[str | None, DOCUMENTS] = None,
    bm25: Annotated[Path | None, INDEX] = None,
    depth: Depth = 500,
    test_fraction: Annotated[float, typer.Option(help="Of a source without splits.")] = 0.1,
    validation_fraction: Annotated[float, typer.Option(help="Of what the test set leaves.")] = 0.1,
    stores: Stores = None,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Seed = 0,
) -> None:
    """Your own questions, with their documents or answers.

    A record has `query`, and `positives` (ids or texts of documents) or `answers`.
    """
    from amer.data.custom import build_custom

    if documents is None and (bm25 or stores):
        raise typer.BadParameter("--bm25 and --store search a corpus: give --documents too")
    corpus, searches = None, []
    if documents is not None:
        corpus, searches = open_corpus(documents, bm25, stores or [], device, trust_remote_code)
    build_custom(output, source, corpus, searches, depth, test_fraction, validation_fraction, seed)
    report(output)


def open_corpus(
    documents: str,
    bm25: Path | None,
    stores: Sequence[str] = (),
    device: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[pa.Table, list[BM25 | DenseRetriever]]:
    """The corpus, and what searches it: BM25, and each store with its own encoder."""
    from amer.corpus import open_documents

    table = open_documents(documents)
    searches: list[BM25 | DenseRetriever] = [] if bm25 is None else [open_bm25(bm25, table)]
    searches += [open_dense(store, table, chosen_device(device), trust_remote_code) for store in stores]
    return table, searches


def open_bm25(path: Path, documents: pa.Table) -> BM25:
    """The corpus's BM25 index; built if there is none."""
    from amer.baselines.bm25 import BM25

    if path.exists():
        return BM25.open(path, documents)
    return BM25.build(documents, path, show_progress_bar=True)


def open_dense(path: str, documents: pa.Table, device: str, trust_remote_code: bool = False) -> DenseRetriever:
    """A document store, searched with its own encoder.

    Raises:
        ValueError: it is not a store of these documents, in this order.
    """
    from amer.baselines.dense import DenseRetriever
    from amer.corpus import DocumentEncoder, DocumentStore
    from amer.corpus.table import fingerprint
    from amer.search import ExactIndex

    store = DocumentStore.open(path)
    if store.info.get("documents_sha256") != fingerprint(documents):
        raise ValueError(f"{path} is a store of another corpus: encode the one of --documents, in its order")
    encoder = DocumentEncoder.from_identity(store.encoder, device, trust_remote_code)
    return DenseRetriever(encoder, ExactIndex(store, device))


def report(output: Path) -> None:
    """Say what came out."""
    from rich.console import Console

    from amer.files import read_json

    for file in (output / name for name in REPORTS):
        if file.is_file():
            info = read_json(file)
            Console().print(str(file), markup=False)
            Console().print_json(data={key: info[key] for key in REPORTED if key in info})
