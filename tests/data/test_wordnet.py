from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from amer.data import build_wordnet, load_dataset_dir
from amer.data import wordnet as module
from amer.files import read_json

DICT = Path("/usr/share/wordnet")
needs_dict = pytest.mark.skipif(not (DICT / "data.noun").is_file(), reason="needs WordNet's dict folder")

LICENCE = "  1 This software and database is being provided to you, the LICENSEE\n"
LINES = {
    "noun": (
        '00000100 17 n 02 bank 0 river_Bank 0 001 @ 00000200 n 0000 | sloping land; "on the bank"  \n'
        "00000200 21 n 02 DDC 0 ddc 0 000 | a drug  \n"
        "00000300 21 n 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 000 | a letter; one | of many\n"
    ),
    "verb": "00000100 40 v 01 Bank 1 001 @ 00000200 v 0000 01 + 08 00 | do business with a bank\n",
    "adj": (
        "00000100 00 a 01 galore(ip) 0 000 | in great numbers\n"
        "00000200 00 s 02 former(a) 0 alone(p) 0 000 | belonging to the past\n"
    ),
    "adv": "00000100 02 r 02 alone 0 galore 0 000 | without anybody else\n",
}


def write_dict(folder: Path, **changes: str) -> Path:
    folder.mkdir()
    for name, lines in (LINES | changes).items():
        (folder / f"data.{name}").write_text(LICENCE + lines)
    return folder


def test_the_parser_reads_lemmas_and_glosses(tmp_path):
    wordnet = module.parse_wordnet(write_dict(tmp_path / "dict"))
    assert wordnet.glosses["n00000100"] == 'sloping land; "on the bank"'
    assert wordnet.glosses["n00000300"] == "a letter; one | of many"
    assert list(wordnet.glosses) == [
        "n00000100", "n00000200", "n00000300", "v00000100", "a00000100", "a00000200", "r00000100",
    ]  # fmt: skip
    assert wordnet.senses["bank"] == ["n00000100", "v00000100"]
    assert wordnet.senses["river bank"] == ["n00000100"]
    assert wordnet.senses["ddc"] == ["n00000200"], "one synset, spelled twice, is one sense"
    assert wordnet.senses["alone"] == ["a00000200", "r00000100"]
    assert wordnet.senses["galore"] == ["a00000100", "r00000100"]
    assert wordnet.senses["former"] == ["a00000200"]
    assert wordnet.senses["j"] == ["n00000300"], "the number of words is hexadecimal"
    assert list(wordnet.senses) == sorted(wordnet.senses)


@pytest.mark.parametrize(
    "line",
    [
        "00000100 17 n 02 bank 0 | two words promised\n",
        "00000100 17 n 01 bank 0 000\n",
        "00000100 17 n 01 bank 0 000 |  \n",
        "100 17 n 01 bank 0 000 | short offset\n",
        "\n",
    ],
)
def test_a_line_out_of_format_is_refused_by_number(tmp_path, line):
    folder = write_dict(tmp_path / "dict", verb=LINES["verb"] + line)
    with pytest.raises(ValueError, match=r"data\.verb, line 3"):
        module.parse_wordnet(folder)


def test_a_missing_file_is_refused(tmp_path):
    folder = write_dict(tmp_path / "dict")
    (folder / "data.adv").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.adv"):
        module.parse_wordnet(folder)


@pytest.mark.parametrize("lemma", ["bank", "river bank", "dog", "run", "a", "b", "c", "d"])
def test_the_split_follows_the_hash_of_the_lemma(lemma):
    rule = ["reserved", "test", "validation"] + ["train"] * 17
    assert module.split_of(lemma) == rule[int(hashlib.sha1(lemma.encode()).hexdigest(), 16) % 20]


def test_queries_have_two_to_eight_senses_and_none_is_reserved():
    senses = {f"w{number}": ["x"] * (1 + number % 9) for number in range(900)}
    chosen = module.query_lemmas(module.WordNet({}, senses))
    for split, lemmas in chosen.items():
        assert lemmas
        assert {module.split_of(lemma) for lemma in lemmas} == {split}
        assert {len(senses[lemma]) for lemma in lemmas} == set(range(2, 9))
    reserved = [w for w in senses if module.split_of(w) == "reserved" and len(senses[w]) in range(2, 9)]
    assert reserved
    assert sum(map(len, chosen.values())) + len(reserved) == 700


def test_the_extract_holds_all_but_the_reserved_lemmas(tmp_path):
    names = [f"w{number}" for number in range(60)]
    words = " ".join(f"{name} 0" for name in names)
    folder = write_dict(tmp_path / "dict", noun=f"00000100 00 n 3c {words} 000 | a thing\n")
    module.write_extract(folder, tmp_path / "extract")
    whole, packed = module.parse_wordnet(folder), module.read_extract(tmp_path / "extract")
    assert packed.glosses == whole.glosses
    assert set(whole.senses) - set(packed.senses) == {w for w in whole.senses if module.split_of(w) == "reserved"}
    assert set(whole.senses) != set(packed.senses)
    assert all(packed.senses[lemma] == whole.senses[lemma] for lemma in packed.senses)


