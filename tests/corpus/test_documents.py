from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amer import checksums
from amer.checksums import file_checksum
from amer.corpus import documents as documents_module
from amer.corpus import open_documents, take_documents
from amer.corpus.table import checked_documents, fingerprint

ROWS = 10
ROOT = Path(__file__).resolve().parents[2]


def table(rows: range) -> pa.Table:
    columns = {"id": [f"d{row}" for row in rows], "title": [f"t{row % 3}" for row in rows]}
    return pa.table(columns | {"text": [f"text of {row}" for row in rows]})


def write_arrow(path, documents: pa.Table):
    with pa.ipc.new_file(path, documents.schema) as file:
        file.write_table(documents, max_chunksize=2)
    return path


@pytest.fixture
def parts(tmp_path):
    """Ten documents in three parts, the second of which is empty."""
    folder = tmp_path / "documents"
    folder.mkdir()
    names = [f"part-0000{index}.arrow" for index in range(3)]
    pieces = [range(4), range(0), range(4, ROWS)]
    for name, rows in zip(names, pieces, strict=True):
        write_arrow(folder / name, table(rows).cast(table(range(1)).schema))
    counts = [{"file": name, "documents": len(rows)} for name, rows in zip(names, pieces, strict=True)]
    (folder / "documents.json").write_text(json.dumps({"documents": ROWS, "parts": counts}))
    return folder


@pytest.fixture
def opened(parts, tmp_path):
    """The same ten documents, however they lie."""
    pq.write_table(table(range(ROWS)), tmp_path / "d.parquet", row_group_size=3)
    files = [parts, write_arrow(tmp_path / "d.arrow", table(range(ROWS))), tmp_path / "d.parquet"]
    return [open_documents(file) for file in files]


def test_parts_a_file_and_parquet_give_the_same_table(opened):
    assert all(documents.equals(table(range(ROWS))) for documents in opened)


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz"])
def test_lines_of_json_are_a_corpus_too(name, tmp_path):
    lines = ['\ufeff{"id": 7, "text": "2020-01-01", "year": 1990}', " ", '{"text": "b", "id": "x", "title": "t"}']
    data = "\n".join(lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert open_documents(tmp_path / name).to_pylist() == [
        {"id": "7", "title": "", "text": "2020-01-01", "year": 1990},
        {"id": "x", "title": "t", "text": "b", "year": None},
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b"}', "line 2: text is None: it must be a string"),
        ('{"id": null, "text": "b"}', "line 2: the id None"),
        ('{"id": "b", "text": "b", "title": 3}', "line 2: title is 3"),
        ('{"id": "b", "text"', "line 2 is not JSON"),
        ('["b"]', "line 2 must hold a JSON object"),
        ('{"id": "b", "text": "b", "year": "now"}', "the values of 'year' have different types"),
    ],
)
def test_a_line_that_is_no_document_is_named(line, message, tmp_path):
    (tmp_path / "d.jsonl").write_text(f'{{"id": "a", "text": "a", "year": 1990}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        open_documents(tmp_path / "d.jsonl")


def test_documents_come_in_the_order_asked_for(opened):
    rows = np.array([9, 0, 3, 4, 3])
    for documents in opened:
        assert take_documents(documents, rows) == [table(range(ROWS)).to_pylist()[row] for row in rows]
        assert take_documents(documents, np.array([], dtype=np.int64)) == []


@pytest.mark.parametrize("row", [-1, ROWS])
def test_a_row_that_is_none_is_refused(opened, row):
    with pytest.raises(IndexError, match=rf"0\.\.9, got .*{row}"):
        take_documents(opened[0], np.array([0, row]))


def test_nothing_of_an_arrow_corpus_is_read_into_memory(tmp_path):
    size, texts = 1_000, ["x" * 10_000] * 1_000
    write_arrow(
        tmp_path / "d.arrow", pa.table({"id": list(map(str, range(size))), "title": [""] * size, "text": texts})
    )
    before = pa.total_allocated_bytes()
    documents = open_documents(tmp_path / "d.arrow")
    (taken,) = take_documents(documents, np.array([512]))
    assert taken["id"] == "512"
    assert pa.total_allocated_bytes() - before < 100_000, "the corpus has 10 million bytes"


def test_a_mapped_corpus_is_encoded_as_it_is(opened):
    checked = [checked_documents(documents) for documents in opened]
    assert checked[0].column("text").chunk(0).buffers()[2].address == opened[0]["text"].chunk(0).buffers()[2].address
    assert len({fingerprint(documents) for documents in checked}) == 1


def test_parts_hold_no_file_open(parts):
    documents = open_documents(parts)
    # Only files of the corpus count: other threads of the process open and close their own.
    opened = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert [path for path in opened if path.startswith(str(parts))] == []
    assert documents.num_rows == ROWS


def test_an_unfinished_corpus_is_refused(parts):
    (parts / "documents.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"not a finished corpus.*to resume"):
        open_documents(parts)


def test_a_missing_part_is_named(parts):
    (parts / "part-00002.arrow").unlink()
    with pytest.raises(FileNotFoundError, match=r"part-00002\.arrow is missing"):
        open_documents(parts)


def test_a_part_outside_the_corpus_is_refused(parts, tmp_path):
    (parts / "part-00002.arrow").rename(tmp_path / "elsewhere.arrow")
    info = json.loads((parts / "documents.json").read_text())
    for name in ("../elsewhere.arrow", str(tmp_path / "elsewhere.arrow")):
        info["parts"][2]["file"] = name
        (parts / "documents.json").write_text(json.dumps(info))
        with pytest.raises(ValueError, match="must not lead out"):
            open_documents(parts)


def test_a_part_of_another_corpus_is_named(parts):
    write_arrow(parts / "part-00002.arrow", table(range(3)))
    with pytest.raises(ValueError, match=r"part-00002\.arrow holds 3 documents, but documents\.json says 6"):
        open_documents(parts)


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    file = tmp_path / f"d{suffix}"
    pq.write_table(table(range(ROWS)), file) if suffix == ".parquet" else write_arrow(file, table(range(ROWS)))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(OSError, match=rf"d\{suffix} is truncated"):
        open_documents(file)


def test_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_documents(tmp_path / "nothing")
    (tmp_path / "d.tsv").write_text("id\n")
    with pytest.raises(ValueError, match=r"d\.tsv is not a corpus"):
        open_documents(tmp_path / "d.tsv")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"], "text": ["b"]}, "lacks the column.*title"),
        ({"id": [1.0], "title": ["t"], "text": ["b"]}, "column 'id' is double"),
        ({"id": ["a"], "title": [None], "text": ["b"]}, "column 'title' is"),
        ({"id": ["a", "b"], "title": ["t", None], "text": ["b", "c"]}, "1 nulls"),
    ],
)
def test_columns_out_of_contract_are_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")
    with pytest.raises(ValueError, match=message):
        open_documents(tmp_path / "d.parquet")


