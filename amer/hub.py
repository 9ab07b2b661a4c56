"""Push folders to the Hugging Face Hub atomically, and pull them by name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

CARD = "README.md"
HIDDEN = (".*", "*/.*")  # includes the temporaries of amer.files
RESULTS = ".eval_results/*.yaml"  # hidden, but defined by the Hub
LEFTOVERS = ("checkpoint-*", "*/checkpoint-*", "*__pycache__*")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")


def files_to_push(folder: str | os.PathLike[str], card: str | None = None) -> dict[str, int]:
    """List the files that `push_folder` would push. Does not use the network.

    Skips hidden files (except `.eval_results`), checkpoints and pickles. Does not check the contents: use
    `amer.data.verify_folder` first, to verify a dataset directory or a document store.

    Args:
        folder: The folder to push.
        card: Text of README.md, instead of the one in `folder`.

    Returns:
        Maps the path of every file in the repository to its size in bytes.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: There is nothing to push.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the folder to push")
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = filter_repo_objects(paths, ignore_patterns=[*HIDDEN, *LEFTOVERS, *PICKLES])
    results = filter_repo_objects(paths, allow_patterns=[RESULTS], ignore_patterns=["*/.*"])
    files = {path: (folder / path).stat().st_size for path in (*kept, *results)}
    if not files:
        raise ValueError(f"{folder} holds nothing to push: it has only hidden files, checkpoints and pickles")
    return files if card is None else {**files, CARD: len(card.encode())}


def push_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    repo_type: str = "model",
    *,
    public: bool = False,
    branch: str | None = None,
    tag: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    delete_patterns: Sequence[str] | None = None,
    card: str | None = None,
    space_sdk: str = "gradio",
) -> CommitInfo:
    """Push the files of `files_to_push` in one commit (`modeling_amer.publishing_amer.push_files`).

    Args:
        folder: The folder to push, see `files_to_push`.
        repo_id: `namespace/name`. The repository is created if it does not exist.
        repo_type: "model", "dataset" or "space".
        public: Make a new repository public. The visibility of an existing one does not change.
        branch: Branch of the commit. Created from "main" if missing. Default: "main".
        tag: Tag for the commit. It must not exist yet.
        commit_message: First line of the commit message.
        token: Hub token. Default: the token of your login.
        delete_patterns: Delete the repository's files that match one of these patterns and are not pushed again, in
            the same commit.
        card: Text of README.md, instead of the one in `folder`.
        space_sdk: SDK of a new Space: "gradio", "docker" or "static".

    Returns:
        The commit, or the branch's last commit if nothing has changed.

    Raises:
        OSError: The folder does not exist, a save into it was interrupted, you are not logged in, or the Hub refuses.
        ValueError: `repo_id` is invalid, the tag exists, or there is nothing to push.
    """
    from modeling_amer.publishing_amer import push_files  # not at the top: it loads torch
    from modeling_amer.staging_amer import PENDING

    if Path(folder, PENDING).exists():
        raise OSError(f"{folder} holds an interrupted save: load the model and save it there again, then push")
    files: dict[str, Path | bytes] = {path: Path(folder, path) for path in files_to_push(folder, card)}
    if card is not None:
        files[CARD] = card.encode()
    check_repo_id(repo_id)
    return push_files(
        files,
        repo_id,
        repo_type=repo_type,
        public=public,
        branch=branch,
        tag=tag,
        replaced=delete_patterns or (),
        commit_message=commit_message or f"Upload {repo_type}",
        token=token,
        space_sdk=space_sdk,
    )