SMALL = {"num_train": 6, "num_validation": 0, "num_test": 4, "corpus_size": 60}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*.*")
        if file.is_file() and file.suffix != ".WordNet"
    }


@pytest.fixture(scope="module")
def wordnet() -> module.WordNet:
    return module.read_extract()


@pytest.fixture
def read_once(monkeypatch, wordnet):
    monkeypatch.setattr(module, "read_extract", lambda: wordnet)


def test_the_packaged_extract_is_all_of_wordnet(wordnet):
    assert len(wordnet.glosses) == 117_659
    assert {split: len(lemmas) for split, lemmas in module.query_lemmas(wordnet).items()} == {
        "train": 21_973,
        "validation": 1_280,
        "test": 1_225,
    }
    assert "reserved" not in {module.split_of(lemma) for lemma in wordnet.senses}
    assert wordnet.glosses["n09213565"].startswith("sloping land")
    assert "n09213565" in wordnet.senses["bank"]
    assert "Princeton University" in (module.EXTRACT / "LICENSE.WordNet").read_text()


@pytest.mark.usefixtures("read_once")
def test_a_small_dataset_has_its_targets_in_the_corpus(tmp_path, wordnet):
    build_wordnet(tmp_path / "out", **SMALL)
    splits = load_dataset_dir(tmp_path / "out" / "dataset")
    assert {name: len(split) for name, split in splits.items()} == {"train": 6, "test": 4}
    documents = pq.read_table(tmp_path / "out" / "documents.parquet")
    assert documents.column_names == ["id", "title", "text"]
    assert len(documents) == 60
    corpus = dict(zip(documents["id"].to_pylist(), documents["text"].to_pylist(), strict=True))
    assert all(wordnet.glosses[synset] == text for synset, text in corpus.items())
    for name, split in splits.items():
        assert split.query_ids == split.queries
        assert {module.split_of(lemma) for lemma in split.queries} == {name}
        for lemma, targets in zip(split.queries, split.targets, strict=True):
            assert targets == [[synset] for synset in wordnet.senses[lemma]]
            assert all(synset in corpus for (synset,) in targets)
    info = read_json(tmp_path / "out" / "dataset" / "dataset.json")
    assert (info["source"], info["licence"]) == ("WordNet 3.0", "WordNet License")
    assert info["corpus"]["documents"] == 60


@pytest.mark.usefixtures("read_once")
def test_the_seed_decides_every_byte(tmp_path):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        build_wordnet(tmp_path / name, **SMALL, seed=seed)
    first, again, other = (files(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert all(first[name] != other[name] for name in first)


@pytest.mark.usefixtures("read_once")
def test_lemmas_of_one_sense_alone(tmp_path, wordnet):
    build_wordnet(tmp_path / "out", **SMALL, min_senses=1, max_senses=1)
    for split in load_dataset_dir(tmp_path / "out" / "dataset").values():
        assert [[wordnet.senses[lemma]] for lemma in split.queries] == split.targets
        assert {len(targets) for targets in split.targets} == {1}


@pytest.mark.usefixtures("read_once")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_senses": 0}, "1 <= min <= max"),
        ({"min_senses": 3, "max_senses": 2}, "min_senses is 3 and max_senses 2"),
        ({"corpus_size": 11}, r"corpus_size is 11, but the queries have \d+ targets"),
        ({"corpus_size": 117_660}, "117659 glosses"),
        ({"num_test": 1_226}, "num_test is 1226.*1225"),
        ({"num_train": -1}, "num_train is -1"),
        ({"num_train": 0, "num_test": 0}, "at least one"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        build_wordnet(tmp_path / "out", **{**SMALL, **changes})
    assert list(tmp_path.iterdir()) == []


@needs_dict
def test_the_dict_folder_gives_the_counts_and_the_dataset_of_the_extract(tmp_path, monkeypatch, wordnet, read_once):
    whole = module.parse_wordnet(DICT)
    assert len(whole.glosses) == 117_659
    # 25,829 when a synset that spells its lemma twice ("DDC", "ddC") counts twice; WordNet's own index has 25,827.
    assert sum(2 <= len(senses) <= 8 for senses in whole.senses.values()) == 25_827
    assert whole.glosses == wordnet.glosses
    monkeypatch.setattr(module, "parse_wordnet", {DICT: whole}.get)
    build_wordnet(tmp_path / "packaged", **SMALL)
    build_wordnet(tmp_path / "parsed", source=DICT, **SMALL)
    assert files(tmp_path / "packaged") == files(tmp_path / "parsed")
    assert module.query_lemmas(whole) == module.query_lemmas(wordnet)


def test_the_licence_is_with_every_copy(tmp_path):
    build_wordnet(tmp_path / "senses", num_train=5, num_validation=1, num_test=1, corpus_size=100)
    for folder in (tmp_path / "senses", tmp_path / "senses" / "dataset"):
        assert "WordNet" in (folder / "LICENSE.WordNet").read_text()
