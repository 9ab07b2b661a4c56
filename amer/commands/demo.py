"""`amer demo`: the quickest way to see what query vectors find."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amer.commands.terminal import say

if TYPE_CHECKING:
    from amer.fitting import Settings

# The settings of `make quickstart`: five packages and a ninth of the usual steps, which take minutes on two cores.
PACKAGES = ("python", "numpy", "scipy", "pandas", "sklearn")
NUM_TRAIN, TRAIN_STEPS = 5_000, 130


def demo(
    folder: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Output of `amer fit` or `make quickstart`. Created if it does not exist."),
    ] = Path("quickstart"),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the page; 0 picks a free one.")] = 8000,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only; open no browser.")] = False,
) -> None:
    """Open a page that shows what each query vector of a question finds.

    It uses the model and the documents in DIR. If DIR has none, it first fits a small model to the API reference of
    the Python packages installed here. This takes minutes and needs no GPU. Run it again after an interruption to
    resume. Only this machine can open the page.
    """
    from amer.extras import import_extra

    for module in ("fastapi", "prometheus_client", "uvicorn"):  # before minutes of training
        import_extra(module, "serve", "amer demo")
    os.environ.setdefault("AMER_OFFLINE_MODELS", "1")  # like quickstart, use the encoder's package if installed
    from rich.console import Console

    from amer.fitting import Settings, fit
    from amer.search import Searcher
    from amer.service import serve

    settings = Settings(folder, packages=PACKAGES, num_train=NUM_TRAIN, train_steps=TRAIN_STEPS)
    if not ((settings.model / "config.json").is_file() and (settings.store / "store.json").is_file()):
        say(f"{folder} holds no model with its documents yet: fitting a small one now.")
        fit(settings, Console())
    searcher = Searcher.from_pretrained(settings.model, settings.store)
    searcher.search("warm up")
    ready = say_address if no_browser else open_browser
    serve(searcher, port=port, examples=examples_of(settings), ready=ready)


def examples_of(settings: Settings) -> list[str]:
    """Some test questions of the fitted dataset, if the folder still holds it."""
    from amer.data import load_dataset_dir
    from amer.fitting.examples import example_questions

    splits = load_dataset_dir(settings.dataset) if settings.dataset.is_dir() else {}
    return example_questions(splits["test"]) if "test" in splits else []


def say_address(address: str) -> None:
    """Print the address of the page."""
    say(f"The page is at {address}; Ctrl+C ends it.")


def open_browser(address: str) -> None:
    """Print the address and open it in a browser, without waiting for the browser."""
    import webbrowser
    from threading import Thread

    say_address(address)
    Thread(target=webbrowser.open, args=(address,), daemon=True).start()
