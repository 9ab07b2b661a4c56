"""Build a dataset or a corpus: `python scripts/build_dataset.py NAME --output DIR`; `NAME --help` says what it needs.

AmbigQA, QAMPARI and your own questions are mapped to a corpus, which `wikipedia` builds. What was killed is gone on
with by the same command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from rich.console import Console

from amer.baselines.bm25 import BM25
from amer.baselines.dense import DenseRetriever
from amer.corpus import DocumentEncoder, DocumentStore, open_documents
from amer.corpus.table import fingerprint
from amer.data import build_ambigqa, build_custom, build_qampari, build_synthetic, build_wikipedia, build_wordnet
from amer.data.ambigqa import HUB
from amer.data.synthetic import SETTINGS, TRANSFORMATIONS
from amer.files import read_json
from amer.search import ExactIndex

REPORTED = ("splits", "stages", "drops", "paper", "documents", "words_per_document")
REPORTS = ("dataset/dataset.json", "documents/documents.json")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (_add_wordnet, _add_synthetic, _add_wikipedia, _add_ambigqa, _add_qampari, _add_own):
        command = add(commands)
        output = {"dest": "path", "metavar": "DIR", "default": argparse.SUPPRESS}
        command.add_argument("--output", required=True, **output, help="a new directory, or of a killed build")
    return parser.parse_args(arguments)


def _add_wordnet(commands: Any) -> argparse.ArgumentParser:
    wordnet = commands.add_parser("wordnet", help="lemmas and the glosses of their senses")
    wordnet.add_argument("--source", help="a WordNet `dict` folder; the packaged extract of WordNet 3.0 when left out")
    wordnet.add_argument("--num_train", type=int, help="random choice of so many queries; all when left out")
    wordnet.add_argument("--num_validation", type=int, help="see --num_train")
    wordnet.add_argument("--num_test", type=int, help="see --num_train")
    wordnet.add_argument("--corpus_size", type=int, help="documents in the corpus; every gloss when left out")
    return _with_seed(wordnet, build_wordnet)


def _add_synthetic(commands: Any) -> argparse.ArgumentParser:
    synthetic = _add(commands, "synthetic", "the paper's synthetic study")
    synthetic.add_argument("--transformation", choices=list(TRANSFORMATIONS), default="linear", help="of the targets")
    synthetic.add_argument("--setting", choices=list(SETTINGS), default="single", help="input distributions")
    synthetic.add_argument("--dim", type=int, default=1024, help="size of the vectors")
    synthetic.add_argument("--num_train", type=int, default=20_000, help="queries, a tenth of them for validation")
    synthetic.add_argument("--num_test", type=int, default=1_000, help="test queries")
    synthetic.add_argument("--corpus_size", type=int, default=200_000, help="targets and random vectors together")
    return _with_seed(synthetic, build_synthetic)


def _add_wikipedia(commands: Any) -> argparse.ArgumentParser:
    wikipedia = _add(commands, "wikipedia", "the corpus of AmbigQA and QAMPARI")
    wikipedia.add_argument("--chunks", required=True, help="folder of QAMPARI's unpacked chunked_wikipedia, *.jsonl")
    wikipedia.set_defaults(build=build_wikipedia)
    return wikipedia


def _add_ambigqa(commands: Any) -> argparse.ArgumentParser:
    ambigqa = _add(commands, "ambigqa", "AmbigQA and the multi-answer questions of NQ-Open")
    ambigqa.add_argument("--source", default=HUB, help="on the Hub, or a folder of the published files")
    ambigqa.add_argument("--nq_open", nargs="*", default=[], help="NQ-Open's development and test files")
    ambigqa.add_argument("--test_fraction", type=float, default=0.5, help="of the mapped development questions")
    _add_searches(ambigqa, required=True)
    _add_stores(ambigqa)
    return _with_seed(ambigqa, build_ambigqa)


def _add_qampari(commands: Any) -> argparse.ArgumentParser:
    qampari = _add(commands, "qampari", "QAMPARI's questions with five to eight answers")
    qampari.add_argument("--source", required=True, help="folder of train_data.jsonl and dev_data.jsonl")
    _add_searches(qampari, required=True)
    return _with_seed(qampari, build_qampari)


def _add_own(commands: Any) -> argparse.ArgumentParser:
    own = _add(commands, "own", "your questions, with documents or answers")
    own.add_argument("--source", required=True, help="a file, a folder of splits, or a data set; see amer.data.custom")
    own.add_argument("--test_fraction", type=float, default=0.1, help="of a source without splits")
    own.add_argument("--validation_fraction", type=float, default=0.1, help="of what the test set leaves")
    _add_searches(own, required=False)
    _add_stores(own)
    return _with_seed(own, build_custom)


def _add(commands: Any, name: str, explanation: str) -> argparse.ArgumentParser:
    defaults = argparse.ArgumentDefaultsHelpFormatter
    return commands.add_parser(name, help=explanation, description=explanation, formatter_class=defaults)


def _add_searches(command: argparse.ArgumentParser, required: bool) -> None:
    command.add_argument("--documents", required=required, help="the corpus: folder of Arrow parts, or .parquet file")
    command.add_argument("--bm25", required=required, help="folder of its BM25 index, which is built when missing")
    command.add_argument("--depth", type=int, default=500, help="candidates of each search")


def _add_stores(command: argparse.ArgumentParser) -> None:
    command.add_argument("--stores", nargs="*", default=[], help="document stores of the corpus, to be searched too")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command.add_argument("--device", default=device, help="where the stores' encoders and searches run")
    command.add_argument("--trust_remote_code", action="store_true", help="run the code that the encoders bring along")


def _with_seed(command: argparse.ArgumentParser, build: Any) -> argparse.ArgumentParser:
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    command.set_defaults(build=build)
    return command


def open_bm25(path: str, documents: pa.Table) -> BM25:
    """The corpus's BM25 index; built if there is none."""
    if Path(path).exists():
        return BM25.open(path, documents)
    return BM25.build(documents, path, show_progress_bar=True)


