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
    help="Build a dataset or a corpus. A build that was killed goes on with the same command.",
)

REPORTED = ("splits", "stages", "drops", "paper", "documents", "words_per_document")
REPORTS = ("dataset/dataset.json", "documents/documents.json")

Output = Annotated[Path, typer.Option(metavar="DIR", help="A new directory, or that of a killed build.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same files.")]
Published = Annotated[str, typer.Option(help="A name on the Hub, or a folder of the published files.")]
Depth = Annotated[int, typer.Option(min=1, help="Candidates of each search.")]
Stores = Annotated[
    list[str] | None,
    typer.Option("--store", metavar="DIR", help="A document store of the corpus to search too. May be repeated."),
]
DOCUMENTS = typer.Option(help="The corpus: a folder of Arrow parts, or a .parquet or .jsonl file.")
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
    min_senses: Annotated[int, typer.Option(min=1, help="Senses a lemma must have.")] = 2,
    max_senses: Annotated[int, typer.Option(min=1, help="Senses it may have; 1 for `amer dataset compound`.")] = 8,
    seed: Seed = 0,
) -> None:
    """WordNet: lemmas, and the glosses of their senses."""
    from amer.data import build_wordnet

    build_wordnet(output, source, num_train, num_validation, num_test, corpus_size, seed, min_senses, max_senses)
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
            help="A package to read, as sklearn; python is the standard library. May be repeated. When not given: the "
            "standard library, and what this project depends on.",
        ),
    ] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds a package may take.")] = 300.0,
) -> None:
    """The API reference of the Python packages installed here. Needs no download.

    A question is the summary line of a docstring, its document the signature and the rest.
    """
    from amer.data import build_python_api

    build_python_api(output, packages, time_limit)
    report(output)


@app.command()
def compound(
    output: Output,
    source: Annotated[str, typer.Option(help="A dataset of questions with one target: a folder, or on the Hub.")],
    templates: Annotated[
        Path | None, typer.Option(help="YAML file of the forms that join parts. The packaged one when not given.")
    ] = None,
    num_train: Annotated[int, typer.Option(min=0, help="Questions to draw; 0 leaves the split out.")] = 20_000,
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
    """The corpus, and what searches it: BM25, and each store with its own encoder."""
    from amer.corpus import open_documents
    from amer.machine import chosen_device

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
