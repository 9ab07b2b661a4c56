"""What the loopback Hub keeps: repositories of linear commits over a folder of blobs. No HTTP here."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KINDS = ("model", "dataset", "space")
LFS_SUFFIXES = (".arrow", ".bin", ".gguf", ".gz", ".npy", ".npz", ".onnx", ".parquet", ".pt", ".safetensors", ".zip")
LFS_SIZE = 10 * 1024 * 1024
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)


class HubError(Exception):
    """A refusal, as the Hub words it.

    Args:
        status: the HTTP status.
        message: what went wrong; sent as the body and as `X-Error-Message`.
        code: `X-Error-Code`, by which the client chooses the exception it raises ("" for none).
        headers: further headers of the answer.
    """

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Blob:
    """One version of one file.

    Attributes:
        sha256: digest of the content, and its name in the folder of blobs.
        oid: what git calls the file: the digest of its content or, for LFS, of a text that stands for it.
        size: bytes of the content.
        lfs: stored as LFS; decided when the file is uploaded, kept with it.
    """

    sha256: str
    oid: str
    size: int
    lfs: bool

    @property
    def etag(self) -> str:
        """What the client compares to see whether a file has changed."""
        return self.sha256 if self.lfs else self.oid


class Blobs:
    """Contents on disk, named by their sha256. A blob is whole or absent, and belongs to no commit by itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def holds(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def add(self, chunks: Iterable[bytes], expected: str | None = None) -> str:
        """Store a content.

        Args:
            chunks: the content, in pieces.
            expected: the sha256 it must have.

        Returns:
            Its sha256.

        Raises:
            HubError: the content is not the expected one; nothing is kept.
        """
        digest = hashlib.sha256()
        temporary = self.folder / f"{secrets.token_hex(8)}.part"
        try:
            with temporary.open("wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            sha256 = digest.hexdigest()
            if expected not in (None, sha256):
                raise HubError(400, f"The content has sha256 {sha256}, not {expected}")
            os.replace(temporary, self.path(sha256))
        finally:
            temporary.unlink(missing_ok=True)
        return sha256

    def regular(self, content: bytes) -> Blob:
        """Store a file that git holds itself."""
        return Blob(self.add([content]), _git_oid(content), len(content), lfs=False)

    def large(self, sha256: str) -> Blob:
        """The LFS file of a content that was uploaded before.

        Raises:
            KeyError: it was not.
        """
        if not self.holds(sha256):
            raise KeyError(sha256)
        size = self.path(sha256).stat().st_size
        return Blob(sha256, _git_oid(f"oid sha256:{sha256}\nsize {size}\n".encode()), size, lfs=True)

    def store(self, path: str, content: bytes) -> Blob:
        """Store a file the way the Hub would have its client send it."""
        if is_large(path, len(content), content):
            return self.large(self.add([content]))
        return self.regular(content)


@dataclass(frozen=True)
class Commit:
    """A whole tree and where it came from."""

    oid: str
    parent: str | None
    title: str
    description: str
    files: Mapping[str, Blob]
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


@dataclass
class Repo:
    """A repository: commits, and the names that point at them."""

    kind: str
    name: str
    private: bool = False
    gated: str | bool = False
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> Commit:
        """The commit a branch, tag, pull request or full commit id stands for.

        Raises:
            HubError: there is none of that name.
        """
        for names in (self.branches, self.tags, self.pull_requests):
            if revision in names:
                return self.commits[names[revision]]
        if revision in self.commits:
            return self.commits[revision]
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def head(self, branch: str) -> Commit:
        """The last commit of a branch: what a commit can be put on.

        Raises:
            HubError: there is no such branch (tags and commit ids are none).
        """
        if branch not in self.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        return self.commits[self.branches[branch]]

    def add(self, parent: Commit | None, files: Mapping[str, Blob], title: str, description: str = "") -> Commit:
        """Record a commit; no name points at it yet."""
        oid = secrets.token_hex(20)
        commit = Commit(oid, parent and parent.oid, title, description, dict(files))
        self.commits[oid] = commit
        return commit

    def history(self, commit: Commit) -> list[Commit]:
        """A commit and its ancestors, newest first."""
        past = [commit]
        while past[-1].parent is not None:
            past.append(self.commits[past[-1].parent])
        return past


def new_repo(blobs: Blobs, kind: str, name: str, private: bool = False, sdk: str | None = None) -> Repo:
    """A repository with the Hub's own first commit: `.gitattributes` and, in a Space, a card that names its SDK."""
    repo = Repo(kind, name, private=private, sdk=sdk)
    files = {".gitattributes": GITATTRIBUTES.encode()}
    if kind == "space":
        files["README.md"] = f"---\ntitle: {name.partition('/')[2]}\nsdk: {sdk}\n---\n".encode()
    first = repo.add(None, {path: blobs.regular(content) for path, content in files.items()}, "initial commit")
    repo.branches["main"] = first.oid
    return repo


def is_large(path: str, size: int, sample: bytes) -> bool:
    """Whether the Hub wants a file as LFS: by its suffix, by its size, or because it is no text."""
    return path.endswith(LFS_SUFFIXES) or size > LFS_SIZE or b"\0" in sample


def apply_operations(files: Mapping[str, Blob], operations: list[dict[str, Any]], blobs: Blobs) -> dict[str, Blob]:
    """The tree that the operations of a commit make of another.

    Args:
        files: the tree of the parent; stays as it is.
        operations: the lines of a commit after its header, each with `key` and `value`.
        blobs: where contents are.

    Returns:
        The new tree.

    Raises:
        HubError: an operation cannot be done; then the commit must not be either.
    """
    tree = dict(files)
    for operation in operations:
        key, value = operation["key"], operation["value"]
        path = value["path"]
        if key == "file":
            tree[path] = blobs.regular(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            tree[path] = _uploaded(path, value["oid"], blobs)
        elif key in ("deletedFile", "deletedFolder"):
            for gone in _to_delete(tree, path, folder=key == "deletedFolder"):
                del tree[gone]
        else:
            raise HubError(400, f"Unknown operation {key!r}")
    return tree


def _uploaded(path: str, sha256: str, blobs: Blobs) -> Blob:
    try:
        return blobs.large(sha256)
    except KeyError:
        raise HubError(400, f"The LFS object of {path} was never uploaded: {sha256}") from None


def _to_delete(tree: Mapping[str, Blob], path: str, folder: bool) -> list[str]:
    prefix = path.rstrip("/") + "/"
    found = [name for name in tree if (name.startswith(prefix) if folder else name == path)]
    if not found:
        raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    return found


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