def open_dense(path: str, documents: pa.Table, device: str, trust_remote_code: bool = False) -> DenseRetriever:
    """A document store, searched with its own encoder.

    Raises:
        ValueError: it is not a store of these documents, in this order.
    """
    store = DocumentStore.open(path)
    if store.info.get("documents_sha256") != fingerprint(documents):
        raise ValueError(f"{path} is a store of another corpus: encode the one of --documents, in its order")
    encoder = DocumentEncoder.from_identity(store.encoder, device, trust_remote_code)
    return DenseRetriever(encoder, ExactIndex(store, device))


def with_corpus(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a builder, with the opened corpus and searches in the place of their paths."""
    path, bm25 = arguments.pop("documents"), arguments.pop("bm25")
    stores, device = arguments.pop("stores", []), arguments.pop("device", "cpu")
    trust_remote_code = arguments.pop("trust_remote_code", False)
    if path is None:
        if bm25 or stores:
            raise ValueError("--bm25 and --stores search a corpus: give --documents too")
        return arguments
    documents = open_documents(path)
    searches = [open_bm25(bm25, documents)] if bm25 else []
    searches += [open_dense(store, documents, device, trust_remote_code) for store in stores]
    return {**arguments, "documents": documents, "searches": searches}


def main(arguments: Sequence[str] | None = None) -> None:
    """Build what the command line asks for, and say what came out."""
    given = vars(parse_args(arguments))
    del given["command"]
    build = given.pop("build")
    build(**with_corpus(given) if "documents" in given else given)
    for report in (Path(given["path"]) / name for name in REPORTS):
        if report.is_file():
            info = read_json(report)
            Console().print(str(report), markup=False)
            Console().print_json(data={key: info[key] for key in REPORTED if key in info})


if __name__ == "__main__":
    main()
