"""The loopback Hub answers the real clients as the Hub does: each test drives them in processes of their own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.hub.conftest import LoopbackHub
from tests.hub.messages import Request, Response

PRELUDE = """
import json, sys
from huggingface_hub import HfApi

api = HfApi()

def say(*values):
    print(json.dumps(values if len(values) != 1 else values[0]))

def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        return [type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)]
"""
WEIGHTS = bytes(range(256)) * 40
FILES = {"config.json": b'{"a": 1}\n', "sub/notes.txt": "naïve\n".encode(), "model.safetensors": WEIGHTS}
PUSH = 'api.upload_folder(repo_id="org/x", folder_path=sys.argv[1])'


def ask(hub: LoopbackHub, code: str, *args: object, **env: object) -> Any:
    """Run client code that ends in `say(...)`; what it said last."""
    lines = hub.run(PRELUDE + dedent(code), *args, **env).stdout.splitlines()
    return json.loads(lines[-1]) if lines else None


def write(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def pushed(hub: LoopbackHub, repo_id: str = "org/x", **where: str) -> dict[str, bytes]:
    """The files of a repository without the one that the Hub puts there itself."""
    return {path: content for path, content in hub.files(repo_id, **where).items() if path != ".gitattributes"}


def sent(hub: LoopbackHub, method: str) -> list[str]:
    return [path for each, path in hub.requests if each == method]


# --- The client's process ------------------------------------------------------------------------------------------


def test_a_client_cannot_import_the_project(hub):
    names = "amer", "hub_cards", "modeling_amer", "trainer"
    code = (
        "import sys; from importlib.util import find_spec; print([name for name in sys.argv[1:] if find_spec(name)])"
    )
    assert hub.run(code, *names).stdout == "[]\n"
    assert "modeling_amer" in hub.run(code, *names, project=True).stdout


def test_a_client_that_fails_fails_the_test_with_what_it_printed(hub):
    with pytest.raises(AssertionError, match="KeyError: 'a reason'"):
        hub.run("raise KeyError('a reason')")
    assert hub.run("raise SystemExit(3)", check=False).returncode == 3


def test_a_client_sees_no_other_hub_in_its_environment(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", "/elsewhere")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("https_proxy", "http://elsewhere")
    names = "HF_HUB_CACHE", "HF_HUB_OFFLINE", "https_proxy", "HF_TOKEN", "HF_ENDPOINT", "ADDED"
    code = "import os, sys; print([os.environ.get(name) for name in sys.argv[1:]])"
    output = hub.run(code, *names, HF_TOKEN=None, ADDED=1).stdout
    assert output == f"[None, '0', None, None, {hub.url!r}, '1']\n"


def test_an_endpoint_that_is_not_emulated_is_an_error(hub):
    assert ask(hub, "say(refused(lambda: list(api.list_models())))") == ["HfHubHTTPError", 501]


# --- Repositories and access ---------------------------------------------------------------------------------------


def test_a_repository_stays_as_private_as_it_was_made(hub):
    first, again, kept, url = ask(
        hub,
        """
        first = refused(api.create_repo, "org/x", private=True)
        again = refused(api.create_repo, "org/x")
        url = api.create_repo("org/x", private=False, exist_ok=True)
        say(first, again, api.model_info("org/x").private, url.repo_id)
        """,
    )
    assert (first, again, kept, url) == (None, ["HfHubHTTPError", 409], True, "org/x")
    assert hub.repo("org/x").private


def test_a_private_repository_looks_missing_to_others(hub):
    hub.seed("org/x", FILES, private=True)
    code = 'say(refused(api.model_info, "org/x"), refused(api.snapshot_download, "org/x"))'
    assert ask(hub, code, HF_TOKEN=None) == [["RepositoryNotFoundError", 401]] * 2
    assert ask(hub, code, HF_TOKEN="hf_stranger") == [["RepositoryNotFoundError", 404]] * 2
    assert ask(hub, code, HF_TOKEN="hf_read") == [None, None]


def test_a_gated_repository_shows_itself_but_not_its_files(hub):
    hub.seed("meta/base", FILES, gated="manual")
    code = 'say(api.model_info("meta/base").gated, refused(api.hf_hub_download, "meta/base", "config.json"))'
    assert ask(hub, code, HF_TOKEN=None) == ["manual", ["GatedRepoError", 401]]
    assert ask(hub, code, HF_TOKEN="hf_stranger") == ["manual", ["GatedRepoError", 403]]
    assert ask(hub, code) == ["manual", None]


def test_settings_change(hub):
    hub.seed("org/x", FILES)
    ask(hub, 'api.update_repo_settings("org/x", private=True, gated="auto")')
    assert (hub.repo("org/x").private, hub.repo("org/x").gated) == (True, "auto")
    ask(hub, 'api.update_repo_settings("org/x", gated=False)')
    assert (hub.repo("org/x").private, hub.repo("org/x").gated) == (True, False)


def test_a_wrong_token_is_refused_everywhere(hub):
    hub.seed("org/x", FILES)
    code = 'say(*(refused(*call) for call in ([api.whoami], [api.create_repo, "org/y"], [api.model_info, "org/x"])))'
    assert ask(hub, code, HF_TOKEN="hf_wrong") == [["HfHubHTTPError", 401]] * 3
    assert ask(hub, code) == [None, None, None]


def test_only_a_write_token_writes_and_only_in_its_namespaces(hub, tmp_path):
    hub.seed("org/x", {})
    code = f'say(refused(api.create_repo, "org/y"), refused(lambda: {PUSH}))'
    assert ask(hub, code, write(tmp_path), HF_TOKEN="hf_read") == [["HfHubHTTPError", 403]] * 2
    assert ask(hub, 'say(refused(api.create_repo, "others/x"))') == ["HfHubHTTPError", 403]
    assert pushed(hub) == {}


def test_a_deleted_repository_is_gone(hub):
    hub.seed("org/x", FILES)
    code = 'api.delete_repo("org/x"); say(refused(api.delete_repo, "org/x"), api.repo_exists("org/x"))'
    assert ask(hub, code) == [["RepositoryNotFoundError", 404], False]


# --- Commits -------------------------------------------------------------------------------------------------------


def test_a_folder_is_one_commit_and_large_files_go_to_storage(hub, tmp_path):
    commit = ask(hub, f'api.create_repo("org/x"); say({PUSH}.oid)', write(tmp_path))
    assert pushed(hub) == FILES
    assert hub.repo("org/x").branches == {"main": commit}
    assert len(hub.repo("org/x").commits) == 2
    assert {path for path, blob in hub.repo("org/x").resolve("main").files.items() if blob.lfs} == {
        "model.safetensors"
    }
    assert len(sent(hub, "PUT")) == 1


def test_what_the_hub_holds_is_not_sent_again(hub, tmp_path):
    hub.seed("org/x", FILES)
    config = {"config.json": b"{}"}
    ask(hub, PUSH, write(tmp_path, {**FILES, **config}))
    assert pushed(hub) == {**FILES, **config}
    assert sent(hub, "PUT") == []
    head = hub.repo("org/x").branches["main"]
    ask(hub, PUSH, tmp_path)
    assert hub.repo("org/x").branches["main"] == head


def test_an_object_sent_before_but_never_committed_is_not_sent_again(hub, tmp_path):
    hub.seed("org/x", {})
    hub.die_before("POST", "/commit/")
    assert hub.run(PRELUDE + PUSH, write(tmp_path), check=False).returncode == -9
    ask(hub, PUSH, tmp_path)
    assert pushed(hub) == FILES
    assert len(sent(hub, "PUT")) == 1


def test_branches_and_tags_are_their_own_trees(hub, tmp_path):
    first = hub.seed("org/x", {"config.json": b"old"})
    answers = ask(
        hub,
        """
        api.create_tag("org/x", tag="v1")
        api.create_branch("org/x", branch="feature/a")
        api.upload_folder(repo_id="org/x", folder_path=sys.argv[1], revision="feature/a")
        refs = api.list_repo_refs("org/x")
        say(
            sorted(ref.name for ref in refs.branches),
            {ref.name: ref.target_commit for ref in refs.tags},
            open(api.hf_hub_download("org/x", "config.json", revision="v1")).read(),
            open(api.hf_hub_download("org/x", "config.json", revision="feature/a")).read(),
            api.create_tag("org/x", tag="v1", exist_ok=True),
            refused(api.create_tag, "org/x", tag="v1"),
            refused(api.create_branch, "org/x", branch="feature/a"),
            refused(api.upload_folder, repo_id="org/x", folder_path=sys.argv[1], revision="missing"),
            refused(api.upload_folder, repo_id="org/x", folder_path=sys.argv[1], revision="v1"),
        )
        """,
        write(tmp_path),
    )
    assert answers[:5] == [["feature/a", "main"], {"v1": first}, "old", FILES["config.json"].decode(), None]
    assert answers[5:] == [["HfHubHTTPError", 409]] * 2 + [["RevisionNotFoundError", 404]] * 2
    assert pushed(hub) == {"config.json": b"old"}
    assert pushed(hub, revision="feature/a") == FILES
    ask(hub, 'api.delete_branch("org/x", branch="feature/a"); api.delete_tag("org/x", tag="v1")')
    assert (hub.repo("org/x").branches, hub.repo("org/x").tags) == ({"main": first}, {})


def test_files_and_folders_are_deleted(hub, tmp_path):
    hub.seed("org/x", {**FILES, "old/a": b"a", "old/b": b"b"})
    answers = ask(
        hub,
        """
        api.delete_file("config.json", "org/x")
        api.delete_folder("old", "org/x")
        say(refused(api.delete_file, "config.json", "org/x"), refused(api.delete_folder, "old", "org/x"))
        """,
    )
    assert answers == [["RemoteEntryNotFoundError", 404]] * 2
    assert pushed(hub).keys() == FILES.keys() - {"config.json"}
    code = 'api.upload_folder(repo_id="org/x", folder_path=sys.argv[1], delete_patterns="*")'
    ask(hub, code, write(tmp_path, {"new.txt": b"new"}))
    assert hub.files("org/x").keys() == {".gitattributes", "new.txt"}


def test_a_commit_on_a_stale_parent_is_refused(hub, tmp_path):
    old = hub.seed("org/x", FILES)
    hub.before("POST", "/commit/", lambda request: hub.seed("org/x", {"config.json": b"newer"}))
    code = 'say(refused(api.upload_folder, repo_id="org/x", folder_path=sys.argv[1], parent_commit=sys.argv[2]))'
    assert ask(hub, code, write(tmp_path, {"config.json": b"mine"}), old) == ["HfHubHTTPError", 412]
    assert pushed(hub) == {**FILES, "config.json": b"newer"}


def test_a_commit_whose_object_is_missing_leaves_the_old_tree(hub, tmp_path):
    head = hub.seed("org/x", {"config.json": b"old", "gone.txt": b"old"})
    hub.before("PUT", "/storage/", lambda request: Response(content={}))
    code = """
        push = lambda: api.upload_folder(repo_id="org/x", folder_path=sys.argv[1], delete_patterns="gone.txt")
        say(refused(push))
    """
    assert ask(hub, code, write(tmp_path)) == ["BadRequestError", 400]
    assert "/api/models/org/x/commit/main" in sent(hub, "POST")
    assert pushed(hub) == {"config.json": b"old", "gone.txt": b"old"}
    assert list(hub.repo("org/x").commits)[-1] == head


def test_content_that_is_not_what_was_announced_is_refused(hub, tmp_path):
    hub.seed("org/x", {})
    weights = write(tmp_path) / "model.safetensors"
    other = bytes(len(WEIGHTS))
    hub.before("POST", "/lfs/", lambda request: weights.write_bytes(other))
    assert hub.run(PRELUDE + PUSH, tmp_path, check=False).stderr.count("The content has sha256")
    assert len(sent(hub, "PUT")) == 1
    assert sent(hub, "POST")[-1].endswith("/lfs/objects/batch")
    assert pushed(hub) == {}
    ask(hub, PUSH, write(tmp_path))
    assert pushed(hub) == FILES


def test_a_pull_request_leaves_main_alone(hub, tmp_path):
    head = hub.seed("org/x", {})
    answers = ask(
        hub,
        """
        commit = api.upload_folder(repo_id="org/x", folder_path=sys.argv[1], create_pr=True)
        refs = api.list_repo_refs("org/x", include_pull_requests=True)
        say(commit.pr_revision, [ref.name for ref in refs.pull_requests])
        """,
        write(tmp_path),
    )
    assert answers == ["refs/pr/1", ["refs/pr/1"]]
    assert hub.repo("org/x").branches == {"main": head}
    assert pushed(hub, revision="refs/pr/1") == FILES


@pytest.mark.parametrize("metadata", ["tags: [a", "tags: a", "just words"], ids=["no YAML", "no list", "no mapping"])
def test_a_card_with_wrong_metadata_stops_the_push_at_once(hub, tmp_path, metadata):
    hub.seed("org/x", {})
    write(tmp_path, {**FILES, "README.md": f"---\n{metadata}\n---\ntext".encode()})
    assert ask(hub, f"say(refused(lambda: {PUSH}))", tmp_path) == ["ValueError", None]
    assert set(sent(hub, "POST")) == {"/api/validate-yaml"}
    assert pushed(hub) == {}


# --- Reading -------------------------------------------------------------------------------------------------------


def test_lists_tell_what_a_repository_holds(hub):
    seeded = hub.seed("org/x", {**FILES, "README.md": b"---\nlicense: mit\ntags: [a]\n---\ntext"})
    answers = ask(
        hub,
        """
        info = api.model_info("org/x", files_metadata=True)
        tree = {entry.path: getattr(entry, "size", None) for entry in api.list_repo_tree("org/x", recursive=True)}
        paths = {entry.path: entry for entry in api.get_paths_info("org/x", ["model.safetensors", "sub", "no"])}
        say(
            info.sha, info.card_data.license, info.card_data.tags, tree, sorted(paths),
            paths["model.safetensors"].lfs.size,
            [entry.path for entry in api.list_repo_tree("org/x", "sub")],
            sorted(api.list_repo_files("org/x")),
            [commit.title for commit in api.list_repo_commits("org/x")],
            {sibling.rfilename: sibling.size for sibling in info.siblings},
            [api.file_exists("org/x", "config.json"), api.file_exists("org/x", "no"), api.repo_exists("org/no")],
            [api.revision_exists("org/x", "main"), api.revision_exists("org/x", "no")],
            refused(lambda: list(api.list_repo_tree("org/x", "no"))),
        )
        """,
    )
    sizes = {path: len(content) for path, content in hub.files("org/x").items()}
    assert answers[:6] == [seeded, "mit", ["a"], {**sizes, "sub": None}, ["model.safetensors", "sub"], len(WEIGHTS)]
    assert answers[6:10] == [["sub/notes.txt"], sorted(sizes), ["seed", "initial commit"], sizes]
    assert answers[10:] == [[True, False, False], [True, False], ["RemoteEntryNotFoundError", 404]]


SNAPSHOT = """
    from pathlib import Path
    folder = Path(api.snapshot_download("org/x", revision=sys.argv[1]))
    files = {str(path.relative_to(folder)): path.read_bytes().hex() for path in folder.rglob("*") if path.is_file()}
    say(files)
