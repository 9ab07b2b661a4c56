"""Dataset directories and document stores on the Hub: pushed whole or not at all, pulled by name."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from amer.corpus import DocumentStore, write_store
from amer.data import build_wordnet, load_dataset_dir, save_dataset_dir
from amer.files import read_json
from amer.hub import files_to_push, pull_folder

PUSH = """
import json, sys
from amer.data import verify_folder
from amer.hub import push_folder
for job in map(json.loads, sys.argv[1:]):
    try:
        verify_folder(job["folder"])
        print(push_folder(**job).oid)
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}".replace("\\n", " "))
"""
SHARDS = ["embeddings-*.npy"]


def push(hub, *jobs, check=True, **env):
    """What each push came to, all from one process: the commit's id, or the error in one line."""
    arguments = [json.dumps({"repo_type": "dataset", **job, "folder": str(job["folder"])}) for job in jobs]
    return hub.run(PUSH, *arguments, project=True, check=check, **env).stdout.splitlines()


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory):
    """Some questions of WordNet with vectors (`dataset/`), and its glosses (`documents.parquet`)."""
    folder = tmp_path_factory.mktemp("wordnet")
    build_wordnet(folder / "built", num_train=8, num_validation=4, num_test=4, corpus_size=60)
    vectors = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    splits = load_dataset_dir(folder / "built" / "dataset")
    with_vectors = {name: split.with_input_vectors(vectors[: len(split)]) for name, split in splits.items()}
    save_dataset_dir(folder / "dataset", with_vectors, read_json(folder / "built" / "dataset" / "dataset.json"))
    (folder / "built" / "documents.parquet").rename(folder / "documents.parquet")
    return folder


@pytest.fixture
def dataset(wordnet, tmp_path):
    return shutil.copytree(wordnet / "dataset", tmp_path / "dataset")


def make_store(path, wordnet, count=10, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents = pq.read_table(wordnet / "documents.parquet").slice(0, count)
    return write_store(path, documents, vectors, {"name": "org/encoder"}, shard_size=4)


@pytest.fixture
def store(wordnet, tmp_path):
    return make_store(tmp_path / "store", wordnet)


@pytest.fixture
def plain(tmp_path):
    """A folder of one small and one large file, where the kind of folder makes no difference."""
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "small.txt").write_text("small")
    (folder / "large.npy").write_bytes(b"large\0")
    return folder


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def on_hub(hub, repo_id, revision="main"):
    """The files of a dataset repository without the Hub's own."""
    files = hub.files(repo_id, revision, repo_type="dataset")
    return {path: content for path, content in files.items() if path != ".gitattributes"}


def commits(hub, repo_id):
    repo = hub.repo(repo_id, "dataset")
    return repo.history(repo.head("main"))


# ----------------------------------------------------------------------------------------------------- there and back


def test_a_dataset_comes_back_by_name_and_then_offline(hub, dataset, tmp_path):
    push(hub, {"folder": dataset, "repo_id": "org/senses"})
    load = """
    import json
    from amer.data import load_dataset_dir
    from amer.hub import pull_folder
    splits = load_dataset_dir(pull_folder("org/senses"))
    rows = {name: [each.queries, each.targets, each.input_vectors.tolist()] for name, each in splits.items()}
    print(json.dumps(rows))
    """
    here = load_dataset_dir(dataset)
    expected = {name: [each.queries, each.targets, each.input_vectors.tolist()] for name, each in here.items()}
    fresh = {"HF_HOME": tmp_path / "fresh"}
    assert json.loads(hub.run(load, project=True, **fresh).stdout) == expected
    hub.stop()
    assert json.loads(hub.run(load, project=True, HF_HUB_OFFLINE=1, **fresh).stdout) == expected


def test_the_datasets_library_reads_a_pushed_dataset(hub, dataset):
    pytest.importorskip("datasets")
    push(hub, {"folder": dataset, "repo_id": "org/senses"})
    load = """
    import json
    from datasets import load_dataset
    splits = load_dataset("org/senses")
    print(json.dumps({name: [split["query"][:], split["targets"][:]] for name, split in splits.items()}))
    """
    expected = {name: [split.queries, split.targets] for name, split in load_dataset_dir(dataset).items()}
    assert json.loads(hub.run(load).stdout) == expected


def test_a_store_comes_back_at_the_revision_asked_for(hub, store, wordnet, tmp_path):
    other = make_store(tmp_path / "other", wordnet, seed=1)
    first, second = push(
        hub,
        {"folder": store.path, "repo_id": "org/store", "tag": "v1"},
        {"folder": other.path, "repo_id": "org/store"},
    )
    load = """
    import sys, numpy as np
    from amer.hub import pull_folder
    from amer.corpus import DocumentStore
    for name, revision, file in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
        store = DocumentStore.open(pull_folder(name, revision=revision or None))
        store.verify()
        np.save(file, store.vectors(range(len(store))))
    print(store.documents([0])[0]["text"])
    """
    asked = {
        ("org/store", ""): other,
        (f"org/store@{second}", ""): other,
        ("org/store@v1", ""): store,
        ("org/store", "v1"): store,
        ("org/store", first): store,
    }
    files = [tmp_path / f"{i}.npy" for i in range(len(asked))]
    arguments = [part for asked_for, file in zip(asked, files, strict=True) for part in (*asked_for, file)]
    assert hub.run(load, *arguments, project=True).stdout.strip() == store.documents([0])[0]["text"]
    for file, expected in zip(files, asked.values(), strict=True):
        assert np.array_equal(np.load(file), expected.vectors(range(10)))


