"""FAISS in a folder: what it finds, what it resumes, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from amer.checksums import file_checksum
from amer.corpus.store import DocumentStore, write_store
from amer.search.index import ExactIndex, FaissIndex, exact
from amer.search.index.faiss import building as faiss_building
from amer.search.index.faiss import index as faiss_index

faiss = pytest.importorskip("faiss")
COUNT, DIM, K = 4_000, 16, 10
ROOT = Path(__file__).resolve().parents[4]
PRESETS = ["flat", "ivfpq", "hnsw"]
OTHERS = ["IVF16,SQ8", "PCA8,IVF16,Flat", "PQ8x4fs", "SQfp16", "IVF16_HNSW8,PQ4x4fs"]


def write_corpus(path: Path, count: int = COUNT, seed: int = 0) -> DocumentStore:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((40, DIM))
    vectors = centres[generator.integers(0, 40, count)] + 0.6 * generator.standard_normal((count, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [str(row) for row in range(count)]
    years = np.arange(count) % 1000
    documents = pa.table({"id": names, "title": names, "text": names, "year": years})
    return write_store(path, documents, vectors, {"name": "toy"}, shard_size=900)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> DocumentStore:
    return write_corpus(tmp_path_factory.mktemp("faiss") / "store")


def build(store: DocumentStore, path: Path, index: str, **more) -> FaissIndex:
    return FaissIndex.build(store, path, index, **{"k": K, "show_progress_bar": False, **more})


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory):
    """Folders of indexes, each built once."""
    built: dict[str, Path] = {}

    def folder(index: str) -> Path:
        if index not in built:
            built[index] = tmp_path_factory.mktemp("indexes") / "index"
            build(store, built[index], index, recall=0.9)
        return built[index]

    return folder


def questions(store: DocumentStore, q: int = 40, m: int = 3, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    vectors = store.vectors(generator.integers(0, len(store), (q, m))) + 0.1 * generator.standard_normal((q, m, DIM))
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def overlap(found: np.ndarray, expected: np.ndarray) -> float:
    pairs = zip(found.reshape(-1, found.shape[-1]), expected.reshape(-1, expected.shape[-1]), strict=True)
    return float(np.mean([len(set(one) & set(other)) / len(other) for one, other in pairs]))


def test_flat_finds_what_exact_search_finds(store, folder):
    rows, scores = FaissIndex.open(store, folder("flat")).search(questions(store), K)
    expected_rows, expected_scores = ExactIndex(store).search(questions(store), K)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


@pytest.mark.parametrize("index", [*PRESETS, *OTHERS])
def test_the_recall_recorded_is_the_recall_there_is(store, folder, index):
    opened = FaissIndex.open(store, folder(index))
    opened.info["k"] = K + 1  # as many were listed when it was measured, for a document may find itself
    assert opened.recall >= 0.9
    own = faiss_building.sample_rows(store, 500, seed=0)
    similarity = store.vectors(own) @ store.vectors(range(COUNT)).T
    similarity[np.arange(500), own] = -np.inf
    expected = np.argsort(-similarity, axis=1)[:, :K]
    rows, _ = opened.search(store.vectors(own)[:, None], K + 1)
    found = [[row for row in one if row != itself][:K] for one, itself in zip(rows[:, 0], own, strict=True)]
    assert overlap(np.array(found), expected) == pytest.approx(opened.recall, abs=0.003)


@pytest.mark.parametrize("index", [*PRESETS, "PQ8x4fs", "IVF16,SQ8"])
def test_scores_are_inner_products_best_first(store, folder, index):
    rows, scores = FaissIndex.open(store, folder(index)).search(questions(store), K)
    exact = np.einsum("qmd,qmkd->qmk", questions(store), store.vectors(rows))
    np.testing.assert_allclose(scores, exact, atol=1e-5)
    assert (np.diff(scores, axis=-1) <= 0).all()
    assert all(len(set(one)) == K for one in rows.reshape(-1, K).tolist())


@pytest.mark.parametrize("index", [*PRESETS, *OTHERS])
@pytest.mark.parametrize("few", [0, faiss_index.FEW], ids=["by the index", "few exactly"])
@pytest.mark.parametrize("filter", ["year >= 100", "year < 300", "year == 7", "year > 1000"])
def test_a_filter_leaves_k_of_those_allowed(store, folder, monkeypatch, index, few, filter):
    monkeypatch.setattr(faiss_index, "FEW", few)
    allowed = store.matching(filter)
    rows, scores = FaissIndex.open(store, folder(index)).search(questions(store), K, filter)
    listed = min(K, int(allowed.sum()))
    assert allowed[rows[..., :listed]].all()
    assert (rows[..., :listed] >= 0).all()
    assert (rows[..., listed:] == -1).all()
    assert np.isneginf(scores[..., listed:]).all()
    expected, _ = ExactIndex(store).search(questions(store), K, filter)
    if listed:
        assert overlap(rows[..., :listed], expected[..., :listed]) >= (1 if few or listed < K else 0.85)


@pytest.mark.parametrize("index", [*PRESETS, "IVF16,SQ8"])
@pytest.mark.parametrize("filter", [None, "year >= 100"])
def test_lists_are_never_shorter_than_they_need_be(store, folder, monkeypatch, index, filter):
    monkeypatch.setattr(faiss_index, "FEW", 0)
    wanted = COUNT // 2
    rows, scores = FaissIndex.open(store, folder(index)).search(questions(store, 2), wanted, filter)
    assert (rows >= 0).all()
    assert all(len(set(one)) == wanted for one in rows.reshape(-1, wanted).tolist())
    assert (np.diff(scores, axis=-1) <= 0).all()


@pytest.fixture
def searched_exactly(monkeypatch) -> list[int]:
    """How many queries each exact search was for."""
    counts: list[int] = []

    def counted(store, queries, k, allowed):
        counts.append(len(queries))
        return exact.nearest_allowed(store, queries, k, allowed)

    monkeypatch.setattr(faiss_index, "nearest_allowed", counted)
    return counts


def test_the_index_is_tuned_to_list_itself_what_is_recorded(store, tmp_path, searched_exactly):
    index = build(store, tmp_path / "index", "IVF64,Flat", k=100)  # more than a list of the index holds
    assert index.recall >= 0.95
    assert searched_exactly == []
    rows, _ = index.search(questions(store), 100)
    assert overlap(rows, ExactIndex(store).search(questions(store), 100)[0]) >= 0.9
    assert sum(searched_exactly) < 0.1 * rows.shape[0] * rows.shape[1]


@pytest.mark.parametrize("index", ["IVF64,Flat", "PCA8,IVF64,Flat"])
def test_longer_lists_than_tuned_for_are_searched_wider_not_exactly(store, folder, searched_exactly, index):
    longer = FaissIndex.open(store, folder(index)).search(questions(store), 20 * K)[0]
    assert sum(searched_exactly) < 0.1 * longer.shape[0] * longer.shape[1]
    assert overlap(longer, ExactIndex(store).search(questions(store), 20 * K)[0]) >= 0.9


@pytest.mark.parametrize("filter", [None, "year >= 20"])
def test_a_list_that_comes_short_is_searched_wider_before_exactly(
    store, folder, searched_exactly, monkeypatch, filter
):
    monkeypatch.setattr(faiss_index, "FEW", 0)
    index = FaissIndex.open(store, folder("IVF64,Flat"))
    monkeypatch.setattr(index, "setting", index.setting._replace(width=1))
    monkeypatch.setitem(index.info, "k", 10 * K)
    rows = index.search(questions(store), 10 * K, filter)[0]
    assert (rows >= 0).all()
    assert sum(searched_exactly) < 0.1 * rows.shape[0] * rows.shape[1]


def test_more_than_there_is_gets_padded(store, folder):
    for index in PRESETS:
        rows, scores = FaissIndex.open(store, folder(index)).search(questions(store, 1), COUNT + 5)
        assert (np.sort(rows[..., :COUNT]) == np.arange(COUNT)).all()
        assert (rows[..., COUNT:] == -1).all()
        assert np.isneginf(scores[..., COUNT:]).all()


def test_calls_are_cut_without_changing_what_is_found(store, folder, monkeypatch):
    index = FaissIndex.open(store, folder("ivfpq"))
    expected = index.search(questions(store), K)
    monkeypatch.setattr(faiss_index, "MOST_LISTED", 100)
    monkeypatch.setattr("amer.search.index.faiss.rescoring.MOST_GATHERED", 50)
    np.testing.assert_array_equal(index.search(questions(store), K)[0], expected[0])


def test_a_second_build_with_another_recall_only_tunes(store, tmp_path, monkeypatch):
    first = build(store, tmp_path / "index", "ivfpq", recall=0.7)
    before = (tmp_path / "index" / "index.faiss").stat()
    monkeypatch.delattr(faiss_building, "make_index")
    second = build(store, tmp_path / "index", "ivfpq", recall=0.99)
    assert (tmp_path / "index" / "index.faiss").stat() == before
    assert 0.7 <= first.recall < 0.99 <= second.recall
    assert (first.setting.width, first.setting.candidates) < (second.setting.width, second.setting.candidates)


def test_the_same_build_gives_the_same_bytes(store, tmp_path):
    for name in ("one", "two"):
        build(store, tmp_path / name, "ivfpq")
    for file in ("index.faiss", "index.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_preset_stays_what_it_was_when_the_memory_changes(store, tmp_path):
    build(store, tmp_path / "index", "auto", memory=COUNT * DIM * 2)
    again = build(store, tmp_path / "index", "auto", memory=2**30)
    assert again.info["factory"] == "IVF16,PQ8x4fs"


def test_a_recall_out_of_reach_keeps_what_was_built(store, tmp_path):
    with pytest.raises(ValueError, match=r"recall 1.0 is out of reach, the index reaches 0\.\d+"):
        build(store, tmp_path / "index", "PQ2x4fs", recall=1.0, k=1)
    assert (tmp_path / "index" / "index.faiss").is_file()
    with pytest.raises(FileNotFoundError, match=r"no index.json.*same arguments to resume"):
        FaissIndex.open(store, tmp_path / "index")
    assert build(store, tmp_path / "index", "PQ2x4fs", recall=0.05, k=1).recall >= 0.05


SCRIPT = """
import os, resource, signal, sys
from amer.corpus import DocumentStore
from amer.search.index import FaissIndex
from amer.search.index.faiss import building as faiss_building, index as faiss_index
store, path, how, *limits = sys.argv[1:]
store = DocumentStore.open(store)
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def two_blocks(*_):
    yield 0, store.vectors(range(1000))
    yield 1000, store.vectors(range(1000, 2000))
    killed()
