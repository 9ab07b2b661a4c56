"""Folders on the Hugging Face Hub: pushed whole or not at all, and pulled by name."""

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
HIDDEN = (".*", "*/.*")  # the temporaries of amer.files among them
RESULTS = ".eval_results/*.yaml"  # hidden, but the Hub's own form
LEFTOVERS = ("checkpoint-*", "*/checkpoint-*", "*__pycache__*")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")


def files_to_push(folder: str | os.PathLike[str], card: str | None = None) -> dict[str, int]:
    """What `push_folder` would push; asks no network.

    Hidden files but `.eval_results`, checkpoints and pickles stay out. Files are taken as they are:
    `amer.data.verify_folder` reads a dataset directory or a document store whole, so that a damaged one is never
    published.

    Args:
        folder: what to push.
        card: the text of its README.md, in place of the one in `folder`.

    Returns:
        The path of every file in the repository and its size in bytes.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: nothing to push.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the one to push")
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = filter_repo_objects(paths, ignore_patterns=[*HIDDEN, *LEFTOVERS, *PICKLES])
    results = filter_repo_objects(paths, allow_patterns=[RESULTS], ignore_patterns=["*/.*"])
    files = {path: (folder / path).stat().st_size for path in (*kept, *results)}
    if not files:
        raise ValueError(f"{folder} holds nothing to push: no file but hidden ones, checkpoints and pickles")
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
    """Push a folder in one commit (`modeling_amer.publishing_amer.push_files`), after the check of `files_to_push`.

    Args:
        folder: what to push, see `files_to_push`.
        repo_id: `namespace/name`; the repository is created when there is none.
        repo_type: "model", "dataset", or "space".
        public: of a repository that is created here: for everybody to see; one that exists stays as visible as it is.
        branch: where the commit goes; created from "main" when missing. "main" by default.
        tag: put on the commit; must be new.
        commit_message: first line of the commit.
        token: of the Hub; the one logged in with by default.
        delete_patterns: files of the repository that match one of them and are not pushed again are deleted in the
            same commit.
        card: the text of README.md, in place of the one in `folder`.
        space_sdk: of a Space that is created here: "gradio", "docker" or "static".

    Returns:
        The commit; the branch's last one when nothing has changed.

    Raises:
        OSError: no such folder, a save into it was cut short, nobody is logged in, or the Hub refuses.
        ValueError: `repo_id` is none, the tag exists, or nothing to push.
    """
    from modeling_amer.publishing_amer import push_files  # here, for they bring torch along
    from modeling_amer.staging_amer import PENDING

    if Path(folder, PENDING).exists():
        raise OSError(f"{folder} holds a save that was cut short: load the model and save it there again, then push")
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
    """The folder of a name: a local one as it is, or a snapshot of a repository of the Hub.

    A snapshot lies in the Hub's cache, so that the same name works offline afterwards.

    Args:
        name: a folder, or `namespace/name` or `namespace/name@revision` on the Hub.
        repo_type: "dataset" (also a document store), "model" or "space".
        revision: branch, tag or commit of the repository, if not given in `name`.
        token: of the Hub; the one logged in with by default.

    Raises:
        FileNotFoundError: neither a folder nor a repository that can be read from here.
        ValueError: a revision of a local folder, or two revisions.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"{name} is a folder here and has no revision {revision!r}: leave the revision out")
        return folder
    repo_id, at, named = str(name).partition("@")
    if at and revision is not None:
        raise ValueError(f"{name} names a revision already: leave revision={revision!r} out")
    if repo_id.count("/") != 1 or repo_id.startswith((".", "/", "~")) or repo_id.endswith("/"):
        raise FileNotFoundError(f"{name} is not a folder here: give one, or the name of a {repo_type}, as org/name")
    try:
        return Path(snapshot_download(repo_id, repo_type=repo_type, revision=named or revision, token=token))
    except (RepositoryNotFoundError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"{name} is neither a folder here nor a {repo_type} on the Hub that can be read from here: check the name "
            f"and, if it is private, log in with `hf auth login`. ({error})"
        ) from error


def load_datasets(name: str | os.PathLike[str]) -> Any:
    """A data set of the `datasets` library, or several by split: saved in a folder, or on the Hub.

    Args:
        name: a folder of `save_to_disk`, or a name on the Hub.

    Raises:
        OSError: it is neither, or damaged; names it.
    """
    import datasets

    folder = Path(name).expanduser()
    try:
        return datasets.load_from_disk(str(folder)) if folder.is_dir() else datasets.load_dataset(str(name))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OSError(
            f"{name} is neither a data set saved in a folder here nor one on the Hub that can be read from here: "
            f"check the name and, if it is private, log in with `hf auth login`. ({error!r})"
        ) from error


def origin(name: str, folder: Path) -> dict[str, str]:
    """What a dataset or store is called in a record: its repository and commit on the Hub, or its folder's name.

    Args:
        name: as it was asked for: a folder, `org/name`, or `org/name@revision`.
        folder: where it was found (`pull_folder`).
    """
    if Path(name).is_dir():
        return {"name": Path(name).resolve().name}
    repo_id, _, revision = name.partition("@")
    commit = folder.resolve().name
    known = commit if len(commit) == 40 else revision
    return {"repo_id": repo_id, **({"revision": known} if known else {})}


def public_name(name: str) -> str:
    """What may be said of a name in public: of a path only its last part, for the rest is about somebody's disk."""
    is_path = name.startswith((".", "/", "~", "\\")) or os.path.isdir(name) or re.match(r"[A-Za-z]:[\\/]", name)
    return re.split(r"[\\/]", name.rstrip("\\/"))[-1] if is_path else name


def published_card(
    repo_id: str, repo_type: str = "model", branch: str | None = None, token: str | None = None
) -> str | None:
    """The README.md that a push to `branch` would replace; None where there is none.

    Args:
        repo_id: `namespace/name`, which need not exist.
        repo_type: "model", "dataset" or "space".
        branch: "main" by default.
        token: the one to push with: a private repository is not there for anybody else.

    Raises:
        OSError: the Hub cannot be asked.
    """
    api = HfApi(token=token)
    try:
        info = api.repo_info(repo_id, repo_type=repo_type, revision=branch)
    except RevisionNotFoundError:  # the branch will start as a copy of main
        info = api.repo_info(repo_id, repo_type=repo_type)
    except RepositoryNotFoundError:
        return None
    if CARD not in (file.rfilename for file in getattr(info, "siblings", None) or ()):  # a kernel has none
        return None
    file = api.hf_hub_download(repo_id, CARD, repo_type=repo_type, revision=info.sha)
    return Path(file).read_bytes().decode("utf-8")  # line ends stay as they are


def check_repo_id(repo_id: str) -> None:
    """ValueError unless it is `namespace/name`, spelled as the Hub allows."""
    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"{repo_id!r} does not say whose it is: give namespace/name, as in org/{repo_id}")
