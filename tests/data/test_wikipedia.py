from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from amer.corpus import open_documents
from amer.data import build_wikipedia
from amer.data import wikipedia as module
from amer.data.building import DroppedRecords
from amer.files import read_json

CHUNKS = Path(__file__).parent / "fixtures" / "chunked_wikipedia"
FIRST, SECOND = "wikipedia_chunks_0.jsonl", "wikipedia_chunks_1.jsonl"


def line(name: str = "1__0", **changes) -> str:
    record = {"id": name, "contents": "Page A passage.", "meta": {"title": "Page", "content": "A passage."}}
    return json.dumps(record | changes) + "\n"


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def chunks(tmp_path) -> Path:
    return Path(shutil.copytree(CHUNKS, tmp_path / "chunks"))


def build(tmp_path, chunks: Path, name: str = "wikipedia") -> Path:
    build_wikipedia(tmp_path / name, chunks, show_progress_bar=False)
    return tmp_path / name


def test_the_chunks_become_a_corpus(tmp_path, chunks):
    path = build(tmp_path, chunks)
    documents = open_documents(path / "documents")
    published = [json.loads(text) for name in (FIRST, SECOND) for text in (chunks / name).read_text().splitlines()]
    expected = [
        {"id": record["id"], "title": record["meta"]["title"], "text": record["meta"]["content"]}
        for record in published
        if record["meta"]["content"]
    ]
    assert documents.to_pylist() == expected
    assert sorted(file.name for file in path.rglob("*")) == [
        "documents", "documents.json", "dropped.jsonl", "part-00000.arrow", "part-00001.arrow",
    ]  # fmt: skip


def test_what_was_dropped_is_counted_and_listed(tmp_path, chunks):
    path = build(tmp_path, chunks)
    info = read_json(path / "documents" / "documents.json")
    assert info["documents"] == 30
    assert info["drops"] == {"passage without text": 1}
    (dropped,) = map(json.loads, (path / "documents" / "dropped.jsonl").read_text().splitlines())
    assert dropped == {"reason": "passage without text", "file": SECOND, "line": 14, "id": "1021__0"}
    assert (chunks / SECOND).read_text().splitlines()[13].count("Blank page")
    words = [len(text.split()) for text in open_documents(path / "documents")["text"].to_pylist()]
    assert info["words_per_document"] == round(sum(words) / 30, 2)
    assert info["paper"] == {"documents": "roughly 25M", "words_per_document": 100}


def test_a_gzipped_chunk_gives_the_same_documents(tmp_path, chunks):
    plain = open_documents(build(tmp_path, chunks) / "documents")
    (chunks / f"{SECOND}.gz").write_bytes(gzip.compress((chunks / SECOND).read_bytes()))
    (chunks / SECOND).unlink()
    assert open_documents(build(tmp_path, chunks, "gzipped") / "documents").equals(plain)


def test_batches_do_not_show(tmp_path, chunks, monkeypatch):
    whole = open_documents(build(tmp_path, chunks) / "documents")
    monkeypatch.setattr(module, "BATCH", 3)
    cut = open_documents(build(tmp_path, chunks, "cut") / "documents")
    assert cut.equals(whole)
    assert cut["id"].num_chunks > whole["id"].num_chunks


def test_what_is_there_is_not_read_again(tmp_path, chunks, monkeypatch):
    unbroken = files(build(tmp_path, chunks))
    read, passages = [], module._passages

    def interrupted(file: Path, drops):
        read.append(file.name)
        yield next(passages(file, drops))
        if file.name == SECOND and read.count(SECOND) == 1:
            raise KeyboardInterrupt
        yield from list(passages(file, DroppedRecords()))[1:]

    monkeypatch.setattr(module, "_passages", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, chunks, "broken")
    assert not (tmp_path / "broken" / "documents" / "documents.json").exists()
    monkeypatch.setattr(module, "_passages", lambda file, drops: read.append(file.name) or passages(file, drops))
    assert files(build(tmp_path, chunks, "broken")) == unbroken
    assert read == [FIRST, SECOND, SECOND]
    build(tmp_path, chunks, "broken")
    assert read == [FIRST, SECOND, SECOND], "a finished corpus is left as it is"


