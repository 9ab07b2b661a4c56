"""`amer demo`: the shortest way to see what query vectors find."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amer.commands.terminal import say

if TYPE_CHECKING:
    from amer.fitting import Settings

# What `make quickstart` fits: five packages and a ninth of the usual steps, minutes on two cores.
PACKAGES = ("python", "numpy", "scipy", "pandas", "sklearn")
NUM_TRAIN, TRAIN_STEPS = 5_000, 130


def demo(
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="Output of `amer fit`, or of `make quickstart`; made when missing.")
    ] = Path("quickstart"),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the page; 0 takes a free one.")] = 8000,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Show the address, and open no browser.")] = False,
) -> None:
    """Open a page that shows what each query vector of a question finds.

    It takes the model and the documents in DIR. Where there are none, it first fits a small model to the API
    reference of the Python packages installed here. This takes minutes, needs no GPU, and goes on when it was
    interrupted. Only this machine reaches the page.
    """
    from amer.extras import import_extra

    for module in ("fastapi", "prometheus_client", "uvicorn"):  # before minutes of training
        import_extra(module, "serve", "amer demo")
    os.environ.setdefault("AMER_OFFLINE_MODELS", "1")  # the encoder's package, where it is installed, as quickstart
    from rich.console import Console

    from amer.fitting import Settings, fit
    from amer.search import Searcher
    from amer.service import serve

    settings = Settings(folder, packages=PACKAGES, num_train=NUM_TRAIN, train_steps=TRAIN_STEPS)
    if not ((settings.model / "config.json").is_file() and (settings.store / "store.json").is_file()):
        say(f"{folder} holds no model with its documents yet: a small one is fitted now.")
        fit(settings, Console())
    searcher = Searcher.from_pretrained(settings.model, settings.store)
    searcher.search("warm up")
    ready = say_address if no_browser else open_browser
    serve(searcher, port=port, examples=examples_of(settings), ready=ready)


def examples_of(settings: Settings) -> list[str]:
    """Some test questions of what was fitted, where the folder holds them still."""
    from amer.data import load_dataset_dir
    from amer.fitting.examples import example_questions

    splits = load_dataset_dir(settings.dataset) if settings.dataset.is_dir() else {}
    return example_questions(splits["test"]) if "test" in splits else []


def say_address(address: str) -> None:
    """Where the page is."""
    say(f"The page is at {address}; Ctrl+C ends it.")


def open_browser(address: str) -> None:
    """The same, and open it; the browser may take its time."""
    import webbrowser
    from threading import Thread

    say_address(address)
    Thread(target=webbrowser.open, args=(address,), daemon=True).start()
