"""The document store: what is written is read back, and what is damaged is refused by its file's name."""

from __future__ import annotations

import pickle
import random
from itertools import islice, repeat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amer.corpus import store as store_module
from amer.corpus.shards import file_checksum
from amer.corpus.store import DocumentStore, write_store
from amer.corpus.table import fingerprint
from amer.files import read_json, write_json

ENCODER = {"name": "toy", "revision": "abc", "document_prompt": "", "query_prompt": "query: "}


def make_documents(count: int) -> pa.Table:
    return pa.table(
        {
            "id": [f"d{row}" for row in range(count)],
            "title": [f"title {row % 3}" for row in range(count)],
            "text": [f"text {row} é" for row in range(count)],
        }
    )


def make_vectors(count: int, dim: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def store(tmp_path) -> DocumentStore:
    return write_store(tmp_path / "store", make_documents(23), make_vectors(23), ENCODER, "float32", shard_size=5)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 0), ("float16", 1e-3)])
def test_vectors_are_gathered_across_shards_in_the_shape_of_the_rows(tmp_path, dtype, tolerance):
    vectors = make_vectors(23)
    store = write_store(tmp_path / "store", make_documents(23), vectors, ENCODER, dtype, shard_size=5)
    rows = np.random.default_rng(1).integers(0, 23, size=(4, 3, 7))
    gathered = store.vectors(rows)
    assert gathered.dtype == np.float32
    np.testing.assert_allclose(gathered, vectors[rows], atol=tolerance)
    assert store.vectors([]).shape == (0, 8)
    assert store.vectors(np.int64(22)).shape == (8,)


def test_an_iterable_of_blocks_writes_the_same_files_as_one_array(tmp_path):
    vectors = make_vectors(23)
    whole = write_store(tmp_path / "a", make_documents(23), vectors, ENCODER, shard_size=5)
    blocks = (vectors[start : start + 7].astype(np.float64) for start in range(0, 23, 7))
    cut = write_store(tmp_path / "b", make_documents(23), blocks, ENCODER, shard_size=5)
    assert whole.info["checksums"] == cut.info["checksums"]
    assert len(whole.info["checksums"]) == 5


@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_blocks_cover_the_store_once_in_order(store, size):
    blocks = list(store.blocks(size))
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), make_vectors(23))
    assert all(len(block) <= size and block.dtype == store.dtype for _, block in blocks)
    for first_row, block in blocks:
        np.testing.assert_array_equal(block, store.vectors(np.arange(first_row, first_row + len(block))))


def test_documents_come_in_the_asked_order_with_repeats(tmp_path, monkeypatch):
    monkeypatch.setattr("amer.corpus.store.ROW_GROUP", 4)
    documents = make_documents(23)
    store = write_store(tmp_path / "store", documents, make_vectors(23), ENCODER)
    rows = [22, 0, 7, 7, 3, 4]
    assert store.documents(rows) == [documents.to_pylist()[row] for row in rows]
    assert store.documents([]) == []


def test_the_last_texts_read_are_remembered_but_not_all(tmp_path, monkeypatch):
    monkeypatch.setattr("amer.corpus.store.ROW_GROUP", 2)
    monkeypatch.setattr("amer.corpus.store.KEPT_ROW_GROUPS", 2)
    store = write_store(tmp_path / "store", make_documents(6), make_vectors(6), {"name": "toy"})
    read = []
    opened = store_module.open_parquet
    monkeypatch.setattr(store_module, "open_parquet", lambda *where: read.append(where) or opened(*where))
    for rows, reads in (([0, 3], 2), ([1, 2, 3], 0), ([4], 1), ([2], 0), ([0], 1)):
        read.clear()
        ids = [document["id"] for document in store.documents(rows)]
        assert ids == [store.ids[row].as_py() for row in rows]
        assert len(read) == reads, rows


def test_ids_and_rows_are_inverse(store):
    rows = [22, 0, 7, 7]
    ids = store.ids.take(rows).to_pylist()
    assert ids == ["d22", "d0", "d7", "d7"]
    found = store.rows_of(ids)
    assert found.dtype == np.int64
    assert found.tolist() == rows


