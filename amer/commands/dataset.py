"""`amer dataset`: build a dataset or a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from amer.commands.options import Device, TrustRemoteCode

if TYPE_CHECKING:
    import pyarrow as pa

    from amer.baselines.bm25 import BM25
    from amer.baselines.dense import DenseRetriever

app = typer.Typer(
    no_args_is_help=True,
    help="Build a dataset or a corpus. Run the same command again to resume an interrupted build.",
)

REPORTED = ("splits", "stages", "drops", "paper", "documents", "words_per_document")
REPORTS = ("dataset/dataset.json", "documents/documents.json")

Output = Annotated[Path, typer.Option(metavar="DIR", help="A new directory, or that of an interrupted build.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same files.")]
Published = Annotated[str, typer.Option(help="A name on the Hub, or a folder of the published files.")]
Depth = Annotated[int, typer.Option(min=1, help="Candidates per search.")]
Stores = Annotated[
    list[str] | None,
    typer.Option("--store", metavar="DIR", help="A document store of the corpus, to search as well. May be repeated."),
]
DOCUMENTS = typer.Option(help="The corpus: a folder of Arrow parts, or a .parquet or .jsonl file.")
INDEX = typer.Option("--bm25", help="Folder of the corpus's BM25 index. Built if it does not exist.")


@app.command()
def wordnet(
    output: Output,
    source: Annotated[
        str | None, typer.Option(help="A `dict` folder of WordNet 3.0. Default: the packaged extract.")
    ] = None,
    num_train: Annotated[int | None, typer.Option(help="Number of queries to draw at random. Default: all.")] = None,
    num_validation: Annotated[int | None, typer.Option(help="See --num-train.")] = None,
    num_test: Annotated[int | None, typer.Option(help="See --num-train.")] = None,
    corpus_size: Annotated[int | None, typer.Option(help="Documents in the corpus. Default: every gloss.")] = None,
    min_senses: Annotated[int, typer.Option(min=1, help="Minimum senses of a lemma.")] = 2,
    max_senses: Annotated[
        int, typer.Option(min=1, help="Maximum senses of a lemma; set 1 for `amer dataset compound`.")
    ] = 8,
    seed: Seed = 0,
) -> None:
    """WordNet: lemmas, and the glosses of their senses."""
    from amer.data import build_wordnet

    build_wordnet(output, source, num_train, num_validation, num_test, corpus_size, seed, min_senses, max_senses)
    report(output)


@app.command()
def synthetic(
    output: Output,
    transformation: Annotated[
        Literal["linear", "mlp"], typer.Option(help="Transformation that makes the targets.")
    ] = "linear",
    setting: Annotated[Literal["single", "multi", "ood"], typer.Option(help="Input distributions.")] = "single",
    dim: Annotated[int, typer.Option(help="Size of the vectors.")] = 1024,
    num_train: Annotated[int, typer.Option(help="Queries; one tenth of them is for validation.")] = 20_000,
    num_test: Annotated[int, typer.Option(help="Test queries.")] = 1_000,
    corpus_size: Annotated[int, typer.Option(help="Number of targets and random vectors together.")] = 200_000,
    seed: Seed = 0,
) -> None:
    """The paper's synthetic study: dataset and document store."""
    from amer.data import build_synthetic

    build_synthetic(output, transformation, setting, dim, num_train, num_test, corpus_size, seed)
    report(output)


@app.command()
def wikipedia(
    output: Output,
    chunks: Annotated[
        Path, typer.Option(help="Folder with the *.jsonl files of QAMPARI's unpacked chunked_wikipedia.")
    ],
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
    source: Annotated[
        str, typer.Option(help="A name on the Hub, or a folder of the published files.")
    ] = "sewon/ambig_qa",
    nq_open: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Development or test file of NQ-Open. May be repeated.")
    ] = None,
    test_fraction: Annotated[
        float, typer.Option(help="Share of the mapped development questions for the test.")
    ] = 0.5,
    depth: Depth = 500,
    stores: Stores = None,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    seed: Seed = 0,
) -> None:
    """AmbigQA, with the questions of NQ-Open that have several answers."""
    from amer.data import build_ambigqa

    corpus, searches = open_corpus(documents, bm25, stores or [], device, trust_remote_code)
    build_ambigqa(output, corpus, searches, source, nq_open or [], depth=depth, test_fraction=test_fraction, seed=seed)
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
    source: Annotated[str, typer.Option(help="A file, a folder of splits, or a dataset on the Hub.")],
    documents: Annotated[str | None, DOCUMENTS] = None,
    bm25: Annotated[Path | None, INDEX] = None,
    depth: Depth = 500,
    test_fraction: Annotated[float, typer.Option(help="Share for the test, if the source has no splits.")] = 0.1,
    validation_fraction: Annotated[float, typer.Option(help="Share of the remaining questions for validation.")] = 0.1,
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
        raise typer.BadParameter("--bm25 and --store search a corpus: also give --documents")
    corpus: pa.Table | None = None
    searches: list[BM25 | DenseRetriever] = []
    if documents is not None:
        corpus, searches = open_corpus(documents, bm25, stores or [], device, trust_remote_code)
    build_custom(output, source, corpus, searches, depth, test_fraction, validation_fraction, seed)
    report(output)