def pull_folder(
    name: str | os.PathLike[str],
    repo_type: str = "dataset",
    revision: str | None = None,
    token: str | None = None,
) -> Path:
    """Return a local folder as it is, or download a snapshot of a Hub repository and return its folder.

    The snapshot is in the Hub's cache, so the same name works offline afterwards.

    Args:
        name: A folder, or `namespace/name` or `namespace/name@revision` on the Hub.
        repo_type: "dataset" (also for a document store), "model" or "space".
        revision: Branch, tag or commit of the repository, if not given in `name`.
        token: Hub token. Default: the token of your login.

    Raises:
        FileNotFoundError: `name` is neither a folder nor a repository that you can read.
        ValueError: A revision is given for a local folder, or two revisions are given.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"{name} is a local folder and has no revision {revision!r}: leave the revision out")
        return folder
    repo_id, at, named = str(name).partition("@")
    if at and revision is not None:
        raise ValueError(f"{name} already names a revision: leave revision={revision!r} out")
    if repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")) or repo_id.endswith("/"):
        raise FileNotFoundError(
            f"{name} is not a local folder: give a folder, or the name of a {repo_type} on the Hub, as org/name"
        )
    try:
        return Path(snapshot_download(repo_id, repo_type=repo_type, revision=named or revision, token=token))
    except (RepositoryNotFoundError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"{name} is neither a local folder nor a {repo_type} on the Hub that you can read: check the name and, if "
            f"it is private, log in with `hf auth login`. ({error})"
        ) from error


def load_datasets(name: str | os.PathLike[str]) -> Any:
    """Load a data set of the `datasets` library, or its splits, from a folder or the Hub.

    Args:
        name: A folder of `save_to_disk`, or a name on the Hub.

    Raises:
        OSError: The data set is missing or damaged. The message names it.
    """
    import datasets

    folder = Path(name).expanduser()
    try:
        return datasets.load_from_disk(str(folder)) if folder.is_dir() else datasets.load_dataset(str(name))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OSError(
            f"{name} is neither a data set saved in a local folder nor one on the Hub that you can read: check the "
            f"name and, if it is private, log in with `hf auth login`. ({error!r})"
        ) from error


def origin(name: str, folder: Path) -> dict[str, str]:
    """Return the origin of a dataset or store for records: its repository and commit, or the name of its folder.

    Args:
        name: The requested name: a folder, `org/name` or `org/name@revision`.
        folder: The folder that `pull_folder` returned.
    """
    if Path(name).is_dir():
        return {"name": Path(name).resolve().name}
    repo_id, _, revision = name.partition("@")
    commit = folder.resolve().name
    known = commit if len(commit) == 40 else revision
    return {"repo_id": repo_id, **({"revision": known} if known else {})}


def public_name(name: str) -> str:
    """Return a name that is safe to publish. Of a local path, this is only the last part."""
    is_path = name.startswith((".", "/", "~", "\\")) or os.path.isdir(name) or re.match(r"[A-Za-z]:[\\/]", name)
    return re.split(r"[\\/]", name.rstrip("\\/"))[-1] if is_path else name


def published_card(
    repo_id: str, repo_type: str = "model", branch: str | None = None, token: str | None = None
) -> str | None:
    """Return the README.md that a push to `branch` would replace, or None if there is none.

    Args:
        repo_id: `namespace/name`. The repository need not exist.
        repo_type: "model", "dataset" or "space".
        branch: Branch of the push. Default: "main".
        token: The token to push with. Other tokens cannot see a private repository.

    Raises:
        OSError: The Hub cannot be reached.
    """
    api = HfApi(token=token)
    try:
        info = api.repo_info(repo_id, repo_type=repo_type, revision=branch)
    except RevisionNotFoundError:  # the branch will start as a copy of main
        info = api.repo_info(repo_id, repo_type=repo_type)
    except RepositoryNotFoundError:
        return None
    if CARD not in (
        file.rfilename for file in getattr(info, "siblings", None) or ()
    ):  # a kernel repository has no siblings
        return None
    file = api.hf_hub_download(repo_id, CARD, repo_type=repo_type, revision=info.sha)
    return Path(file).read_bytes().decode("utf-8")  # keeps the line endings


def check_repo_id(repo_id: str) -> None:
    """Raise ValueError unless the name is a valid `namespace/name` on the Hub."""
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} has no namespace: give namespace/name, as in org/{repo_id}")
