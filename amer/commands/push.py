"""`amer push`: publish a model, a dataset, a document store, the MRecall metric or a page on the Hugging Face Hub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amer.commands.fields import with_fields
from amer.commands.terminal import say

if TYPE_CHECKING:
    from modeling_amer import AMERModel

app = typer.Typer(
    no_args_is_help=True,
    help="Push to the Hugging Face Hub, with a card, in one commit.\n\nA new repository is private unless you give "
    "--public. Text that people added to the card is kept. Log in first: hf auth login.",
)

# File patterns of each kind. A push deletes files in the repository that match and are not pushed again.
DATASET = ("train.parquet", "validation.parquet", "test.parquet")
STORE = ("embeddings-*.npy",)
METRIC = ("*.py",)
SPACE = ("amer/*", "modeling_amer/*")
REPO_TYPES = {"model": "model", "dataset": "dataset", "store": "dataset", "metric": "space", "space": "space"}


@dataclass(frozen=True)
class Target:
    """The folder to push, and its destination."""

    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to push.")]
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="namespace/name. Created if it does not exist.")]
    public: Annotated[bool, typer.Option("--public", help="Make a newly created repository public.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files to push, without network access.")] = False
    branch: Annotated[str, typer.Option(help="Branch to push to. Created from main if it does not exist.")] = "main"
    tag: Annotated[str | None, typer.Option(help="A new tag for the commit.")] = None
    message: Annotated[str | None, typer.Option(help="Commit message.")] = None


@app.command("model")
@with_fields
def push_model(
    target: Target,
    base_model: Annotated[
        str | None, typer.Option(help="Name of the base on the Hub, for a model trained on a local folder.")
    ] = None,
    base_model_revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch of --base-model. Default: main.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Merge LoRA into the base and push every weight.")] = False,
    export_peft: Annotated[
        bool, typer.Option("--export-peft", help="Also push a copy of the adapter in PEFT's format.")
    ] = False,
    results: Annotated[Path | None, typer.Option(help="results.json of an evaluation, for the card.")] = None,
    system: Annotated[str | None, typer.Option(help="Name of this model's system in --results.")] = None,
) -> None:
    """Push a trained AMER model with its card. The model is loaded and checked first."""
    if base_model_revision and not base_model:
        raise typer.BadParameter("--base-model-revision needs --base-model")
    if system and not results:
        raise typer.BadParameter("--system needs --results")
    _check(target)
    from amer.files import read_json
    from amer.hub_cards import write_model_card
    from modeling_amer.publishing_amer import forget_local_base
    from modeling_amer.staging_amer import REPLACED, TOKENIZER

    record = target.folder / "training_record.json"
    model = load_model(target.folder, base_model, base_model_revision, merge)
    model.check_publishable()
    with TemporaryDirectory(prefix="amer-push-") as folder:
        model.save_pretrained(folder)
        if export_peft:
            model.export_peft(Path(folder, "adapter"))
        forget_local_base(Path(folder))
        write_model_card(
            folder,
            model.config,
            target.repo_id,
            training=read_json(record) if record.is_file() else None,
            report=read_json(results) if results else None,
            system=system,
            existing=existing_card(target, "model"),
        )
        publish(target, "model", Path(folder), (*REPLACED, *TOKENIZER, "*_amer.py"))


@app.command("dataset")
@with_fields
def push_dataset(target: Target) -> None:
    """Push a dataset directory."""
    _check(target)
    from amer.data import verify_folder
    from amer.hub_cards import dataset_card, update_card

    verify_folder(target.folder)
    generated = dataset_card(target.folder, target.repo_id)
    publish(target, "dataset", target.folder, DATASET, update_card(existing_card(target, "dataset"), generated))


@app.command("store")
@with_fields
def push_store(target: Target) -> None:
    """Push a document store."""
    _check(target)
    from amer.data import verify_folder
    from amer.hub_cards import store_card, update_card

    verify_folder(target.folder)
    generated = store_card(target.folder, target.repo_id)
    publish(target, "store", target.folder, STORE, update_card(existing_card(target, "store"), generated))


@app.command("metric")
@with_fields
def push_metric(target: Target) -> None:
    """Push amer/evaluation/metrics/mrecall, as a Space for `evaluate`."""
    _check(target)
    script = f"{target.repo_id.split('/')[-1]}.py"
    if not (target.folder / script).is_file():
        raise FileNotFoundError(
            f"{target.folder} has no {script}, which evaluate.load({target.repo_id!r}) will look for: "
            "give the repository the name of the metric's file"
        )
    from amer.hub_cards import metric_card, update_card

    card = update_card(published(target, "metric"), metric_card(target.repo_id))  # it uses the folder's README.md
    publish(target, "metric", target.folder, METRIC, card)


@app.command("space")
@with_fields
def push_space(
    target: Target,
    model: Annotated[str, typer.Option(help="Name of the model on the Hub.")],
    store: Annotated[str, typer.Option(help="Name of the document store on the Hub.")],
    examples: Annotated[
        list[str] | None,
        typer.Option("--example", metavar="QUESTION", help="A question that the page offers. May be repeated."),
    ] = None,
) -> None:
    """Push a Docker Space with the page of `amer serve`, for a model and a document store on the Hub.

    The command writes FOLDER: a Dockerfile, the code that is installed here, and its requirements. A dry run writes
    it too.
    """
    target.folder.mkdir(parents=True, exist_ok=True)
    _check(target)
    from amer.hub_cards import space_card, update_card, write_space

    write_space(target.folder, model, store, examples or ())
    card = update_card(existing_card(target, "space"), space_card(target.repo_id, model, store))
    publish(target, "space", target.folder, SPACE, card, "docker")


def _check(target: Target) -> None:
    """Check the target before anything is loaded; keep a dry run off the network."""
    if target.dry_run:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported, which happens below
    from amer.hub import check_repo_id

    check_repo_id(target.repo_id)
    if not target.folder.is_dir():
        raise FileNotFoundError(f"{target.folder} is not a folder: give the folder to push")


def load_model(folder: Path, base_model: str | None, base_model_revision: str | None, merge: bool) -> AMERModel:
    """Load the model on the base that will be published with it.

    Raises:
        OSError: A file of the model or its base is missing, or differs from the saved file.
        ValueError: The base is a folder or not the one the model was trained on, or there is nothing to merge.
    """
    import torch

    from modeling_amer import AMERConfig, AMERModel
    from modeling_amer.publishing_amer import is_repo_id

    config = AMERConfig.from_pretrained(folder)
    base: str | None = config.base_model_name_or_path
    options: dict[str, Any] = {}
    if base_model:
        if not is_repo_id(base_model):
            raise ValueError(f"--base-model {base_model} is a folder: give the base's name on the Hub")
        base = base_model
        # The probe detects another base, or other weights under the same name, by their other vectors.
        options = {"base_model_name_or_path": base, "verify": True}
        if base_model_revision:
            options["base_model_revision"] = base_model_revision
    if merge and config.weights == "full":
        raise ValueError(f"{folder} holds every weight already: leave out --merge")
    if config.weights == "adapter" and not merge and not (base and is_repo_id(base)):
        raise ValueError(
            f"the adapter in {folder} belongs to the base {base}, a folder on this machine that others cannot load: "
            "give the base's name on the Hub as --base-model, or push every weight with --merge"
        )
    if merge:
        options["dtype"] = torch.float32
    model = AMERModel.from_pretrained(folder, **options)
    if merge:
        model.merge_and_unload()
    return model


def existing_card(target: Target, kind: str) -> str | None:
    """The card whose hand-written parts are kept: the Hub's if it has one, else the folder's."""
    local = target.folder / "README.md"
    card = published(target, kind)
    return local.read_bytes().decode() if card is None and local.is_file() else card


def published(target: Target, kind: str) -> str | None:
    """The card on the Hub, if there is one; a dry run does not look."""
    from amer.hub import published_card

    return None if target.dry_run else published_card(target.repo_id, REPO_TYPES[kind], target.branch)


def publish(
    target: Target,
    kind: str,
    folder: Path,
    replaced: Sequence[str],
    card: str | None = None,
    space_sdk: str = "gradio",
) -> None:
    """Push the folder in one commit; a dry run lists its files."""
    from amer.hub import files_to_push, push_folder

    repo_type = REPO_TYPES[kind]
    if target.dry_run:
        tag = f", tag {target.tag}" if target.tag else ""
        seen_by = "public" if target.public else "private"
        where = f"{repo_type} {target.repo_id} ({seen_by} if created), branch {target.branch}{tag}"
        say(f"Dry run: nothing is sent to {where}")
        show_files(files_to_push(folder, card))
        return
    commit = push_folder(
        folder,
        target.repo_id,
        repo_type,
        public=target.public,
        branch=target.branch,
        tag=target.tag,
        commit_message=target.message or f"Upload {kind}",
        delete_patterns=replaced,
        card=card,
        space_sdk=space_sdk,
    )
    say(commit.commit_url)


def show_files(files: dict[str, int]) -> None:
    """Print every file with its size."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_footer=True)
    table.add_column("file", footer=f"{len(files)} files", overflow="fold")
    table.add_column("bytes", footer=f"{sum(files.values()):,}", justify="right")
    for path, size in files.items():
        table.add_row(path, f"{size:,}")
    Console().print(table)
