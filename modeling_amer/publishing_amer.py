"""Publish saved files on the Hub in one commit: keep people's cards, and refuse models with a local base."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from .checksums_amer import seal
from .configuration_amer import AMERConfig

MAIN = "main"
CARD = "README.md"
HIDDEN = (".*", "*/.*")  # such as .gitattributes; a push never deletes them


class _Repository(TypedDict):
    """Arguments of all calls of the Hub's client."""

    repo_id: str
    repo_type: str


def push_files(
    files: Mapping[str, Path | bytes],
    repo_id: str,
    *,
    repo_type: str = "model",
    public: bool = False,
    branch: str | None = None,
    tag: str | None = None,
    replaced: Sequence[str] = (),
    card: Callable[[str, str | None], str | None] | None = None,
    commit_message: str,
    commit_description: str | None = None,
    create_pr: bool = False,
    token: bool | str | None = None,
    space_sdk: str = "gradio",
) -> CommitInfo:
    """Push files in one commit. An interrupted push leaves the repository unchanged.

    All pushes of the project use this function. It calls `create_commit` once, because `HfApi.upload_folder` with
    `hf_xet` splits a large folder into several commits.

    Args:
        files: For each path in the repository, the local file or its content.
        repo_id: `namespace/name`; created if it does not exist.
        repo_type: "model", "dataset", or "space".
        public: Make a newly created repository public; the visibility of an existing one does not change.
        branch: Branch of the commit; created from "main" if it does not exist. Default: "main".
        tag: A new tag for the commit.
        replaced: Patterns. The commit deletes files of the repository that match one and are not in `files`.
        card: Function that makes README.md from the repository's name and its current README.md (None if there is
            none). None leaves README.md unchanged, both as argument and as result.
        commit_message: First line of the commit message.
        commit_description: Rest of the commit message.
        create_pr: Open a pull request instead of committing.
        token: Token for the Hub. Default: that of the login.
        space_sdk: SDK of a newly created Space: "gradio", "docker" or "static".

    Returns:
        The commit; if nothing has changed, the branch's last commit.

    Raises:
        OSError: There is no login, or the Hub refuses the push, for example because of another push meanwhile.
        ValueError: `repo_id` is not a repository name, or the tag already exists.
    """
    api = HfApi(token=True if token is None else token)  # True: require a login
    sdk = space_sdk if repo_type == "space" else None
    url = api.create_repo(repo_id, repo_type=repo_type, private=not public, exist_ok=True, space_sdk=sdk)
    repo: _Repository = {"repo_id": url.repo_id, "repo_type": repo_type}
    _prepare_refs(api, repo, branch, tag)
    head = api.repo_info(**repo, revision=branch)
    there = [file.rfilename for file in getattr(head, "siblings", None) or ()]  # a kernel has no siblings
    files = dict(files)
    if card is not None:
        text = card(url.repo_id, _read_card(api, repo, head.sha) if CARD in there else None)
        files |= {} if text is None else {CARD: text.encode()}
    stale = filter_repo_objects(
        [name for name in there if name not in files], allow_patterns=list(replaced), ignore_patterns=list(HIDDEN)
    )
    operations: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationDelete(name) for name in stale]
    operations += [CommitOperationAdd(name, content) for name, content in files.items()]
    commit = api.create_commit(
        **repo,
        operations=operations,
        commit_message=commit_message,
        commit_description=commit_description,
        revision=branch,
        create_pr=create_pr,
        parent_commit=head.sha,  # the stale files were determined at this commit
    )
    if tag is not None:
        api.create_tag(**repo, tag=tag, revision=commit.oid)
    return commit


def is_public(public: bool, private: bool | None) -> bool:
    """Whether a new repository is public: only with `public=True` or transformers' `private=False`.

    Raises:
        ValueError: `public` and `private` are both True.
    """
    if public and private:
        raise ValueError("public=True and private=True contradict each other: give only one of them.")
    return public or private is False


def files_in(folder: Path) -> dict[str, Path]:
    """All files of a folder, by their paths in a repository."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _prepare_refs(api: HfApi, repo: _Repository, branch: str | None, tag: str | None) -> None:
    """Refuse a tag that exists, then create the branch if it is missing."""
    if tag is None and (branch is None or branch.startswith("refs/pr/")):
        return
    refs = api.list_repo_refs(**repo)
    if tag is not None and tag in (ref.name for ref in refs.tags):
        raise ValueError(
            f"{repo['repo_id']} has a tag {tag!r} already, and others may use it: choose another or delete it first"
        )
    if branch is not None and branch not in (MAIN, *(ref.name for ref in refs.branches)):
        if not branch.startswith("refs/pr/"):
            api.create_branch(**repo, branch=branch)


def _read_card(api: HfApi, repo: _Repository, commit: str | None) -> str:
    return Path(api.hf_hub_download(**repo, filename=CARD, revision=commit)).read_bytes().decode("utf-8")


def check_names(config: AMERConfig) -> None:
    """Refuse to publish a model that depends on a folder of this machine.

    Raises:
        ValueError: The adapter's base or the document encoder is a folder, which others cannot load.
    """
    base, encoder = config.base_model_name_or_path, (config.document_encoder or {}).get("name")
    if config.weights == "adapter" and base is not None and not is_repo_id(base):
        raise ValueError(
            f"The adapter's base is the folder {base}, which others cannot load. Load the model with "
            "base_model_name_or_path set to the base's name on the Hub, and verify=True to check that it is the same; "
            "or call merge_and_unload() and publish every weight."
        )
    if encoder is not None and not is_repo_id(encoder):
        raise ValueError(
            f"The document encoder is the folder {encoder}, which others cannot load: set "
            'config.document_encoder["name"] to its name on the Hub.'
        )


def forget_local_base(folder: Path) -> None:
    """Remove a full model's local base from a saved config.json, because loading does not need it."""
    file = folder / "config.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    base = fields.get("base_model_name_or_path")
    if base is not None and not is_repo_id(base):
        fields["base_model_name_or_path"] = None
        file.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        seal(folder)


def card_for_push(config: AMERConfig, repo_id: str, there: str | None, tags: Sequence[str]) -> str | None:
    """README.md of a pushed model: the existing one with the tags (None: unchanged), else a short one."""
    if there is None:
        return str(short_card(config, repo_id, tags))
    if not tags:
        return None
    card = ModelCard(there)
    card.data["tags"] = list(dict.fromkeys([*(card.data.get("tags") or []), *tags]))
    return str(card)


def short_card(config: AMERConfig, repo_id: str, tags: Sequence[str]) -> ModelCard:
    """A card for a repository without one: metadata, and how to load the model."""
    base = config.base_model_name_or_path
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="sentence-similarity",  # the tag `feature-extraction` would offer a pipeline without the prompt
        tags=list(dict.fromkeys(["amer", "retrieval", *tags])),
        base_model=base if base is not None and is_repo_id(base) else None,
        base_model_relation="adapter" if config.weights == "adapter" else "finetune",
    )
    load = f'AutoModel.from_pretrained("{repo_id}", trust_remote_code=True)'
    return ModelCard(
        f"---\n{data.to_yaml()}\n---\n\n# {repo_id.rpartition('/')[2]}\n\nAMER turns a question into several query "
        "vectors, each searched on its own among documents of one vector each; it is not late interaction "
        f"(ColBERT).\n\n```python\nfrom transformers import AutoModel\n\nmodel = {load}\n```\n"
    )


def is_repo_id(name: str) -> bool:
    """Whether a name can be one on the Hub: not a folder of this machine, nor a path of another one."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not os.path.isdir(name)
