"""Import optional packages when they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import a module that an extra of this project installs.

    Args:
        module: Name of the module.
        extra: Name of the extra, as in `pip install "amer[extra]"`.
        purpose: What needs the module. The message begins with it.

    Raises:
        ImportError: The module is not installed. The message says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f'{purpose} needs {module}: pip install "amer[{extra}]" ({error})') from error


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Wrap the imports at the top of a module that needs an extra.

    Args:
        extra: Name of the extra, as in `pip install "amer[extra]"`.
        purpose: What needs the imports. The message begins with it.

    Raises:
        ImportError: An import failed. The message says what to install.
    """
    try:
        yield
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        raise ImportError(f'{purpose} needs {missing}: pip install "amer[{extra}]" ({error})') from error
