"""A saved model on the Hub: one commit, the card left to people, no base that only one machine has."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from .configuration_amer import AMERConfig
from .staging_amer import REPLACED

CARD = "README.md"


def push(
    folder: Path,
    repo_id: str,
    config: AMERConfig,
    *,
    commit_message: str | None,
    commit_description: str | None,
    private: bool | None,
    token: bool | str | None,
    revision: str | None,
    create_pr: bool,
    tags: Sequence[str] | None,
) -> CommitInfo:
    """Push a saved model; arguments as for `AMERModel.push_to_hub`.

    One call of `create_commit`: `HfApi.upload_folder` may cut a large folder into several commits.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/pr/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    forget_local_base(folder)
    head = api.repo_info(repo_id, revision=revision)
    there = [file.rfilename for file in head.siblings]
    if CARD not in there:
        short_card(config, repo_id, tags or ()).save(folder / CARD)
    elif tags:
        card = ModelCard.load(api.hf_hub_download(repo_id, CARD, revision=head.sha))
        card.data.tags = list(dict.fromkeys([*(card.data.tags or []), *tags]))
        card.save(folder / CARD)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    stale = filter_repo_objects([name for name in there if name not in files], allow_patterns=list(REPLACED))
    return api.create_commit(
        repo_id,
        operations=[
            *(CommitOperationDelete(name) for name in stale),
            *(CommitOperationAdd(name, path) for name, path in files.items()),
        ],
        commit_message=commit_message or "Upload AMER model",
        commit_description=commit_description,
        revision=revision,
        create_pr=create_pr,
        parent_commit=head.sha,  # what is stale was decided there
    )


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