def test_names_that_are_neither_a_folder_nor_on_the_hub_say_so(hub, tmp_path):
    assert pull_folder(tmp_path) == tmp_path
    assert pull_folder(str(tmp_path)) == tmp_path
    with pytest.raises(ValueError, match="has no revision 'v1'"):
        pull_folder(tmp_path, revision="v1")
    with pytest.raises(ValueError, match="already names a revision"):
        pull_folder("org/store@v1", revision="v2")
    for name in ("store", "./store", "/nowhere/store", "~/nowhere", "outputs/quickstart/store", "outputs/"):
        with pytest.raises(FileNotFoundError, match="not a local folder: give a folder, or the name of a dataset"):
            pull_folder(name)
    ask = "from amer.hub import pull_folder; pull_folder('outputs/store')"
    for options in ({}, {"HF_HUB_OFFLINE": 1}):
        error = hub.run(ask, check=False, project=True, **options).stderr
        assert "FileNotFoundError: outputs/store is neither a local folder nor a dataset on the Hub" in error


# ----------------------------------------------------------------------------------------------- what is not published


def test_a_damaged_store_or_dataset_is_refused_before_any_request(hub, dataset, wordnet, tmp_path):
    def cut(file):
        file.write_bytes(file.read_bytes()[:-10])

    def change(file):
        file.write_bytes(file.read_bytes()[:-2] + b"\0\0")

    damages = [
        (cut, "embeddings-00001-of-00003.npy"),
        (change, "embeddings-00001-of-00003.npy"),
        (lambda file: file.unlink(), "embeddings-00002-of-00003.npy"),
        (cut, "documents.parquet"),
        (cut, "validation.parquet"),
    ]
    jobs = []
    for i, (damage, name) in enumerate(damages):
        folder = dataset if name == "validation.parquet" else make_store(tmp_path / str(i), wordnet).path
        damage(folder / name)
        jobs.append({"folder": folder, "repo_id": "org/damaged"})
    for (_, name), result in zip(damages, push(hub, *jobs), strict=True):
        assert "Error: " in result and name in result
    assert hub.requests == []