@app.command("python-api")
def python_api(
    output: Output,
    packages: Annotated[
        list[str] | None,
        typer.Option(
            "--package",
            metavar="NAME",
            help="A package to read, such as sklearn; `python` is the standard library. May be repeated. Default: the "
            "standard library and the dependencies of this project.",
        ),
    ] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Maximum seconds per package.")] = 300.0,
) -> None:
    """The API reference of the Python packages installed here. Needs no download.

    A question is the summary line of a docstring. Its document is the signature and the rest of the docstring.
    """
    from amer.data import build_python_api

    build_python_api(output, packages, time_limit)
    report(output)


@app.command()
def compound(
    output: Output,
    source: Annotated[
        str, typer.Option(help="A dataset of questions with one target each: a folder or a name on the Hub.")
    ],
    templates: Annotated[
        Path | None, typer.Option(help="YAML file of templates that join parts. Default: the packaged file.")
    ] = None,
    num_train: Annotated[int, typer.Option(min=0, help="Questions to draw; 0 omits the split.")] = 20_000,
    num_validation: Annotated[int, typer.Option(min=0, help="See --num-train.")] = 1_000,
    num_test: Annotated[int, typer.Option(min=0, help="See --num-train.")] = 1_000,
    seed: Seed = 0,
) -> None:
    """Questions with one to four parts, joined from the questions of another dataset."""
    from amer.data import build_compound
    from amer.data.compound import TEMPLATES

    build_compound(
        output,
        source,
        TEMPLATES if templates is None else templates,
        num_train=num_train,
        num_validation=num_validation,
        num_test=num_test,
        seed=seed,
    )
    report(output)


@app.command()
def hotpotqa(output: Output, source: Published = "hotpotqa/hotpot_qa", seed: Seed = 0) -> None:
    """HotpotQA: the paragraphs that support a question."""
    from amer.data import build_hotpotqa

    build_hotpotqa(output, source, seed=seed)
    report(output)


@app.command("2wikimultihopqa")
def two_wiki(output: Output, source: Published = "framolfese/2WikiMultihopQA", seed: Seed = 0) -> None:
    """2WikiMultihopQA: the paragraphs that support a question."""
    from amer.data import build_2wikimultihopqa

    build_2wikimultihopqa(output, source, seed=seed)
    report(output)


@app.command()
def musique(output: Output, source: Published = "dgslibisey/MuSiQue", seed: Seed = 0) -> None:
    """MuSiQue: the paragraphs that support a question."""
    from amer.data import build_musique

    build_musique(output, source, seed=seed)
    report(output)


def open_corpus(
    documents: str,
    bm25: Path | None,
    stores: Sequence[str] = (),
    device: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[pa.Table, list[BM25 | DenseRetriever]]:
    """The corpus and its retrievers: BM25, and each store with its own encoder."""
    from amer.corpus import open_documents
    from amer.machine import chosen_device

    table = open_documents(documents)
    searches: list[BM25 | DenseRetriever] = [] if bm25 is None else [open_bm25(bm25, table)]
    searches += [open_dense(store, table, chosen_device(device), trust_remote_code) for store in stores]
    return table, searches


def open_bm25(path: Path, documents: pa.Table) -> BM25:
    """Open the corpus's BM25 index; build it if it does not exist."""
    from amer.baselines.bm25 import BM25

    if path.exists():
        return BM25.open(path, documents)
    return BM25.build(documents, path, show_progress_bar=True)


def open_dense(path: str, documents: pa.Table, device: str, trust_remote_code: bool = False) -> DenseRetriever:
    """A retriever on a document store, with the store's own encoder.

    Raises:
        ValueError: The store does not hold these documents in this order.
    """
    from amer.baselines.dense import DenseRetriever
    from amer.corpus import DocumentEncoder, DocumentStore
    from amer.corpus.table import fingerprint
    from amer.search import ExactIndex

    store = DocumentStore.open(path)
    if store.info.get("documents_sha256") != fingerprint(documents):
        raise ValueError(f"{path} is a store of another corpus: encode the corpus of --documents, in its order")
    encoder = DocumentEncoder.from_identity(store.encoder, device, trust_remote_code)
    return DenseRetriever(encoder, ExactIndex(store, device))


def report(output: Path) -> None:
    """Print a summary of the files that were built."""
    from rich.console import Console

    from amer.files import read_json

    for file in (output / name for name in REPORTS):
        if file.is_file():
            info = read_json(file)
            Console().print(str(file), markup=False)
            Console().print_json(data={key: info[key] for key in REPORTED if key in info})