"""


def test_a_download_serves_again_without_the_hub(hub):
    commit = hub.seed("org/x", FILES)
    files = {path: content.hex() for path, content in hub.files("org/x").items()}
    assert ask(hub, SNAPSHOT, "main") == files
    asked = len(hub.requests)
    assert ask(hub, SNAPSHOT, "main", HF_HUB_OFFLINE=1) == files
    assert len(hub.requests) == asked
    hub.stop()
    assert ask(hub, SNAPSHOT, "main") == files
    assert ask(hub, SNAPSHOT, commit) == files
    cold = hub.run(PRELUDE + dedent(SNAPSHOT), "main", check=False, HF_HOME=hub.env["HF_HOME"] + "-cold")
    assert "LocalEntryNotFoundError" in cold.stderr


def test_a_pinned_commit_holds_while_main_moves(hub):
    pin = hub.seed("org/x", FILES)
    hub.seed("org/x", {"config.json": b"moved"})
    assert ask(hub, SNAPSHOT, pin)["config.json"] == FILES["config.json"].hex()
    assert ask(hub, SNAPSHOT, "main")["config.json"] == b"moved".hex()


def test_storage_never_sees_the_token(hub):
    hub.seed("org/x", FILES, private=True)
    tokens: list[str | None] = []
    hub.before("GET", "/storage/", lambda request: tokens.append(request.token))
    ask(hub, SNAPSHOT, "main")
    assert tokens == [None]


def test_part_of_a_file_can_be_read(hub):
    hub.seed("org/x", FILES)
    answers = ask(
        hub,
        """
        from huggingface_hub import HfFileSystem
        files = HfFileSystem()
        parts = [files.cat_file("org/x/model.safetensors", 300, 310), files.cat_file("org/x/config.json", 2)]
        say(*(part.hex() for part in parts))
        """,
    )
    assert answers == [WEIGHTS[300:310].hex(), FILES["config.json"][2:].hex()]


# --- Faults --------------------------------------------------------------------------------------------------------

STEPS = ["/validate-yaml", "/preupload/", "/lfs/objects/batch", "/storage/", "/commit/"]


@pytest.mark.parametrize("step", STEPS)
def test_a_push_killed_at_any_request_leaves_the_old_tree(hub, tmp_path, step):
    hub.seed("org/x", {"config.json": b"old"})
    hub.die_before("PUT" if step == "/storage/" else "POST", step)
    push = hub.run(PRELUDE + PUSH, write(tmp_path, {**FILES, "README.md": b"text"}), check=False)
    assert push.returncode == -9
    assert step in hub.requests[-1][1]
    assert pushed(hub) == {"config.json": b"old"}


def test_a_push_killed_after_its_commit_leaves_the_new_tree(hub, tmp_path):
    hub.seed("org/x", {"config.json": b"old"})
    hub.die_after("POST", "/commit/")
    assert hub.run(PRELUDE + PUSH, write(tmp_path), check=False).returncode == -9
    assert pushed(hub) == FILES


def test_a_fault_strikes_once_and_delays_are_faults_too(hub, tmp_path):
    hub.seed("org/x", {})

    def wait_and_fail(request: Request) -> Response:
        time.sleep(0.3)
        return Response(503)

    hub.before("PUT", "/storage/", wait_and_fail)
    ask(hub, PUSH, write(tmp_path))
    assert len(sent(hub, "PUT")) == 2
    assert pushed(hub) == FILES


# --- Datasets and Spaces -------------------------------------------------------------------------------------------


def test_a_dataset_is_pushed_downloaded_and_loaded(hub, tmp_path):
    pytest.importorskip("datasets")
    rows = b'{"query": "a"}\n{"query": "b"}\n'
    ask(
        hub,
        """
        api.create_repo("org/x", repo_type="dataset", private=True)
        api.upload_folder(repo_id="org/x", repo_type="dataset", folder_path=sys.argv[1])
        """,
        write(tmp_path, {"train.jsonl": rows, "vectors.npy": WEIGHTS}),
    )
    assert pushed(hub, repo_type="dataset") == {"train.jsonl": rows, "vectors.npy": WEIGHTS}
    code = """
        from pathlib import Path
        from datasets import load_dataset
        folder = Path(api.snapshot_download("org/x", repo_type="dataset"))
        rows = load_dataset("org/x", data_files="train.jsonl")["train"]["query"][:]
        say(refused(api.model_info, "org/x"), rows, (folder / "vectors.npy").read_bytes().hex())
    """
    assert ask(hub, code) == [["RepositoryNotFoundError", 404], ["a", "b"], WEIGHTS.hex()]


METRIC = b"""
import datasets
import evaluate

