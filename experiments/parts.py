"""Questions of several parts: compares AMER with a single query vector and other ways to search, in one run.

`python -m experiments.parts --dataset DIR --store DIR --amer DIR ... --one DIR ... --output OUT`. Several folders of
one system are trainings with several seeds. The script writes `results.json`, `report.md` and `recall.png` to OUT. The
dataset may also be a JSONL file of questions: `{"query": TEXT, "targets": [[ID], ...], "spans": [[START, END], ...]}`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from amer.baselines.chat import Chat, EndpointChat, LocalChat
from amer.baselines.splitting import RULE, TOLD
from amer.corpus import DocumentStore
from amer.data import RetrievalDataset, load_split
from amer.evaluation import low_similarity_third, target_similarity
from amer.evaluation.provenance import machine_of
from amer.files import atomic_write, read_json, write_json
from amer.hub import public_name
from amer.machine import chosen_device
from amer.offline import resolve_model
from amer.search import ExactIndex
from amer.text_lines import read_objects
from experiments.analysis.parts_numbers import Measured, parts_numbers, splitting_numbers
from experiments.analysis.parts_tables import (
    difference_table,
    draw_parts,
    group_table,
    main_table,
    one_part_table,
    splitting_table,
)
from experiments.parts_systems import (
    AMER,
    AVERAGED,
    DEEPER,
    ENCODER,
    FIXED,
    LLM,
    MMR,
    ONE,
    ORACLE,
    PERTURBED,
    Bench,
    chat_system,
    encoder_systems,
    trained_systems,
)
from modeling_amer import QuestionEncoder

FIRST = (ENCODER, RULE, LLM, ONE, DEEPER, PERTURBED, MMR, AMER, FIXED, AVERAGED)  # rows of the table, in order
LAST = (TOLD, ORACLE)
REFERENCES = (ONE, RULE, TOLD)
LLM_TOKENS = 128  # limit for a reply; the parts of a question have fewer


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse `arguments`, or the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="dataset directory, or a JSONL file of questions")
    parser.add_argument("--store", type=Path, required=True, help="folder of the document store")
    parser.add_argument("--amer", nargs="+", required=True, metavar="DIR", help="folders of AMER, one per seed")
    parser.add_argument(
        "--one", nargs="+", required=True, metavar="DIR", help="folders of the single-vector model, one per seed"
    )
    parser.add_argument(
        "--row",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=DIR",
        help="another model; repeat NAME for more seeds",
    )
    parser.add_argument("--split", default="test", choices=["validation", "test"], help="split of a dataset directory")
    parser.add_argument("--output", type=Path, required=True, help="folder for results, tables and plot")
    parser.add_argument("--llm", metavar="NAME", help="chat model that splits the questions")
    parser.add_argument("--llm_endpoint", metavar="URL", help="endpoint of the chat model; default: run it locally")
    return parser.parse_args(arguments)


def read_rows(given: list[str]) -> dict[str, list[str]]:
    """Parse `NAME=DIR` arguments to name -> folders, one folder per seed.

    Raises:
        ValueError: An argument is not of that form, or its name is taken by a standard row.
    """
    rows: dict[str, list[str]] = {}
    for text in given:
        name, _, folder = text.partition("=")
        if not name or not folder or name in (*FIRST, *LAST):
            raise ValueError(
                f"--row takes NAME=DIR with a name that is not {', '.join((*FIRST, *LAST))}, got {text!r}"
            )
        rows.setdefault(name, []).append(folder)
    return rows


def load_questions(dataset: Path, split: str) -> RetrievalDataset:
    """Load a split of a dataset directory, or all questions of a JSONL file.

    Raises:
        ValueError: The questions have no texts, or the file is malformed.
    """
    if dataset.is_dir():
        questions = load_split(dataset, split)
        if questions.queries is None:
            raise ValueError(f"the questions of {dataset} are vectors: give a dataset with texts")
        return questions
    records = list(read_objects(dataset))
    for place, record in records:
        if set(record) != {"query", "targets", "spans"}:
            raise ValueError(f"{place} has {', '.join(sorted(record))}: it must have query, targets and spans")
    queries, targets, spans = ([record[key] for _, record in records] for key in ("query", "targets", "spans"))
    ids = [f"{dataset.stem}-{place.number}" for place, _ in records]
    return RetrievalDataset(ids, targets, [[] for _ in ids], queries, spans=spans)


def question_groups(test: RetrievalDataset, store: DocumentStore) -> dict[str, np.ndarray]:
    """Groups of questions by number of parts, and the third with the least similar targets: name -> `(q,)` bool."""
    counts = np.array([len(targets) for targets in test.targets])
    groups = {f"{n} part{'s' if n > 1 else ''}": counts == n for n in np.unique(counts).tolist()}
    return {**groups, "least similar third": low_similarity_third(target_similarity(test.linked_rows, store))}


def chat_of(arguments: argparse.Namespace) -> Chat | None:
    """The requested chat model, or None."""
    if arguments.llm is None:
        return None
    if arguments.llm_endpoint:
        return EndpointChat(arguments.llm_endpoint, arguments.llm, max_new_tokens=LLM_TOKENS)
    return LocalChat(resolve_model(arguments.llm), arguments.llm, max_new_tokens=LLM_TOKENS)


def measure(
    arguments: argparse.Namespace, bench: Bench
) -> tuple[dict[str, list[Measured]], dict[str, dict[str, float]]]:
    """Measure all systems, in the order of the table, and the times of single questions."""
    others = read_rows(arguments.row)
    trained, alone = trained_systems(bench, arguments.amer, arguments.one, others)
    measured = {**encoder_systems(bench), **trained}
    chat = chat_of(arguments)
    if chat is not None:
        split, alone[LLM] = chat_system(bench, chat, arguments.output / "replies.jsonl")
        measured[LLM] = [split]
    return {name: measured[name] for name in (*FIRST, *others, *LAST) if name in measured}, alone


def describe(arguments: argparse.Namespace, store: DocumentStore, count: int) -> dict[str, Any]:
    """Describe the data, models and machine of the results."""
    info = read_json(arguments.dataset / "dataset.json") if arguments.dataset.is_dir() else {}
    models = {AMER: arguments.amer, ONE: arguments.one, **read_rows(arguments.row)}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "dataset": info.get("source", arguments.dataset.name),
        "split": arguments.split if info else "all",
        "questions": count,
        "corpus": f"{len(store):,} documents",
        "document encoder": store.encoder["name"],
        **{name: ", ".join(public_name(folder) for folder in folders) for name, folders in models.items()},
        **({"chat model": arguments.llm} if arguments.llm else {}),
        **machine_of(chosen_device()),
    }


def report(results: Mapping[str, Any]) -> str:
    """Format the results as Markdown."""
    numbers, groups = results["systems"], results["groups"]
    apart = [name for name in (DEEPER, *LAST) if name in numbers]
    tables = {
        "Systems": main_table(numbers, ONE, apart),
        **{f"Against {name}": difference_table(numbers, name) for name in REFERENCES if name in numbers},
        "By the number of parts": group_table(numbers, groups, ONE, apart),
        **({"Questions of one part": one_part_table(numbers, "1 part", ONE)} if "1 part" in groups else {}),
        "Parts": splitting_table(results["splitting"]),
    }
    facts = "\n".join(f"- {name}: {value}" for name, value in results["metadata"].items())
    sections = [f"## {title}\n\n{table.to_markdown()}" for title, table in tables.items()]
    return "\n\n".join(["# Questions of several parts", facts, "![R@10 and MRecall@10](recall.png)", *sections])


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the results, the report and the plot."""
    parsed, console, started = parse_arguments(arguments), Console(), time.perf_counter()
    read_rows(parsed.row)  # reports errors before the measurements
    store, device = DocumentStore.open(parsed.store), chosen_device()
    test = load_questions(parsed.dataset, parsed.split).link(store)
    encoder = QuestionEncoder.from_identity(store.encoder, resolve_model(store.encoder["name"])).to(device)
    bench = Bench(test, ExactIndex(store, device), encoder, console)
    systems, alone = measure(parsed, bench)
    groups = question_groups(test, store)
    numbers = parts_numbers(systems, groups, REFERENCES)
    results = {
        "metadata": describe(parsed, store, len(test)),
        "groups": {name: int(chosen.sum()) for name, chosen in groups.items()},
        "systems": {name: {**system, "alone": alone.get(name)} for name, system in numbers.items()},
        "splitting": splitting_numbers(systems, bench.counts, bench.true_parts),
    }
    parsed.output.mkdir(parents=True, exist_ok=True)
    write_json(parsed.output / "results.json", results)
    draw_parts(results["systems"], parsed.output / "recall.png")
    with atomic_write(parsed.output / "report.md") as temporary:
        temporary.write_text(report(results), encoding="utf-8")
    console.print(f"Everything is in {parsed.output}; this took {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
