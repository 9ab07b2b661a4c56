"""Packages that only some users need, imported when they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import a module that an extra of this project installs.

    Args:
        module: its name.
        extra: the extra, as in `pip install "amer[extra]"`.
        purpose: what needs it; the message begins with it.

    Raises:
        ImportError: it is not installed; says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f'{purpose} needs {module}: pip install "amer[{extra}]" ({error})') from error


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Around imports at the top of a module that is of no use without an extra.

    Args:
        extra: as in `pip install "amer[extra]"`.
        purpose: what needs it; the message begins with it.

    Raises:
        ImportError: one of the imports failed; says what to install.
    """
    try:
        yield
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        raise ImportError(f'{purpose} needs {missing}: pip install "amer[{extra}]" ({error})') from error
