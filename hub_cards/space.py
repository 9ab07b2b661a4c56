"""A Docker Space that serves the page for a model and a document store on the Hub."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import SpaceCardData
from packaging.requirements import Requirement

from amer.hub import check_repo_id
from amer.hub_cards.rendering import render
from amer.hub_cards.updating import assemble

PORT = 7860  # the port that a Space shows
EXTRAS = ("", "cpu", "serve")
PACKAGES = ("amer", "modeling_amer")
MARK = "# Written by `amer push space`, and written anew by the next one.\n"
DOCKERFILE = """\
{mark}FROM python:3.12-slim
RUN useradd --create-home --uid 1000 user
USER user
WORKDIR /home/user/app
ENV PATH=/home/user/.local/bin:$PATH
# Variables of the Space are arguments of its build: name PyTorch's CPU index here for a smaller image.
ARG PIP_EXTRA_INDEX_URL=""
COPY --chown=user requirements.txt .
RUN pip install --user --no-cache-dir --requirement requirements.txt
COPY --chown=user . .
EXPOSE {port}
CMD {command}
"""


def write_space(folder: str | os.PathLike[str], model: str, store: str, examples: Sequence[str] = ()) -> None:
    """Write the files of a Space, except its card: a Dockerfile, the requirements and the installed packages' code.

    Args:
        folder: New or empty folder, or one written by an earlier call; other files in it stay.
        model: Name of the model on the Hub.
        store: Name of the document store on the Hub.
        examples: Questions that the page offers.

    Raises:
        FileExistsError: The folder holds other files.
        ValueError: `model` or `store` is not a name on the Hub.
    """
    for name in (model, store):
        check_repo_id(name)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dockerfile = folder / "Dockerfile"
    ours = dockerfile.is_file() and dockerfile.read_text(encoding="utf-8").startswith(MARK)
    if not ours and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds files that `amer push space` did not write: give a new folder")
    command = json.dumps(serve_command(model, store, examples))
    dockerfile.write_text(DOCKERFILE.format(mark=MARK, port=PORT, command=command), encoding="utf-8")
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements()), encoding="utf-8")
    for package in PACKAGES:
        _copy_package(package, folder / package)


def space_card(repo_id: str, model: str, store: str) -> str:
    """The card of the Space; it tells the Hub to run the Dockerfile."""
    name = repo_id.rpartition("/")[2]
    metadata = SpaceCardData(
        title=name,
        emoji="🔎",
        colorFrom="blue",
        colorTo="green",
        sdk="docker",
        app_port=PORT,
        models=[model],
        datasets=[store],
        tags=["amer", "retrieval"],
    )
    return assemble(metadata.to_yaml(), render("space", name=name, model=model, store=store))


def serve_command(model: str, store: str, examples: Sequence[str] = ()) -> list[str]:
    """The command that the Space runs."""
    offered = [word for example in examples for word in ("--example", example)]
    where = ["--host", "0.0.0.0", "--port", str(PORT)]
    return ["python", "-m", "amer", "serve", "--model", model, "--store", store, *where, *offered]


def requirements() -> Iterator[str]:
    """The requirements that the installed packages need to serve, one per line."""
    for line in requires("amer") or ():
        requirement = Requirement(line)
        marker, requirement.marker = requirement.marker, None
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in EXTRAS):
            yield str(requirement)


def _copy_package(name: str, folder: Path) -> None:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ImportError(f"the package {name} cannot be found: install it")
    if folder.is_dir():
        shutil.rmtree(folder)
    shutil.copytree(Path(spec.origin).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