def test_temporaries_checkpoints_and_pickles_stay_here(tmp_path):
    for path in (
        *("a.json", "deep/b.txt", ".hidden", ".git/config", "deep/.uuid.b.txt", "checkpoint-5/model.safetensors"),
        *("training_args.bin", "deep/weights.pt", "w.pth", "x.pkl", "__pycache__/a.pyc", "deep/checkpoint-7/x.json"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("12345")
    assert files_to_push(tmp_path) == {"a.json": 5, "deep/b.txt": 5}
    assert files_to_push(tmp_path, card="Käse") == {"a.json": 5, "deep/b.txt": 5, "README.md": 5}


def test_a_folder_that_is_not_there_or_holds_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        files_to_push(tmp_path / "nowhere")
    (tmp_path / "weights.bin").touch()
    with pytest.raises(ValueError, match="nothing to push"):
        files_to_push(tmp_path)


def test_nobody_logged_in_and_bad_names_are_refused_before_any_request(hub, plain):
    (nobody,) = push(hub, {"folder": plain, "repo_id": "org/plain"}, HF_TOKEN=None)
    assert nobody.startswith("LocalTokenNotFoundError: ") and "hf auth login" in nobody
    bare, deep, revision = push(
        hub, *({"folder": plain, "repo_id": name} for name in ("plain", "org/a/b", "org/a@v1"))
    )
    assert bare.startswith("ValueError: 'plain' has no namespace: give namespace/name")
    assert deep.startswith("HFValidationError: ") and revision.startswith("HFValidationError: ")
    assert hub.requests == []


# --------------------------------------------------------------------------------------------------- one whole commit


@pytest.mark.parametrize(
    ("method", "pattern", "after"),
    [("POST", "info/lfs/objects/batch", True), ("PUT", "", True), ("POST", "/commit/", False)],
    ids=["before the uploads", "after an upload", "before the commit"],
)
def test_a_killed_push_leaves_the_old_commit_and_the_next_one_is_whole(hub, plain, method, pattern, after):
    push(hub, {"folder": plain, "repo_id": "org/plain"})
    old = files_of(plain)
    (plain / "small.txt").write_text("changed")
    (plain / "large.npy").rename(plain / "new.npy")
    (plain / "new.npy").write_bytes(b"new\0")
    again = {"folder": plain, "repo_id": "org/plain", "delete_patterns": ["*.npy"]}
    (hub.die_after if after else hub.die_before)(method, pattern)
    assert push(hub, again, check=False) == []
    assert on_hub(hub, "org/plain") == old
    push(hub, again)
    assert on_hub(hub, "org/plain") == files_of(plain)


def test_stale_shards_are_gone_after_a_push_of_a_smaller_store_and_other_files_stay(hub, store, wordnet, tmp_path):
    smaller = make_store(tmp_path / "smaller", wordnet, count=5)
    push(hub, {"folder": store.path, "repo_id": "org/store", "card": "# Written by hand\n"})
    hub.seed("org/store", {"notes.txt": b"mine"}, repo_type="dataset", private=True)
    push(hub, {"folder": smaller.path, "repo_id": "org/store", "delete_patterns": [*SHARDS, ".*"]})
    assert len(commits(hub, "org/store")) == 4  # the Hub's own, three pushes
    assert ".gitattributes" in hub.files("org/store", repo_type="dataset")
    left = on_hub(hub, "org/store")
    assert left.pop("README.md") == b"# Written by hand\n" and left.pop("notes.txt") == b"mine"
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    for path, content in left.items():
        (pulled / path).write_bytes(content)
    assert files_of(pulled) == files_of(smaller.path)
    DocumentStore.open(pulled).verify()


def test_a_large_folder_is_one_commit_with_xet_too(hub, tmp_path):
    """`HfApi.upload_folder` would cut it: 250 files a commit, and fewer after a failure."""
    for i in range(300):
        (tmp_path / f"{i}.txt").write_text(str(i))
    push(hub, {"folder": tmp_path, "repo_id": "org/many"}, HF_HUB_DISABLE_XET=0)
    assert len(commits(hub, "org/many")) == 2
    assert len(on_hub(hub, "org/many")) == 300


def test_a_second_push_sends_what_has_changed_only(hub, plain):
    job = {"folder": plain, "repo_id": "org/plain", "delete_patterns": ["*.npy", "*.txt"]}
    (first,) = push(hub, job)
    hub.requests.clear()
    assert push(hub, {**job, "tag": "v1"}) == [first]
    assert not [path for method, path in hub.requests if method == "PUT" or "/commit/" in path]
    assert hub.repo("org/plain", "dataset").tags == {"v1": first}
    (plain / "more.npy").write_bytes(b"more\0")
    hub.requests.clear()
    push(hub, job)
    assert len([path for method, path in hub.requests if method == "PUT"]) == 1


def test_a_push_beside_another_one_is_refused(hub, plain):
    push(hub, {"folder": plain, "repo_id": "org/plain"})
    before = files_of(plain)
    (plain / "small.txt").write_text("changed")

    def another(request):
        hub.seed("org/plain", {"other.txt": b"other"}, repo_type="dataset", private=True)

    hub.before("POST", "/commit/", another)
    (result,) = push(hub, {"folder": plain, "repo_id": "org/plain"})
    assert "Error: " in result and "412" in result
    assert on_hub(hub, "org/plain") == {**before, "other.txt": b"other"}


# --------------------------------------------------------------------------------------- visibility, branches and tags


def test_a_new_repository_is_private_and_an_old_one_stays_as_visible_as_it_is(hub, plain):
    jobs = [("org/a", False), ("org/a", True), ("org/b", True), ("org/b", False)]
    push(hub, {"folder": plain, "repo_id": "org/default"})
    push(hub, *({"folder": plain, "repo_id": name, "public": public} for name, public in jobs))
    assert hub.repo("org/default", "dataset").private
    assert hub.repo("org/a", "dataset").private and not hub.repo("org/b", "dataset").private


def test_a_branch_is_created_and_main_stays(hub, plain):
    main = hub.seed("org/plain", {"README.md": b"# Mine\n"}, repo_type="dataset")
    job = {"folder": plain, "repo_id": "org/plain", "branch": "dev", "tag": "v1", "commit_message": "A new reading"}
    (new,) = push(hub, job)
    repo = hub.repo("org/plain", "dataset")
    assert repo.branches == {"main": main, "dev": new} and repo.tags == {"v1": new}
    assert repo.head("dev").title == "A new reading"
    assert on_hub(hub, "org/plain", "dev") == {**files_of(plain), "README.md": b"# Mine\n"}


def test_a_tag_that_exists_is_refused_before_anything_is_sent(hub, plain):
    (first,) = push(hub, {"folder": plain, "repo_id": "org/plain", "tag": "v1"})
    (plain / "small.txt").write_text("changed")
    hub.requests.clear()
    (result,) = push(hub, {"folder": plain, "repo_id": "org/plain", "branch": "dev", "tag": "v1"})
    assert result.startswith("ValueError: org/plain has a tag 'v1' already")
    repo = hub.repo("org/plain", "dataset")
    assert repo.tags == {"v1": first} and list(repo.branches) == ["main"]
    assert not [path for _, path in hub.requests if "preupload" in path or "/commit/" in path]
