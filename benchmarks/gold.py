"""Search for answers in passages: AMER's, DPR's loop over tokens, and the whole gold mapping without its searches.

The loop is faster than DPR's code in two ways: it tokenizes a passage once for all answers, and an alias once for all
passages. Passages consist of random words. A mark follows one word in six; with accents, one word in sixteen is not
ASCII.
"""

from __future__ import annotations

import argparse
import tempfile
import unicodedata
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import regex
from common import Row, median_seconds, run

from amer.data.answer_matching import AnswerMatcher
from amer.data.gold import Question, map_gold

TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]", regex.IGNORECASE | regex.MULTILINE)
SYLLABLES = "ba con de el fin gra hi jus ka lo mar ne or per qui ros sta ter un vel wi xen yo zan".split()
ENDINGS = [*[""] * 20, ",", ".", "'s", ")"]
ACCENTED = ["José", "1997\u20132003", "Kraków", "naïve"]


OPTIONS = {
    "questions": (5, "questions, each with its own candidates"),
    "passages": (1000, "candidates of each question"),
    "words": (100, "words of a passage"),
    "answers": (5, "answers of a question"),
    "aliases": (2, "aliases of an answer"),
}


class Drawn:
    """A search without cost: the candidates of each question are the next k rows."""

    name = "drawn"

    def search(self, texts: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows `(n, k)`, and zeros as scores."""
        rows = np.arange(len(texts) * k).reshape(len(texts), k)
        return rows, np.zeros(rows.shape, dtype=np.float32)


def make_passages(accents: bool, arguments: argparse.Namespace) -> list[str]:
    """Make the candidates of all questions."""
    generator = np.random.default_rng(arguments.seed)
    shape = (arguments.questions * arguments.passages, arguments.words)
    words = np.array(["".join(generator.choice(SYLLABLES, generator.integers(1, 4))) for _ in range(20_000)])
    if accents:
        words[::16] = np.resize(ACCENTED, len(words[::16]))
    drawn = words[generator.integers(0, len(words), shape)]
    drawn = np.where(generator.random(shape) < 0.15, np.char.capitalize(drawn), drawn)
    return [" ".join(row) for row in np.char.add(drawn, generator.choice(ENDINGS, shape))]


def make_answers(passages: list[str], arguments: argparse.Namespace) -> list[list[list[str]]]:
    """Make the answers of each question: aliases of one to three words, copied from its own passages."""
    generator, answers = np.random.default_rng(arguments.seed), []
    for first in range(0, len(passages), arguments.passages):
        rows = generator.integers(first, first + arguments.passages, (arguments.answers, arguments.aliases)).tolist()
        length = int(generator.integers(1, 4))
        answers.append([[" ".join(passages[row].split()[5 : 5 + length]) for row in target] for target in rows])
    return answers


def tokens(text: str) -> list[str]:
    """Tokenize like DPR's SimpleTokenizer, uncased."""
    return [match.group().lower() for match in TOKEN.finditer(unicodedata.normalize("NFD", text))]


def token_loop(answers: list[list[str]], texts: list[str]) -> np.ndarray:
    """DPR's `has_answer` for every text and target, `(texts, targets)`."""
    targets = [[tokens(alias) for alias in aliases] for aliases in answers]
    passages = map(tokens, texts)
    return np.array([[any(_holds(words, alias) for alias in aliases) for aliases in targets] for words in passages])


def _holds(words: list[str], alias: list[str]) -> bool:
    return any(words[start : start + len(alias)] == alias for start in range(len(words) - len(alias) + 1))


def map_afresh(answers: list[list[list[str]]], documents: pa.Table, arguments: argparse.Namespace) -> None:
    """Run a gold mapping into a new folder, with a search without cost."""
    questions = [Question(str(number), "x", targets, ["x"]) for number, targets in enumerate(answers)]
    with tempfile.TemporaryDirectory() as folder:
        map_gold(questions, [Drawn()], documents, folder, arguments.passages, show_progress_bar=False)


def compare(accents: bool, arguments: argparse.Namespace) -> list[Row]:
    """The rows of the loop and of AMER, on the same passages."""
    passages = make_passages(accents, arguments)
    answers = make_answers(passages, arguments)
    lists = [passages[first : first + arguments.passages] for first in range(0, len(passages), arguments.passages)]
    documents = pa.table({"id": list(map(str, range(len(passages)))), "title": [""] * len(passages), "text": passages})
    systems = {
        "DPR's loop": lambda: [token_loop(*pair) for pair in zip(answers, lists, strict=True)],
        "AnswerMatcher": lambda: [AnswerMatcher(own).covers(texts) for own, texts in zip(answers, lists, strict=True)],
        "map_gold": lambda: map_afresh(answers, documents, arguments),
    }
    seconds = {name: median_seconds(system, arguments.repeats) for name, system in systems.items()}
    loop, ours = systems["DPR's loop"](), systems["AnswerMatcher"]()
    same = {"AnswerMatcher": float(np.mean(np.equal(loop, ours))), "DPR's loop": 1.0}
    return [
        {
            "passages": "accents" if accents else "ASCII",
            "system": name,
            "us a passage": 1e6 * taken / len(passages),
            "million a minute": 60 * len(passages) / taken / 1e6,
            "ratio": seconds["DPR's loop"] / taken,
            "pairs like the loop's": same.get(name),
            "share of pairs that match": float(np.mean(ours)),
        }
        for name, taken in seconds.items()
    ]


def measure(arguments: argparse.Namespace) -> list[Row]:
    """Measure passages without and with accents."""
    return compare(False, arguments) + compare(True, arguments)


if __name__ == "__main__":
    run(__file__, __doc__, OPTIONS, measure)