from .rule import share


class Share(evaluate.Metric):
    def _info(self):
        column = datasets.Value("int64")
        features = datasets.Features({"predictions": column, "references": column})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"share": share(predictions, references)}
"""
RULE = b"def share(a, b):\n    return sum(x == y for x, y in zip(a, b)) / len(a)\n"


def test_a_metric_is_pushed_to_a_space_and_loaded_by_evaluate(hub, tmp_path):
    pytest.importorskip("evaluate")
    ask(
        hub,
        """
        api.create_repo("org/share", repo_type="space", space_sdk="static")
        api.upload_folder(repo_id="org/share", repo_type="space", folder_path=sys.argv[1])
        """,
        write(tmp_path, {"share.py": METRIC, "rule.py": RULE}),
    )
    assert hub.files("org/share", repo_type="space").keys() == {".gitattributes", "README.md", "rule.py", "share.py"}
    assert hub.repo("org/share", "space").sdk == "static"
    code = """
        sys.modules["transformers"] = None  # evaluate does without it, and is imported much faster
        import evaluate
        del sys.modules["transformers"]
        metric = evaluate.load("org/share")
        say(metric.compute(predictions=[1, 2], references=[1, 3]), api.space_info("org/share").sdk)
    """
    assert ask(hub, code) == [{"share": 0.5}, "static"]
