"""Every index returns what brute force in NumPy returns, pads alike and refuses alike."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch

from amer.corpus.store import DocumentStore, write_store
from amer.search.index import FaissIndex
from amer.search.index import exact as index_module
from amer.search.index.exact import ExactIndex, Pace, Part, held_blocks, load_vectors, nearest
from amer.search.index.faiss import building as faiss_building

INDEXES = [ExactIndex, FaissIndex]
FROM_DISK = partial(ExactIndex, held_bytes=0)
COUNT, DIM = 57, 8


@pytest.fixture(scope="module", params=["float16", "float32"])
def store(request, tmp_path_factory) -> DocumentStore:
    names = [str(row) for row in range(COUNT)]
    vectors = np.random.default_rng(0).standard_normal((COUNT, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents = pa.table({"id": names, "title": names, "text": names})
    path = tmp_path_factory.mktemp("index") / "store"
    return write_store(path, documents, vectors, {"name": "toy"}, request.param, shard_size=10)


def make_queries(q: int = 6, m: int = 3) -> np.ndarray:
    queries = np.random.default_rng(1).standard_normal((q, m, DIM)).astype(np.float32)
    return queries / np.linalg.norm(queries, axis=-1, keepdims=True)


@pytest.mark.parametrize("make_index", [*INDEXES, FROM_DISK])
@pytest.mark.parametrize("k", [1, 9, 15, COUNT])
@pytest.mark.parametrize("block_rows", [4, 65_536])
def test_equals_brute_force(store, monkeypatch, make_index, k, block_rows):
    monkeypatch.setattr(index_module, "CPU_PACE", Pace(block_rows, 7 * block_rows))
    monkeypatch.setattr(index_module, "READ_ROWS", block_rows)
    monkeypatch.setattr(faiss_building, "READ_ROWS", block_rows)
    queries = make_queries()
    similarity = queries @ store.vectors(range(COUNT)).T
    expected = np.argsort(-similarity, axis=-1)[..., :k]
    rows, scores = make_index(store).search(queries, k)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(similarity, expected, axis=-1), atol=1e-6)


def test_a_small_store_is_read_once_and_a_large_one_every_time(store, monkeypatch):
    reads = []
    blocks = DocumentStore.blocks
    monkeypatch.setattr(DocumentStore, "blocks", lambda *given: reads.append(given) or blocks(*given))
    found = []
    for most, expected in ((4 * COUNT * DIM, 1), (4 * COUNT * DIM - 1, 2)):
        reads.clear()
        index = ExactIndex(store, held_bytes=most)
        assert not reads  # opening reads nothing
        found += [index.search(make_queries(), 9) for _ in range(2)]
        assert len(reads) == expected
    for rows, scores in found[1:]:
        np.testing.assert_array_equal(rows, found[0][0])
        np.testing.assert_array_equal(scores, found[0][1])


@pytest.mark.parametrize("make_index", INDEXES)
def test_more_than_there_is_gets_padded(store, make_index):
    rows, scores = make_index(store).search(make_queries(2, 2), COUNT + 3)
    assert rows.shape == scores.shape == (2, 2, COUNT + 3)
    assert (np.sort(rows[..., :COUNT]) == np.arange(COUNT)).all()
    assert (rows[..., COUNT:] == -1).all()
    assert np.isneginf(scores[..., COUNT:]).all()


@pytest.mark.parametrize("make_index", INDEXES)
def test_reads_tensors_of_any_layout_and_precision(store, make_index):
    index = make_index(store)
    queries = torch.from_numpy(make_queries()).requires_grad_()
    expected = index.search(make_queries().transpose(1, 0, 2).copy(), 5)
    for given in (queries.transpose(0, 1), queries.transpose(0, 1).double(), make_queries().transpose(1, 0, 2)):
        found = index.search(given, 5)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("make_index", INDEXES)
def test_no_query_gives_no_list(store, make_index):
    rows, scores = make_index(store).search(np.zeros((0, 3, DIM), dtype=np.float32), 4)
    assert rows.shape == scores.shape == (0, 3, 4)


@pytest.mark.parametrize("make_index", INDEXES)
@pytest.mark.parametrize(
    "queries, k, message",
    [
        (make_queries()[0], 3, r"\(q, m, 8\)"),
        (make_queries()[:, :, :-1], 3, r"\(q, m, 8\)"),
        (make_queries()[:, :0], 3, "m at least 1"),
        (make_queries() * np.float32(np.nan), 3, "NaN"),
        (make_queries() * np.float32(np.inf), 3, "infinite"),
        (make_queries(), 0, "k must be at least 1"),
    ],
)
def test_bad_queries_are_refused(store, make_index, queries, k, message):
    with pytest.raises(ValueError, match=message):
        make_index(store).search(queries, k)


def cut(vectors: torch.Tensor, size: int) -> list[tuple[int, torch.Tensor]]:
    return list(zip(range(0, len(vectors), size), vectors.split(size), strict=True))


def check_nearest(queries: torch.Tensor, vectors: torch.Tensor, size: int, k: int) -> None:
    """Beside a full sort: the same scores; rows that have them, each once, equal ones ascending, padding last."""
    found, rows = nearest(queries, cut(vectors, size), k)
    assert (found.dtype, rows.dtype) == (torch.float32, torch.int64)
    similarity = queries.double() @ vectors.double().T
    listed = min(k, len(vectors))
    torch.testing.assert_close(found[:, :listed].double(), similarity.sort(1, descending=True)[0][:, :listed])
    torch.testing.assert_close(similarity.gather(1, rows[:, :listed]), found[:, :listed].double())
    order = np.lexsort((rows[:, :listed].numpy(), -found[:, :listed].numpy()))
    assert (order == np.arange(listed)).all()
    assert all(len(set(row)) == listed for row in rows[:, :listed].tolist())
    assert (rows[:, listed:] == -1).all()
    assert torch.isneginf(found[:, listed:]).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("values", [2, 100_000], ids=["full of ties", "few ties"])
def test_nearest_equals_a_full_sort(monkeypatch, values, dtype):
    generator = np.random.default_rng(0)
    for _ in range(40):
        count, n, dim = generator.integers(1, (700, 6, 5))
        k, size = (int(2 ** generator.uniform(0, limit)) for limit in (7, 10))
        monkeypatch.setattr(index_module, "CPU_PACE", Pace(size, int(generator.integers(1, 3 * size))))
        queries, vectors = (generator.integers(-values, values + 1, (rows, dim)) / values for rows in (n, count))
        queries, vectors = torch.tensor(queries, dtype=torch.float32), torch.tensor(vectors).to(dtype)
        check_nearest(queries, vectors, size, k)


COLUMN = torch.arange(1000.0)
ORDERS = {
    "ascending: every block is better than all before": COLUMN,
    "descending: no block can improve the first": -COLUMN,
    "the best stand side by side, one in each group": (COLUMN - 300).abs().neg(),
    "the best stand in one group": -(COLUMN % 62),
    "the best stand at the end of the block, in no group": COLUMN % 250,
    "all the same": COLUMN * 0,
}


@pytest.mark.parametrize("values", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("size", [1, 3, 250, 1000])
@pytest.mark.parametrize("k", [1, 4, 250, 1003])
def test_nearest_whatever_order_the_documents_have(values, size, k):
    check_nearest(torch.tensor([[1.0], [-1.0], [0.5], [0.0]]), values[:, None], size, k)


def test_of_equal_scores_the_first_stand_first_whatever_the_blocks():
    vectors = torch.tensor([0.0, 1, 1, 0, 1, 0, 0, 1])[:, None]
    for size in range(1, 9):
        assert nearest(torch.ones(1, 1), cut(vectors, size), 6)[1].tolist()[0][:4] == [1, 2, 4, 7]


def test_only_the_groups_that_can_improve_a_list_are_looked_into():
    scores = torch.stack([COLUMN, COLUMN.flip(0)])
    everything, _ = index_module._candidates(scores, torch.full((2, 1), -torch.inf), 10)
    some, _ = index_module._candidates(scores, torch.tensor([[989.0], [998.0]]), 10)
    assert everything.shape == (2, 10 * 16 + 1000 % 16)
    assert some.shape == (2, 2 * 16 + 1000 % 16)
    none, columns = index_module._candidates(scores[:, :992], torch.full((2, 1), 999.0), 10)
    assert none.shape == columns.shape == (2, 0)


def test_a_broken_vector_shows_in_the_scores():
    vectors = torch.cat([COLUMN, torch.tensor([torch.nan]), COLUMN])[:, None]
    assert nearest(torch.ones(1, 1), cut(vectors, 500), 5)[0].isnan().any()


def test_float16_numbers_are_multiplied_exactly_and_summed_in_float32():
    generator = torch.Generator().manual_seed(0)
    queries, vectors = (torch.randn(rows, 300, generator=generator).half() for rows in (4, 50))
    expected = (queries.double() @ vectors.double().T).sort(1, descending=True)[0]
    torch.testing.assert_close(nearest(queries, cut(vectors, 20), 50)[0].double(), expected, rtol=1e-5, atol=1e-4)


def test_the_scores_held_at_a_time_are_bounded(monkeypatch):
    sizes = []
    monkeypatch.setattr(index_module, "CPU_PACE", Pace(rows=20, scores=90))
    original = index_module._candidates
    monkeypatch.setattr(index_module, "_candidates", lambda s, *rest: sizes.append(s.shape) or original(s, *rest))
    nearest(torch.ones(10, 1), held_blocks(COLUMN[:50, None]), 3)
    assert sizes == [(4, 20), (4, 20), (2, 20)] * 2 + [(9, 10), (1, 10)]
    sizes.clear()
    nearest(torch.ones(2, 1), cut(COLUMN[:200, None], 200), 3)
    assert sizes == [(1, 200), (1, 200)]


def test_a_device_holds_the_vectors_in_the_precision_of_the_store(store):
    index = ExactIndex(store, "meta")
    ((first_row, vectors),) = index._parts
    assert index.dtype == vectors.dtype == getattr(torch, store.dtype)
    assert (first_row, *vectors.shape) == (0, COUNT, DIM)
    assert vectors.device.type == "meta"
    assert ExactIndex(store).dtype == torch.float32


@pytest.fixture(params=[[0], [0, 29], [0, 1, 30, 56]], ids=["one device", "two devices", "four devices"])
def holding(request, store, monkeypatch) -> ExactIndex:
    """An index that holds its vectors as on GPUs, in the memory of the CPU, and reads no store any more."""
    monkeypatch.setattr(index_module, "CPU_PACE", Pace(rows=20, scores=100))
    index, cpu = ExactIndex(store, "meta"), torch.device("cpu")
    cuts = zip(request.param, [*request.param[1:], COUNT], strict=True)
    index._parts = [Part(start, load_vectors(store, cpu, start, stop)) for start, stop in cuts]
    monkeypatch.delattr(DocumentStore, "blocks")
    return index


def test_held_vectors_are_searched_with_queries_of_their_precision(store, holding):
    queries = make_queries()
    rounded = queries.astype(store.dtype).astype(np.float32)
    expected = rounded @ store.vectors(range(COUNT)).T
    rows, scores = holding.search(queries, 9)
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=-1)[..., :9])
    np.testing.assert_allclose(scores, np.take_along_axis(expected, rows, axis=-1), atol=1e-6)


def test_queries_beyond_the_precision_of_held_vectors_are_refused(store, holding):
    queries = make_queries() * 1e6
    if store.dtype == "float16":
        with pytest.raises(ValueError, match=r"beyond torch\.float16"):
            holding.search(queries, 3)
    else:
        assert np.isfinite(holding.search(queries, 3)[1]).all()


def test_a_store_too_large_for_the_device_says_what_to_do(store, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(MemoryError, match=r'the 57 vectors of .* take .* GiB, more than meta has free.*device="cpu"'):
        ExactIndex(store, "meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_what_the_cpu_finds(store):
    rows, scores = ExactIndex(store, "cuda").search(make_queries(), COUNT)
    expected_rows, expected_scores = ExactIndex(store).search(make_queries(), COUNT)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-3)
    np.testing.assert_array_equal(rows[..., 0], expected_rows[..., 0])
    assert (np.sort(rows) == np.arange(COUNT)).all()


def test_a_missing_faiss_is_named(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r'FaissIndex needs faiss: pip install "amer\[cpu\]"'):
        FaissIndex(store)


def test_of_equal_scores_in_several_parts_the_lower_row_stands_first(tmp_path):
    documents = pa.table({name: [str(row) for row in range(6)] for name in ("id", "title", "text")})
    store = write_store(tmp_path / "store", documents, np.tile(np.eye(2), (3, 1)), {"name": "toy"})
    index, cpu = ExactIndex(store, "meta"), torch.device("cpu")
    index._parts = [Part(0, load_vectors(store, cpu, 0, 3)), Part(3, load_vectors(store, cpu, 3, 6))]
    rows, scores = index.search(np.eye(2, dtype=np.float32)[None], 4)
    assert rows.tolist() == [[[0, 2, 4, 1], [1, 3, 5, 0]]]
    assert scores.tolist() == [[[1, 1, 1, 0]] * 2]


@pytest.mark.parametrize("count", [1, 2, 3, 58])
def test_several_devices_hold_the_whole_store_once(store, count):
    index = ExactIndex(store, ["meta"] * count)
    firsts = [part.first_row for part in index._parts]
    ends = [part.first_row + len(part.vectors) for part in index._parts]
    assert (firsts[0], ends[-1]) == (0, COUNT)
    assert firsts[1:] == ends[:-1]


@pytest.mark.parametrize("device", [[], ["cpu", "meta"], ["cpu", "cpu"]])
def test_devices_that_cannot_share_are_refused(store, device):
    with pytest.raises(ValueError, match="device must be"):
        ExactIndex(store, device)
