"""Add keywords of a chat model to a dataset's questions (paper A.7); run it again after an interruption to resume."""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from amer.baselines.chat import KEY_VARIABLE, Chat, EndpointChat, LocalChat
from amer.baselines.expansion import Expanded, expand
from amer.data import RetrievalDataset, load_dataset_dir
from amer.files import atomic_write
from amer.hub import pull_folder
from amer.offline import resolve_model

EXPANDED_FILE = "expanded.parquet"
REPLIES_FILE = "replies.jsonl"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="a dataset: a folder or a name on the Hub")
    parser.add_argument("--split", default="test", help="split of the dataset (default: test)")
    parser.add_argument("--output", type=Path, required=True, help=f"folder for {EXPANDED_FILE} and {REPLIES_FILE}")
    parser.add_argument(
        "--model", required=True, help="the chat model: a folder, a name on the Hub, or its name at the endpoint"
    )
    parser.add_argument(
        "--endpoint", help=f"URL of an OpenAI-compatible endpoint, its key in ${KEY_VARIABLE} (default: run it here)"
    )
    parser.add_argument("--max_new_tokens", type=int, default=256, help="where a reply is cut off (default: 256)")
    return parser.parse_args(arguments)


def read_split(path: Path, name: str) -> RetrievalDataset:
    """One split of a dataset whose questions are texts."""
    splits = load_dataset_dir(path)
    if name not in splits:
        raise SystemExit(f"{path} has no split {name!r}: choose from {', '.join(splits)}")
    if splits[name].queries is None:
        raise SystemExit(f"the questions of {path} are vectors: keywords can be written for text only")
    return splits[name]


def load_chat(model: str, endpoint: str | None, max_new_tokens: int) -> Chat:
    """The chat model, here or behind an endpoint."""
    if endpoint is not None:
        return EndpointChat(endpoint, model, max_new_tokens=max_new_tokens)
    return LocalChat(resolve_model(model), model, max_new_tokens)


def write_expanded(path: Path, query_ids: list[str], expanded: Expanded) -> None:
    """A row a question, in the order of the split."""
    prose = {number for number, _ in expanded.prose}
    columns = {
        "query_id": query_ids,
        "query": expanded.queries,
        "keywords": pa.array(expanded.keywords, pa.list_(pa.string())),
        "reply": expanded.replies,
        "prose": [number in prose for number in range(len(query_ids))],
    }
    with atomic_write(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def main(arguments: list[str] | None = None) -> None:
    """Ask, parse, write."""
    given = parse_arguments(arguments)
    split = read_split(pull_folder(given.dataset), given.split)
    chat = load_chat(given.model, given.endpoint, given.max_new_tokens)
    expanded = expand(split.queries, chat, given.output / REPLIES_FILE)
    write_expanded(given.output / EXPANDED_FILE, split.query_ids, expanded)
    Console().print(
        f"{given.output / EXPANDED_FILE}: {len(split):,} questions, {len(expanded.prose):,} of them as they were, "
        "since the model answered in prose or not at all",
        markup=False,
    )


if __name__ == "__main__":
    main()
