"""`amer expand`: append a chat model's keywords to the questions of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amer.commands.options import Dataset, Split

if TYPE_CHECKING:
    from amer.baselines.chat import Chat
    from amer.baselines.expansion import Expanded

EXPANDED_FILE = "expanded.parquet"
REPLIES_FILE = "replies.jsonl"


def expand(
    dataset: Dataset,
    output: Annotated[Path, typer.Option(metavar="DIR", help=f"Folder for {EXPANDED_FILE} and {REPLIES_FILE}.")],
    model: Annotated[
        str, typer.Option(help="The chat model: a folder, a name on the Hub, or its name at the endpoint.")
    ],
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="URL of an OpenAI-compatible endpoint; its key is read from $OPENAI_API_KEY. "
            "Default: run the model on this machine."
        ),
    ] = None,
    split: Split = "test",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens in a reply.")] = 256,
) -> None:
    """Add a chat model's keywords to a dataset's questions.

    This is the query expansion of the paper's appendix A.7. Run it again after an interruption to resume.
    """
    from rich.console import Console

    from amer.baselines.expansion import expand as expand_queries
    from amer.data import load_split
    from amer.hub import pull_folder

    questions = load_split(pull_folder(dataset), split)
    if questions.queries is None:
        raise ValueError(f"the questions of {dataset} are vectors, but keywords need text: give questions in text")
    expanded = expand_queries(questions.queries, load_chat(model, endpoint, max_new_tokens), output / REPLIES_FILE)
    write_expanded(output / EXPANDED_FILE, questions.query_ids, expanded)
    Console().print(
        f"{output / EXPANDED_FILE}: {len(questions):,} questions, {len(expanded.prose):,} of them unchanged, "
        "because the model answered in prose or not at all",
        markup=False,
    )


def load_chat(model: str, endpoint: str | None, max_new_tokens: int) -> Chat:
    """The chat model, on this machine or behind an endpoint."""
    from amer.baselines.chat import EndpointChat, LocalChat
    from amer.offline import resolve_model

    if endpoint is not None:
        return EndpointChat(endpoint, model, max_new_tokens=max_new_tokens)
    return LocalChat(resolve_model(model), model, max_new_tokens)


def write_expanded(path: Path, query_ids: list[str], expanded: Expanded) -> None:
    """Write one row per question, in the order of the split."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from amer.files import atomic_write

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