def test_unknown_ids_are_named(store):
    with pytest.raises(ValueError, match=r"2 of 3 ids .*'x', 'y'"):
        store.rows_of(["d1", "x", "y"])


@pytest.mark.parametrize("rows", [[-1], [0, 23]])
def test_rows_outside_the_store_are_refused(store, rows):
    with pytest.raises(IndexError, match=r"0\.\.22"):
        store.vectors(rows)
    with pytest.raises(IndexError, match=r"0\.\.22"):
        store.documents(rows)


def test_fractional_rows_are_refused(store):
    with pytest.raises(ValueError, match="integers"):
        store.vectors([0.0, 1.5])


def test_every_field_of_the_encoder_is_compared(store):
    store.check_encoder(dict(ENCODER))
    for key in ENCODER:
        with pytest.raises(ValueError, match=f"{key} 'other', the store has"):
            store.check_encoder({**ENCODER, key: "other"})
    with pytest.raises(ValueError, match="no document encoder is named"):
        store.check_encoder(None)


def test_an_encoder_without_revision_or_prompts_has_none_of_them(tmp_path):
    store = write_store(tmp_path / "store", make_documents(3), make_vectors(3), {"name": "toy"})
    assert store.encoder == {"name": "toy", "revision": None, "document_prompt": "", "query_prompt": ""}
    store.check_encoder({"name": "toy"})


def test_verify_passes_on_a_sound_store(store):
    store.verify()


def test_verify_notices_one_changed_byte(store):
    file = store.path / "embeddings-00002-of-00005.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    DocumentStore.open(store.path)
    with pytest.raises(OSError, match=r"embeddings-00002-of-00005\.npy is damaged"):
        store.verify()


@pytest.mark.parametrize("name", ["title", "text", "year"])
def test_verify_notices_one_changed_document(tmp_path, name):
    store = write_store(tmp_path / "store", with_metadata(), make_vectors(4), ENCODER)
    documents = pq.read_table(store.path / "documents.parquet")
    values = documents[name].to_pylist()
    values[2] = values[2] + ("x" if isinstance(values[2], str) else 1)
    changed = documents.set_column(documents.column_names.index(name), documents.schema.field(name), [values])
    pq.write_table(changed, store.path / "documents.parquet")
    with pytest.raises(OSError, match=r"documents\.parquet is damaged"):
        DocumentStore.open(store.path).verify()


def test_another_process_opens_a_store_anew(tmp_path):
    store = write_store(tmp_path / "store", with_metadata(), make_vectors(4), ENCODER)
    assert store.matching("year > 1991").sum() == 2
    again = pickle.loads(pickle.dumps(store))
    assert (again.identity, again.matching("year > 1991").sum()) == (store.identity, 2)


@pytest.mark.parametrize("bad", [np.nan, 0.0, 2.0])
def test_verify_refuses_bad_vectors_whose_checksum_is_right(store, bad):
    file = store.path / "embeddings-00001-of-00005.npy"
    shard = np.load(file)
    shard[3] = bad
    np.save(file, shard)
    store.info["checksums"][1] = file_checksum(file)
    with pytest.raises(ValueError, match=r"embeddings-00001-of-00005.npy: the vector of row 3 "):
        store.verify()


@pytest.mark.parametrize("keep", [0, 20, 130, -1])
def test_a_truncated_shard_is_refused_by_name(store, keep):
    file = store.path / "embeddings-00003-of-00005.npy"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(OSError, match=r"embeddings-00003-of-00005\.npy"):
        DocumentStore.open(store.path)


def test_a_shard_with_bytes_behind_its_end_is_refused(store):
    with open(store.path / "embeddings-00003-of-00005.npy", "ab") as file:
        file.write(b"x")
    with pytest.raises(OSError, match=r"embeddings-00003-of-00005\.npy"):
        DocumentStore.open(store.path)


