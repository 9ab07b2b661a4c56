"""A Space for the metric: takes ranked lists and targets, and shows Recall@k and MRecall@k.

It does not use `evaluate.utils.launch_gradio_widget`, which leaves `k` at 100, more than any list on the page holds,
and calls parts of gradio that version 4 removed.
"""

import json
from pathlib import Path

import evaluate
import gradio as gr

from tests import test_cases  # type: ignore[attr-defined]  # the Space's tests.py, beside this file

FOLDER = Path(__file__).parent
metric = evaluate.load(str(FOLDER / "mrecall.py"))


def compute(predictions: str, references: str, k: float) -> dict[str, float]:
    """Compute both metrics for lists written as JSON."""
    try:
        return metric.compute(predictions=json.loads(predictions), references=json.loads(references), k=int(k))
    except (ValueError, TypeError) as error:  # invalid JSON, lists of another shape, or a wrong k
        raise gr.Error(str(error)) from error


page = gr.Interface(
    fn=compute,
    inputs=[
        gr.Textbox(label="predictions: for each query, the ids of the retrieved documents, best first", lines=4),
        gr.Textbox(label="references: for each query, its targets, each a list of ids of documents", lines=4),
        gr.Number(label="k", value=10, precision=0),
    ],
    outputs=gr.JSON(label="metrics"),
    examples=[[json.dumps(case["predictions"]), json.dumps(case["references"]), case["k"]] for case in test_cases],
    title="MRecall@k",
    description=metric.description,
    article=(FOLDER / "README.md").read_text(encoding="utf-8").split("---", 2)[-1],
)

if __name__ == "__main__":
    page.launch()
