"""Push a trained model, a dataset, a document store or the MRecall metric to the Hugging Face Hub, with its card.

One commit; private unless --public; what was written by hand into the card stays. Log in first: hf auth login.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from modeling_amer import AMERModel

# What belongs to a kind: files of an earlier push that match and are not pushed again are deleted.
DATASET = ("train.parquet", "validation.parquet", "test.parquet")
STORE = ("embeddings-*.npy",)
METRIC = ("*.py",)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="kind", required=True)
    model = commands.add_parser("model", help="a trained AMER model")
    model.set_defaults(push=push_model, repo_type="model")
    model.add_argument("--base_model", help="name of the base on the Hub, for a model trained on a local folder")
    model.add_argument("--base_model_revision", help="of --base_model: a commit, tag or branch; main when not given")
    model.add_argument("--merge", action="store_true", help="push every weight, LoRA folded into the base")
    model.add_argument("--results", type=Path, help="results.json of an evaluation, for the card")
    model.add_argument("--system", help="name in --results of the system this model is")
    dataset = commands.add_parser("dataset", help="a dataset directory")
    dataset.set_defaults(push=push_dataset, repo_type="dataset")
    store = commands.add_parser("store", help="a document store")
    store.set_defaults(push=push_store, repo_type="dataset")
    metric = commands.add_parser("metric", help="amer/evaluation/metrics/mrecall, as a Space for `evaluate`")
    metric.set_defaults(push=push_metric, repo_type="space")
    for command in (model, dataset, store, metric):
        command.add_argument("folder", type=Path, metavar="FOLDER", help="what to push")
        command.add_argument("repo_id", metavar="REPO_ID", help="namespace/name; created when there is none")
        command.add_argument("--public", action="store_true", help="if it is created: for everybody to see")
        command.add_argument("--dry_run", action="store_true", help="list what would be pushed, without any network")
        command.add_argument("--branch", default="main", help="created from main when missing (default: main)")
        command.add_argument("--tag", help="a new tag for the commit")
        command.add_argument("--message", help="of the commit")
    parsed = parser.parse_args(arguments)
    if parsed.kind == "model" and parsed.base_model_revision and not parsed.base_model:
        model.error("--base_model_revision needs --base_model")
    if parsed.kind == "model" and parsed.system and not parsed.results:
        model.error("--system needs --results")
    return parsed


def push_model(arguments: argparse.Namespace, console: Console) -> None:
    """Load the model and check it, save it anew with its card, and push what was saved."""
    from amer.files import read_json
    from amer.hub_cards import write_model_card
    from modeling_amer.publishing_amer import forget_local_base
    from modeling_amer.staging_amer import REPLACED, TOKENIZER

    record = arguments.folder / "training_record.json"
    model = load_model(arguments)
    model.check_publishable()
    with TemporaryDirectory(prefix="amer-push-") as folder:
        model.save_pretrained(folder)
        forget_local_base(Path(folder))
        write_model_card(
            folder,
            model.config,
            arguments.repo_id,
            training=read_json(record) if record.is_file() else None,
            report=read_json(arguments.results) if arguments.results else None,
            system=arguments.system,
            existing=existing_card(arguments),
        )
        publish(arguments, console, Path(folder), (*REPLACED, *TOKENIZER, "*_amer.py"))


def push_dataset(arguments: argparse.Namespace, console: Console) -> None:
    """Push the splits with their card."""
    from amer.data import verify_folder
    from amer.hub_cards import dataset_card, update_card

    verify_folder(arguments.folder)
    generated = dataset_card(arguments.folder, arguments.repo_id)
    publish(arguments, console, arguments.folder, DATASET, update_card(existing_card(arguments), generated))


def push_store(arguments: argparse.Namespace, console: Console) -> None:
    """Push documents and embeddings with their card."""
    from amer.data import verify_folder
    from amer.hub_cards import store_card, update_card

    verify_folder(arguments.folder)
    generated = store_card(arguments.folder, arguments.repo_id)
    publish(arguments, console, arguments.folder, STORE, update_card(existing_card(arguments), generated))


def push_metric(arguments: argparse.Namespace, console: Console) -> None:
    """Push the metric's Space with its card."""
    script = f"{arguments.repo_id.split('/')[-1]}.py"
    if not (arguments.folder / script).is_file():
        raise FileNotFoundError(
            f"{arguments.folder} has no {script}, which evaluate.load({arguments.repo_id!r}) will ask for: "
            "the repository must be called like the metric's file"
        )
    from amer.hub_cards import metric_card, update_card

    card = update_card(published(arguments), metric_card(arguments.repo_id))  # made of the folder's own
    publish(arguments, console, arguments.folder, METRIC, card)