def test_a_chunk_that_changed_is_read_again(tmp_path, chunks):
    good = (chunks / SECOND).read_text()
    (chunks / SECOND).write_text(good + "no JSON\n")
    with pytest.raises(ValueError, match="line 17 is not JSON"):
        build(tmp_path, chunks)
    with (chunks / FIRST).open("a") as stream:
        stream.write(line("new"))
    (chunks / SECOND).write_text(good)
    documents = open_documents(build(tmp_path, chunks) / "documents")
    assert documents.num_rows == 31
    assert documents.slice(15, 1).to_pylist() == [{"id": "new", "title": "Page", "text": "A passage."}]


def test_a_corpus_of_other_chunks_is_kept(tmp_path, chunks):
    before = files(build(tmp_path, chunks))
    (chunks / SECOND).unlink()
    with pytest.raises(FileExistsError, match="of other chunks"):
        build(tmp_path, chunks)
    assert files(tmp_path / "wikipedia") == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no JSON\n", "is not JSON"),
        ("\n", "is not JSON"),
        ("[1]\n", "must hold a JSON object, not list"),
        (line(contents=None), "must have an id, contents and meta.title"),
        (line(id=7), "must have an id"),
        (line(id=""), "must have an id"),
        (line(meta={}), "must have an id, contents and meta.title"),
        (line(meta=[]), "must have an id, contents and meta.title"),
        (line(contents="\ud83d"), "is not JSON.*surrogates"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, chunks, text, message):
    (chunks / FIRST).write_text(line() + text + line("1__1"))
    with pytest.raises(ValueError, match=rf"chunks/{FIRST}, line 2 .*{message}"):
        build(tmp_path, chunks)
    assert not (tmp_path / "wikipedia" / "documents" / "documents.json").exists()


def test_a_line_that_is_not_utf8_is_named(tmp_path, chunks):
    (chunks / FIRST).write_bytes(line().encode() + line("1__1").replace("A", "\xc5").encode("latin-1"))
    with pytest.raises(ValueError, match=f"{FIRST}, line 2 is not UTF-8"):
        build(tmp_path, chunks)


@pytest.mark.parametrize("kept", [0, 700, -1])
def test_a_chunk_cut_short_is_named(tmp_path, chunks, kept):
    content = (chunks / SECOND).read_bytes()[:kept]
    (chunks / SECOND).write_bytes(content)
    where = f"{SECOND}, line {content.count(10) + 1} has no line break" if content else f"{SECOND} is empty"
    with pytest.raises(OSError, match=f"{where}.*cut short"):
        build(tmp_path, chunks)


@pytest.mark.parametrize("damage", [lambda content: content[:-200], lambda content: b"no gzip" + content])
def test_a_damaged_gzipped_chunk_is_named(tmp_path, chunks, damage):
    (chunks / SECOND).unlink()
    (chunks / f"{SECOND}.gz").write_bytes(damage(gzip.compress(line().encode() * 10_000, compresslevel=0)))
    with pytest.raises(OSError, match=rf"{SECOND}\.gz, line \d+: .*cut short or damaged"):
        build(tmp_path, chunks)


@pytest.mark.parametrize(("name", "first"), [(FIRST, 3), (SECOND, 14)])
def test_an_id_that_repeats_is_named_with_both_its_places(tmp_path, chunks, name, first):
    """Line 14 of the second chunk has no text: of the lines behind it, rows and lines differ by one more."""
    lines = (chunks / name).read_text().splitlines(keepends=True)
    with (chunks / SECOND).open("a") as stream:
        stream.write(lines[first])
    where = rf"{SECOND}, line 17 has the id of .*{name}, line {first + 1}, '{json.loads(lines[first])['id']}'"
    with pytest.raises(ValueError, match=where):
        build(tmp_path, chunks)
    assert not (tmp_path / "wikipedia" / "documents" / "documents.json").exists()


@pytest.mark.parametrize(
    ("title", "contents", "text"),
    [
        ("A", "A b", "b"),
        ("A", "Ab c", "Ab c"),
        ("A", "A", ""),
        ("A", "A A b", "A b"),
        ("", " b", "b"),
        ("A", "b A", "b A"),
    ],
)
def test_the_title_is_taken_off_the_text_once(tmp_path, title, contents, text):
    assert module._passage(line(contents=contents, meta={"title": title}), None) == ("1__0", title, text)


def test_no_chunks_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="unpack chunked_wikipedia"):
        build(tmp_path, tmp_path)