if how == "killed while filling":
    store.blocks = two_blocks
if how == "killed while tuning":
    faiss_index.exact_truth = killed
for limit in limits or [-1]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), -1))
    try:
        FaissIndex.build(store, path, "ivfpq", k=10, show_progress_bar=False)
    except OSError as error:
        print(error, os.path.exists(path + "/index.faiss"))
"""


def run(store: DocumentStore, path: Path, how: str, *limits: int) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", SCRIPT, str(store.path), str(path), how, *map(str, limits)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.kill
@pytest.mark.parametrize(
    "how, kept", [("killed while filling", "trained.faiss"), ("killed while tuning", "index.faiss")]
)
def test_a_killed_build_goes_on_where_it_stopped(store, tmp_path, monkeypatch, how, kept):
    assert run(store, tmp_path / "index", how).returncode == -signal.SIGKILL
    assert (tmp_path / "index" / kept).is_file()
    with pytest.raises(FileNotFoundError, match="no finished index"):
        FaissIndex.open(store, tmp_path / "index")
    monkeypatch.delattr(faiss_building, "train")
    build(store, tmp_path / "index", "ivfpq")
    assert sorted(file.name for file in (tmp_path / "index").iterdir()) == ["index.faiss", "index.json"]


@pytest.mark.slow
def test_a_full_disk_is_an_error_and_the_build_goes_on_later(store, tmp_path):
    build(store, tmp_path / "whole", "ivfpq")
    expected = (tmp_path / "whole" / "index.faiss").read_bytes()
    done = run(store, tmp_path / "index", "limited", 1_000, len(expected) // 2, len(expected) - 1)
    errors = done.stdout.splitlines()
    assert len(errors) == 3, done.stderr
    assert all("disk full" in error and error.endswith("False") for error in errors)
    build(store, tmp_path / "index", "ivfpq")
    assert (tmp_path / "index" / "index.faiss").read_bytes() == expected


def test_a_trained_index_left_by_an_interrupt_goes(store, copied):
    shutil.copy(copied / "index.faiss", copied / "trained.faiss")
    build(store, copied, "ivfpq")
    assert sorted(file.name for file in copied.iterdir()) == ["index.faiss", "index.json"]


def test_what_another_is_building_is_left_to_it(store, tmp_path, monkeypatch):
    add = faiss_building.add

    def meanwhile(*arguments):
        with pytest.raises(OSError, match="another process is building"):
            build(store, tmp_path / "index", "flat")
        add(*arguments)

    monkeypatch.setattr(faiss_building, "add", meanwhile)
    assert build(store, tmp_path / "index", "flat").recall == 1


def test_another_store_or_a_changed_one_is_refused(store, folder, tmp_path):
    other = write_corpus(tmp_path / "other", seed=5)
    with pytest.raises(ValueError, match="index of another store"):
        FaissIndex.open(other, folder("flat"))
    with pytest.raises(ValueError, match="records other contents"):
        build(other, folder("flat"), "flat")
    with pytest.raises(ValueError, match="records other contents"):
        build(store, folder("flat"), "hnsw")


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder("ivfpq"), tmp_path / "copied"))


def test_a_missing_or_damaged_file_is_refused(store, copied):
    file = copied / "index.faiss"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(OSError, match=f"has {len(whole) - 1} bytes, expected {len(whole)}"):
        FaissIndex.open(store, copied)
    file.write_bytes(b"x" * len(whole))
    with pytest.raises(OSError, match=r"index\.faiss is damaged"):
        FaissIndex.open(store, copied)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"index\.faiss is missing"):
        FaissIndex.open(store, copied)
    (copied / "index.json").write_text("{}")
    with pytest.raises(ValueError, match="store: Field required"):
        FaissIndex.open(store, copied)


def test_an_index_of_other_vectors_is_refused(store, copied):
    file = copied / "index.faiss"
    faiss.write_index(faiss.IndexFlatIP(DIM + 1), str(file))
    info = json.loads((copied / "index.json").read_text())
    changed = {"bytes": file.stat().st_size, "sha256": file_checksum(file)}
    (copied / "index.json").write_text(json.dumps({**info, **changed}))
    with pytest.raises(ValueError, match=f"holds 0 vectors of {DIM + 1} values"):
        FaissIndex.open(store, copied)


def test_opening_maps_the_file_and_holds_nothing(tmp_path):
    store = write_corpus(tmp_path / "store", count=100_000)
    build(store, tmp_path / "index", "flat")

    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    FaissIndex.open(store, tmp_path / "index")
    before = held()
    index = FaissIndex.open(store, tmp_path / "index")
    assert held() - before < index.info["bytes"] / 1024 / 4


@pytest.mark.parametrize(
    "index, more, message",
    [
        ("nonsense", {}, "FAISS cannot build 'nonsense'"),
        ("flat", {"recall": 0}, "recall must be above 0"),
        ("flat", {"recall": 1.1}, "recall must be above 0"),
        ("flat", {"k": 0}, "k at least 1"),
        ("flat", {"memory": 100}, "needs .* GiB"),
        ("ivfpq", {"train_size": 3}, "cannot train the index on 3 documents"),
        ("ivfpq", {"train_size": 0}, "at least 1"),
        ("ivfpq", {"queries": np.ones((3, DIM + 1))}, "query_embeddings must be"),
    ],
)
def test_what_cannot_be_built_is_refused(store, tmp_path, index, more, message):
    with pytest.raises(ValueError, match=message):
        build(store, tmp_path / "index", index, **more)


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="there is a GPU")
def test_a_gpu_that_faiss_does_not_see_is_refused(store, folder):
    with pytest.raises(ValueError, match="faiss-gpu INSTEAD of faiss-cpu"):
        FaissIndex.open(store, folder("flat"), "cuda")


class StandIn:
    """What FAISS says of its indexes on GPUs: a class of their own, one search at a time, 2,048 candidates."""

    def __init__(self, index, options) -> None:
        self.index, self.options, self.busy = index, options, Lock()

    def search(self, queries, k):
        assert k <= 2048
        assert self.busy.acquire(blocking=False)
        try:
            return self.index.search(queries, k)
        finally:
            self.busy.release()


@pytest.fixture
def gpus(monkeypatch):
    """Stand-ins: no machine of the project has GPUs that FAISS sees."""
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "GpuMultipleClonerOptions", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", StandIn)


@pytest.mark.parametrize("index", ["flat", "IVF16,SQ8", "IVF64,Flat"])
def test_a_copy_on_gpus_finds_the_same(store, folder, gpus, searched_exactly, index):
    copy, original = (FaissIndex.open(store, folder(index), device) for device in ("cuda", "cpu"))
    np.testing.assert_array_equal(copy.search(questions(store), K)[0], original.search(questions(store), K)[0])
    assert searched_exactly == []
    assert (copy.search(questions(store), 20 * K)[0] >= 0).all()


def test_a_filter_on_a_copy_on_gpus_is_searched_exactly(store, folder, gpus, searched_exactly, monkeypatch):
    monkeypatch.setattr(faiss_index, "FEW", 0)
    rows, _ = FaissIndex.open(store, folder("IVF16,SQ8"), "cuda").search(questions(store), K, "year >= 100")
    expected, _ = ExactIndex(store).search(questions(store), K, "year >= 100")
    np.testing.assert_array_equal(rows, expected)
    assert sum(searched_exactly) == rows.shape[0] * rows.shape[1]


def test_a_copy_on_gpus_is_searched_by_one_thread_at_a_time(store, folder, gpus):
    copy = FaissIndex.open(store, folder("flat"), "cuda")
    expected, _ = copy.search(questions(store), K)
    with ThreadPoolExecutor(4) as pool:
        for rows, _ in pool.map(lambda _: copy.search(questions(store), K), range(20)):
            np.testing.assert_array_equal(rows, expected)


def test_what_gpus_do_not_list_is_refused(store, folder, gpus, monkeypatch):
    with pytest.raises(ValueError, match=r"at most 2,048 candidates on GPUs, this search needs 2,049 .*=\"cpu\""):
        FaissIndex.open(store, folder("flat"), "cuda").search(questions(store), 2049)
    rescored = FaissIndex.open(store, folder("IVF16,SQ8"), "cuda")
    monkeypatch.setattr(rescored, "setting", rescored.setting._replace(candidates=4))
    with pytest.raises(ValueError, match="this search needs 2,052"):
        rescored.search(questions(store), 513)
    monkeypatch.setattr("amer.search.index.faiss.library.MOST_ON_GPU", 0)
    with pytest.raises(ValueError, match=r"on GPUs FAISS visits at most .*device=\"cpu\""):
        FaissIndex.open(store, folder("IVF16,SQ8"), "cuda")


def test_training_takes_random_documents(store, tmp_path):
    rows = faiss_building.sample_rows(store, 300, seed=4)
    assert len(set(rows.tolist())) == 300
    assert rows.max() > COUNT // 2
    assert (rows != faiss_building.sample_rows(store, 300, seed=5)).any()


def test_a_flipped_bit_in_an_index_is_refused_by_name(store, copied):
    file = copied / "index.faiss"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"index\.faiss is damaged"):
        FaissIndex.open(store, copied)
    with pytest.raises(OSError, match=r"index\.faiss is damaged"):  # and tuning it anew does not bless it
        FaissIndex.build(store, copied, json.loads((copied / "index.json").read_text())["index"], recall=0.5)


def test_an_index_from_before_there_were_checksums_opens(store, copied):
    info = json.loads((copied / "index.json").read_text())
    del info["sha256"]
    (copied / "index.json").write_text(json.dumps(info))
    assert len(FaissIndex.open(store, copied).store) == len(store)


@pytest.mark.parametrize(
    ("field", "value"), [("width", "8"), ("candidates", None), ("recall", "high"), ("bytes", 1.5), ("store", 3)]
)
def test_a_field_of_another_type_is_named(store, copied, field, value):
    info = json.loads((copied / "index.json").read_text())
    (copied / "index.json").write_text(json.dumps({**info, field: value}))
    with pytest.raises(ValueError, match=rf"index\.json has wrong or missing fields: {field}: Input should be"):
        FaissIndex.open(store, copied)