def load_model(arguments: argparse.Namespace) -> AMERModel:
    """The model on the base that will be published with it.

    Raises:
        OSError: a file of the model or its base is not there, or not what was saved.
        ValueError: the base is a folder, or not the one the model was trained on; nothing to merge.
    """
    import torch

    from modeling_amer import AMERConfig, AMERModel
    from modeling_amer.publishing_amer import is_repo_id

    config = AMERConfig.from_pretrained(arguments.folder)
    base, options = config.base_model_name_or_path, {}
    if arguments.base_model:
        if not is_repo_id(arguments.base_model):
            raise ValueError(f"--base_model {arguments.base_model} is a folder: give the base's name on the Hub")
        base = arguments.base_model
        # The probe tells another base, or other weights under the same name: it gives other vectors.
        options = {"base_model_name_or_path": base, "verify": True}
        if arguments.base_model_revision:
            options["base_model_revision"] = arguments.base_model_revision
    if arguments.merge and config.weights == "full":
        raise ValueError(f"{arguments.folder} holds every weight already: leave --merge out")
    if config.weights == "adapter" and not arguments.merge and not is_repo_id(base):
        raise ValueError(
            f"the adapter in {arguments.folder} belongs to the base {base}, a folder that nobody else has: "
            "give the base's name on the Hub as --base_model, or push every weight with --merge"
        )
    if arguments.merge:
        options["dtype"] = torch.float32
    model = AMERModel.from_pretrained(arguments.folder, **options)
    if arguments.merge:
        model.merge_and_unload()
    return model


def existing_card(arguments: argparse.Namespace) -> str | None:
    """The card whose hand-written parts are to stay: the Hub's if it has one, else the folder's."""
    local = arguments.folder / "README.md"
    card = published(arguments)
    return local.read_bytes().decode() if card is None and local.is_file() else card


def published(arguments: argparse.Namespace) -> str | None:
    """The card on the Hub, if there is one; a dry run does not look."""
    from amer.hub import published_card

    if arguments.dry_run:
        return None
    return published_card(arguments.repo_id, arguments.repo_type, arguments.branch)


def publish(
    arguments: argparse.Namespace, console: Console, folder: Path, kind: Sequence[str], card: str | None = None
) -> None:
    """Push the folder in one commit, or list what that would push."""
    from amer.hub import files_to_push, push_folder

    if arguments.dry_run:
        tag = f", tag {arguments.tag}" if arguments.tag else ""
        seen_by = "public" if arguments.public else "private"
        target = f"{arguments.repo_type} {arguments.repo_id} ({seen_by} if created), branch {arguments.branch}{tag}"
        console.print(f"Dry run, nothing is sent to {target}", markup=False, soft_wrap=True)
        console.print(listing(files_to_push(folder, card)))
        return
    commit = push_folder(
        folder,
        arguments.repo_id,
        arguments.repo_type,
        public=arguments.public,
        branch=arguments.branch,
        tag=arguments.tag,
        commit_message=arguments.message or f"Upload {arguments.kind}",
        delete_patterns=kind,
        card=card,
    )
    console.print(commit.commit_url, markup=False, soft_wrap=True)


def listing(files: dict[str, int]) -> Table:
    """Every file with its size."""
    table = Table(show_footer=True)
    table.add_column("file", footer=f"{len(files)} files", overflow="fold")
    table.add_column("bytes", footer=f"{sum(files.values()):,}", justify="right")
    for path, size in files.items():
        table.add_row(path, f"{size:,}")
    return table


def main(arguments: list[str] | None = None) -> None:
    """Push, or say what would be pushed."""
    parsed = parse_arguments(arguments)
    if parsed.dry_run:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported, which happens below
    from amer.hub import check_repo_id

    check_repo_id(parsed.repo_id)
    if not parsed.folder.is_dir():
        raise FileNotFoundError(f"{parsed.folder} is not a folder: give the one to push")
    parsed.push(parsed, Console())


if __name__ == "__main__":
    main()