def test_further_columns_stay_as_metadata(tmp_path):
    documents = table(range(ROWS)).append_column("year", [list(range(1990, 1990 + ROWS))])
    pq.write_table(documents, tmp_path / "d.parquet")
    for file in (tmp_path / "d.parquet", write_arrow(tmp_path / "d.arrow", documents)):
        opened = open_documents(file)
        assert opened.column_names == ["id", "title", "text", "year"]
        assert checked_documents(opened)["year"].to_pylist() == list(range(1990, 1990 + ROWS))
        assert take_documents(opened, np.array([3])) == [{"id": "d3", "title": "t0", "text": "text of 3"}]


# Opens damaged copies of a file, each in a process of its own: what ends one is seen. FILE NAME_OF_COPY FLIPS OPENED
FLIPS = """
import os, random, sys
from pathlib import Path
from amer.corpus import open_documents
content, copy, opened = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), Path(sys.argv[4])
places, ends = random.Random(0), []
for _ in range(int(sys.argv[3])):
    damaged = bytearray(content)
    damaged[places.randrange(len(content))] ^= 1 << places.randrange(8)
    copy.write_bytes(damaged)
    child = os.fork()
    if child == 0:
        try:
            open_documents(opened).to_pylist()
        except (OSError, ValueError) as error:
            os._exit(1 if copy.name in str(error) else 2)
        except BaseException:
            os._exit(2)
        os._exit(0)
    ends.append(os.waitpid(child, 0)[1])
print({os.WEXITSTATUS(end) if os.WIFEXITED(end) else "killed" for end in ends})
"""


def ends_of_flips(file: Path, copy: Path, opened: Path, flips: int = 100) -> str:
    """How the processes ended that opened a corpus with a flipped bit: 0 read it, 1 refused the file by its name."""
    command = [sys.executable, "-c", FLIPS, str(file), str(copy), str(flips), str(opened)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_a_flipped_bit_in_a_part_with_a_checksum_is_always_refused_by_name(parts, tmp_path):
    listing = json.loads((parts / "documents.json").read_text())
    for part in listing["parts"]:
        part["sha256"] = file_checksum(parts / part["file"])
    (parts / "documents.json").write_text(json.dumps(listing))
    assert open_documents(parts).num_rows == ROWS
    shutil.copy(parts / "part-00002.arrow", tmp_path / "whole")
    assert ends_of_flips(tmp_path / "whole", parts / "part-00002.arrow", parts) == "{1}"


def test_a_flipped_bit_in_a_file_without_a_checksum_never_ends_the_process(parts, tmp_path):
    large = pa.concat_tables([table(range(200))])
    write_arrow(tmp_path / "whole.arrow", large)
    copy = tmp_path / "copy.arrow"
    assert ends_of_flips(tmp_path / "whole.arrow", copy, copy) == "{0, 1}"


def test_a_large_corpus_is_checked_once_and_again_when_it_changes(parts, monkeypatch, tmp_path):
    monkeypatch.setenv("AMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "LARGE", 0)
    checked, real = [], documents_module._validate
    monkeypatch.setattr(documents_module, "_validate", lambda file: (checked.append(file.name), real(file)))
    for _ in range(2):
        open_documents(parts)
        assert len(checked) == 3
    os.utime(parts / "part-00000.arrow", ns=(0, 0))
    open_documents(parts)
    assert len(checked) == 6


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ([], "the whole file: Input should be a valid dict"),
        ({}, "parts: Field required"),
        ({"parts": {}}, "parts: Input should be a valid list"),
        ({"parts": []}, "parts: List should have at least 1 item"),
        ({"parts": ["part-00000.arrow"]}, r"parts\.0: Input should be a valid dict"),
        ({"parts": [{"file": "part-00000.arrow", "documents": "4"}]}, r"parts\.0\.documents: .* valid integer"),
        ({"parts": [{"file": 7, "documents": 4}]}, r"parts\.0\.file: Input should be a valid string"),
        ({"parts": [{"file": "part-00000.arrow", "documents": 4, "sha256": None}]}, r"parts\.0\.sha256: .* string"),
    ],
)
def test_a_listing_of_wrong_types_is_refused_with_its_field(parts, listing, message):
    (parts / "documents.json").write_text(json.dumps(listing))
    with pytest.raises(ValueError, match=rf"documents\.json has wrong or missing fields: {message}"):
        open_documents(parts)