def test_a_shard_of_another_shape_or_type_is_refused(store):
    file = store.path / "embeddings-00004-of-00005.npy"
    sound = np.load(file)
    for shard in (sound[:-1], sound[:, :-1], sound.astype(np.float16)):
        np.save(file, shard)
        with pytest.raises(ValueError, match=r"embeddings-00004-of-00005\.npy"):
            DocumentStore.open(store.path)


def test_a_pickled_shard_is_never_loaded(store):
    np.save(store.path / "embeddings-00000-of-00005.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(OSError, match=r"embeddings-00000-of-00005\.npy"):
        DocumentStore.open(store.path)


@pytest.mark.parametrize("name", ["documents.parquet", "store.json", "embeddings-00001-of-00005.npy"])
def test_a_missing_file_is_named(store, name):
    (store.path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        DocumentStore.open(store.path)


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a directory"):
        DocumentStore.open(tmp_path / "nowhere")


def test_truncated_or_foreign_documents_are_refused(store, tmp_path):
    file = store.path / "documents.parquet"
    sound = file.read_bytes()
    file.write_bytes(sound[:-9])
    with pytest.raises(OSError, match=r"documents.parquet is truncated"):
        DocumentStore.open(store.path)
    other = write_store(tmp_path / "other", make_documents(22), make_vectors(22), ENCODER)
    file.write_bytes((other.path / "documents.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"documents.parquet has 22 rows"):
        DocumentStore.open(store.path)


@pytest.mark.parametrize("change", [{"dtype": "int8"}, {"count": 0}, {"dim": "8"}, {"checksums": []}, {"encoder": {}}])
def test_a_wrong_description_is_refused(store, change):
    write_json(store.path / "store.json", {**read_json(store.path / "store.json"), **change})
    with pytest.raises(ValueError, match=r"store.json|encoder"):
        DocumentStore.open(store.path)


@pytest.mark.parametrize(
    "vectors, message",
    [
        (make_vectors(5), "6 documents but 5 vectors"),
        (make_vectors(7), "6 documents but more vectors"),
        (make_vectors(6) * 1.1, "length 1.1"),
        (make_vectors(6) * [[1], [1], [1], [0], [1], [1]], "row 3 has length 0"),
        (make_vectors(6) * [[1], [1], [np.nan], [1], [1], [1]], "row 2 has length nan"),
        (make_vectors(6)[0], r"\(n, dim\)"),
        ([make_vectors(3), make_vectors(3, dim=4)], r"\(n, 8\), got \(3, 4\)"),
        ([], r"\(n, dim\)"),
        (islice(repeat(make_vectors(1)), 10**5), "6 documents but more vectors"),
    ],
)
def test_bad_vectors_are_refused_and_leave_nothing_behind(tmp_path, vectors, message):
    with pytest.raises(ValueError, match=message):
        write_store(tmp_path / "store", make_documents(6), vectors, ENCODER)
    assert list(tmp_path.iterdir()) == []
    if isinstance(vectors, islice):
        assert next(vectors, None) is not None, "reading goes on after it is clear that there are too many"


@pytest.mark.parametrize(
    "documents, message",
    [
        (make_documents(6).drop_columns(["title"]), "lacks the column.* title"),
        (make_documents(6).set_column(0, "id", [["a", "b", "c", "b", "e", "f"]]), "ids repeat.*'b'"),
        (make_documents(6).set_column(0, "id", [["a", "b", None, "d", "e", "f"]]), "null in column.* id"),
        (make_documents(6).set_column(0, "id", [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]), "'id' is double"),
        (make_documents(6).slice(0, 0), "no documents"),
    ],
)
def test_bad_documents_are_refused(tmp_path, documents, message):
    with pytest.raises(ValueError, match=message):
        write_store(tmp_path / "store", documents, make_vectors(6), ENCODER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"dtype": "float64"}, {"shard_size": 0}, {"encoder": {"revision": "x"}}])
def test_bad_options_are_refused(tmp_path, options):
    arguments = {"encoder": ENCODER, **options}
    with pytest.raises(ValueError, match=r"dtype|shard_size|name"):
        write_store(tmp_path / "store", make_documents(6), make_vectors(6), **arguments)


def test_an_existing_store_is_not_overwritten(store):
    with pytest.raises(FileExistsError, match="not empty"):
        write_store(store.path, make_documents(6), make_vectors(6), ENCODER)
    assert len(DocumentStore.open(store.path)) == 23


def test_the_fingerprint_sees_content_and_order_not_chunks():
    documents = make_documents(23)
    chunked = pa.concat_tables([documents.slice(0, 7), documents.slice(7)])
    assert fingerprint(chunked) == fingerprint(documents)
    first, second, *rest = documents["text"].to_pylist()
    moved = documents.set_column(2, "text", [[first + second[0], second[1:], *rest]])
    assert fingerprint(moved) != fingerprint(documents)
    assert fingerprint(documents.take(list(range(22, -1, -1)))) != fingerprint(documents)


METADATA = {
    "year": pa.array([1990, 1991, 1992, 1993], pa.int32()),
    "score": pa.array([0.5, 1, 2, 3], pa.float32()),
    "language": pa.array(["en", "de", "en", ""]).dictionary_encode(),
    "stub": pa.array([True, False, True, False]),
}


def with_metadata(**columns) -> pa.Table:
    documents = make_documents(4)
    for name, column in {**METADATA, **columns}.items():
        documents = documents.append_column(name, pa.chunked_array([column]))
    return documents


def test_further_columns_are_metadata(tmp_path):
    store = write_store(tmp_path / "store", with_metadata(), make_vectors(4), ENCODER)
    kinds = {"year": pa.int64(), "score": pa.float64(), "language": pa.string(), "stub": pa.bool_()}
    assert store.metadata == DocumentStore.open(store.path).metadata == kinds
    store.verify()
    assert store.documents([2])[0] == {
        **make_documents(4).to_pylist()[2],
        "year": 1992,
        "score": 2.0,
        "language": "en",
        "stub": True,
    }


@pytest.mark.parametrize(
    "name, column, message",
    [
        ("tags", [["a"], [], [], []], "'tags' is of type list"),
        ("when", pa.array([0, 1, 2, 3], pa.timestamp("s")), "'when' is of type timestamp"),
        ("year of birth", [1, 2, 3, 4], "'year of birth' is not allowed as the name of a metadata column"),
        ("vector", [1, 2, 3, 4], "'vector' is not allowed as the name of a metadata column"),
        ("row", [1, 2, 3, 4], "'row' is not allowed as the name of a metadata column"),
        ("class", ["a", "b", "c", "d"], "'class' is not allowed as the name of a metadata column"),
        ("Like", [1, 2, 3, 4], "'Like' is not allowed as the name of a metadata column"),
        ("Timestamp", [1, 2, 3, 4], "'Timestamp' is not allowed as the name of a metadata column"),
        ("größe", [1, 2, 3, 4], "'größe' is not allowed as the name of a metadata column"),
        ("month", [1, None, 3, 4], "null in column.* month"),
        ("share", [1.0, float("nan"), 3, 4], "NaN or infinite in column.* share"),
        ("share", pa.array([1, 2, 3, float("-inf")], pa.float32()), "NaN or infinite in column.* share"),
        ("embedding", [1, 2, 3, 4], "'embedding' is not allowed as the name of a metadata column"),
    ],
)
def test_what_cannot_be_metadata_is_refused(tmp_path, name, column, message):
    with pytest.raises(ValueError, match=message):
        write_store(tmp_path / "store", with_metadata(**{name: column}), make_vectors(4), ENCODER)
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprint_sees_metadata_as_they_are_stored(tmp_path):
    plain, given = make_documents(4), with_metadata()
    store = write_store(tmp_path / "store", given, make_vectors(4), ENCODER)
    assert fingerprint(given) == store.info["documents_sha256"]
    seen = {fingerprint(plain), fingerprint(given), fingerprint(given.rename_columns([*given.column_names[:-1], "x"]))}
    seen.add(fingerprint(given.set_column(3, "year", [[1990, 1991, 1992, 1994]])))
    assert len(seen) == 4


def test_the_fingerprint_reads_strings_however_they_lie_in_memory():
    documents = pa.table({name: ["", "a", "bc", "", "日本", "x"] for name in ("id", "title", "text")})
    plain = fingerprint(documents.slice(1, 4))
    copied = pa.table({name: ["a", "bc", "", "日本"] for name in ("id", "title", "text")})
    large = copied.cast(pa.schema([(name, pa.large_string()) for name in copied.column_names]))
    assert plain == fingerprint(copied) == fingerprint(large)
    assert fingerprint(documents.slice(0, 1)) != fingerprint(documents.slice(1, 1))


def test_the_identity_of_a_store_is_of_all_it_holds(tmp_path):
    def identity(name: str, count: int = 4, vectors: np.ndarray | None = None, encoder: dict = ENCODER) -> str:
        vectors = make_vectors(count) if vectors is None else vectors
        return write_store(tmp_path / name, make_documents(count), vectors, encoder).identity

    same = identity("a")
    assert same == identity("b") == DocumentStore.open(tmp_path / "a").identity
    others = [identity("c", 5), identity("d", vectors=make_vectors(4)[::-1]), identity("e", encoder={"name": "other"})]
    assert len({same, *others}) == 4


def test_a_footer_stays_small_whatever_the_number_of_documents(tmp_path, monkeypatch):
    monkeypatch.setattr("amer.corpus.store.ROW_GROUP", 4)
    monkeypatch.setattr("amer.corpus.store.MOST_ROW_GROUPS", 3)
    store = write_store(tmp_path / "store", make_documents(23), make_vectors(23), ENCODER)
    assert pq.read_metadata(store.path / "documents.parquet").num_row_groups == 3
    assert [record["id"] for record in store.documents([22, 0, 8])] == ["d22", "d0", "d8"]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("start, stop", [(0, 23), (0, 7), (5, 10), (3, 4), (7, 23), (21, None), (9, 9), (4, 99)])
def test_blocks_of_a_part_cover_it_once(store, size, start, stop):
    expected = np.arange(start, min(23 if stop is None else stop, 23))
    blocks = list(store.blocks(size, start, stop))
    assert [first + row for first, block in blocks for row in range(len(block))] == expected.tolist()
    for first, block in blocks:
        np.testing.assert_array_equal(block, store.vectors(np.arange(first, first + len(block))))


def test_a_flipped_bit_in_the_documents_never_gives_another_text(tmp_path):
    opened = write_store(tmp_path / "store", make_documents(60), make_vectors(60), {"name": "encoder"})
    file, expected = opened.path / "documents.parquet", opened.documents(range(60))
    content, draw = file.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        try:
            again = DocumentStore.open(opened.path)
            assert again.documents(range(60)) == expected and again.ids.to_pylist() == opened.ids.to_pylist()
        except (OSError, ValueError) as error:
            assert "documents.parquet" in str(error)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": "8"}, "dim: Input should be a valid integer"),
        ({"dim": True}, "dim: Input should be a valid integer"),
        ({"checksums": {}}, "checksums: Input should be a valid list"),
        ({"encoder": None}, "encoder: Input should be a valid dict"),
        ({"encoder": {"name": 7}}, r"encoder\.name: Input should be a valid string"),
        ({"encoder": {"name": "a", "query_prompt": None}}, r"encoder\.query_prompt: Input should be a valid string"),
        ({"documents_sha256": 1}, "documents_sha256: Input should be a valid string"),
    ],
)
def test_a_field_of_another_type_is_named(store, change, message):
    write_json(store.path / "store.json", {**read_json(store.path / "store.json"), **change})
    with pytest.raises(ValueError, match=rf"store\.json has wrong or missing fields: {message}"):
        DocumentStore.open(store.path)
