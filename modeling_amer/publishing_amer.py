"""A saved model on the Hub: one commit, the card left to people, no base that only one machine has."""

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
HIDDEN = (".*", "*/.*")  # .gitattributes among them: never deleted


class _Repository(TypedDict):
    """What all calls of the Hub's client are told."""

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
    """Push files in one commit: a push that is killed leaves the repository as it was.

    Every push of the project is this one. It is one call of `create_commit`: `HfApi.upload_folder` with `hf_xet`
    installed cuts a large folder into several commits.

    Args:
        files: path in the repository -> the file here, or its content.
        repo_id: `namespace/name`; the repository is created when there is none.
        repo_type: "model", "dataset", or "space".
        public: of a repository that is created here: for everybody to see; one that exists stays as visible as it is.
        branch: where the commit goes; created from "main" when missing. "main" by default.
        tag: put on the commit; must be new.
        replaced: files of the repository that match one of these patterns and are not in `files` are deleted in the
            same commit.
        card: makes README.md of the repository's name and the README.md there (None where there is none); None
            leaves it as it is.
        commit_message: first line of the commit.
        commit_description: the rest of it.
        create_pr: open a pull request instead of committing.
        token: of the Hub; the one logged in with by default.
        space_sdk: of a Space that is created here: "gradio", "docker" or "static".

    Returns:
        The commit; the branch's last one when nothing has changed.

    Raises:
        OSError: nobody is logged in, or the Hub refuses, for example because somebody else has pushed meanwhile.
        ValueError: `repo_id` is none, or the tag exists.
    """
    api = HfApi(token=True if token is None else token)  # True: nobody logged in is an error
    sdk = space_sdk if repo_type == "space" else None
    url = api.create_repo(repo_id, repo_type=repo_type, private=not public, exist_ok=True, space_sdk=sdk)
    repo: _Repository = {"repo_id": url.repo_id, "repo_type": repo_type}
    _prepare_refs(api, repo, branch, tag)
    head = api.repo_info(**repo, revision=branch)
    there = [file.rfilename for file in getattr(head, "siblings", None) or ()]  # a kernel has none
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
        parent_commit=head.sha,  # what is stale was decided there
    )
    if tag is not None:
        api.create_tag(**repo, tag=tag, revision=commit.oid)
    return commit


def is_public(public: bool, private: bool | None) -> bool:
    """Whether a new repository is for everybody to see: only where it is said, in our word or in transformers'.

    Raises:
        ValueError: both say so, and differ.
    """
    if public and private:
        raise ValueError("public=True and private=True contradict each other: give one of them.")
    return public or private is False


def files_in(folder: Path) -> dict[str, Path]:
    """Every file of a folder by its path in a repository."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _prepare_refs(api: HfApi, repo: _Repository, branch: str | None, tag: str | None) -> None:
    """Refuse a tag that exists, then create the branch if it is missing."""
    if tag is None and (branch is None or branch.startswith("refs/pr/")):
        return
    refs = api.list_repo_refs(**repo)
    if tag is not None and tag in (ref.name for ref in refs.tags):
        raise ValueError(
            f"{repo['repo_id']} has a tag {tag!r} already, which others may rely on: choose another or delete it first"
        )
    if branch is not None and branch not in (MAIN, *(ref.name for ref in refs.branches)):
        if not branch.startswith("refs/pr/"):
            api.create_branch(**repo, branch=branch)


def _read_card(api: HfApi, repo: _Repository, commit: str | None) -> str:
    return Path(api.hf_hub_download(**repo, filename=CARD, revision=commit)).read_bytes().decode("utf-8")


def check_names(config: AMERConfig) -> None:
    """Refuse to publish what stands on a folder of this machine.

    Raises:
        ValueError: nobody else has the adapter's base, or the encoder of the documents.
    """
    base, encoder = config.base_model_name_or_path, (config.document_encoder or {}).get("name")
    if config.weights == "adapter" and base is not None and not is_repo_id(base):
        raise ValueError(
            f"The adapter's base is the folder {base}, which nobody else has. Load the model with "
            "base_model_name_or_path= the base's name on the Hub, and verify=True to see that it is the same; or "
            "publish every weight, after merge_and_unload()."
        )
    if encoder is not None and not is_repo_id(encoder):
        raise ValueError(
            f"The encoder of the documents is the folder {encoder}, which nobody else has: name the one on the Hub as "
            'config.document_encoder["name"].'
        )


def forget_local_base(folder: Path) -> None:
    """Take the path of a full model's base out of a saved config.json: nobody needs it."""
    file = folder / "config.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    base = fields.get("base_model_name_or_path")
    if base is not None and not is_repo_id(base):
        fields["base_model_name_or_path"] = None
        file.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        seal(folder)


def card_for_push(config: AMERConfig, repo_id: str, there: str | None, tags: Sequence[str]) -> str | None:
    """README.md of a pushed model: the one there, with the tags added (None without tags); else a short one."""
    if there is None:
        return str(short_card(config, repo_id, tags))
    if not tags:
        return None
    card = ModelCard(there)
    card.data["tags"] = list(dict.fromkeys([*(card.data.get("tags") or []), *tags]))
    return str(card)


def short_card(config: AMERConfig, repo_id: str, tags: Sequence[str]) -> ModelCard:
    """What a repository without a card gets: metadata and how to load the model."""
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
    """Whether a name can be one on the Hub: not a folder of this machine, nor of the one it was written on."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not os.path.isdir(name)
