"""Reads the docstrings of an installed package by importing it; `amer.data.python_api` runs this file as a program.

It imports nothing of this project, so that only the package runs in the process.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import os
import pkgutil
import re
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

STANDARD_LIBRARY = "python"
LEFT_OUT = {
    "antigravity", "conftest", "demo", "demos", "example", "examples", "idlelib", "lib2to3", "setup", "test", "tests",
    "this", "turtledemo",
}  # fmt: skip
"""Modules that are not imported: they open windows or browsers, print, or hold no API reference."""

DEEPEST = 2
"""Most dots in the name of a module. Deeper modules mostly implement what is public in higher ones."""

FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "webbrowser.")
"""Prefixes of the audit events of network access and of new processes."""

ALIASES = {"posix": "os", "nt": "os"}
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def forbid_network() -> None:
    """Make Python code that opens a socket or starts a process raise a PermissionError from now on."""

    def refuse(event: str, _: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"an import may not use {event}")

    sys.addaudithook(refuse)


def read_package(name: str) -> dict[str, list[dict[str, str]]]:
    """Read the docstrings of a package's public functions, classes and methods.

    Args:
        name: An installed package or module, or "python" for the whole standard library.

    Returns:
        `objects`: the `name` (the shortest public path), `signature` and `doc` of each object, sorted by name;
        `problems`: each `module` that raised or printed during its import, and the `problem`.
    """
    found: dict[int, tuple[str, Any]] = {}
    problems: list[dict[str, str]] = []
    roots = sorted(sys.stdlib_module_names) if name == STANDARD_LIBRARY else [name]
    for module in _modules(roots, problems):
        for path, value in _members(module):
            known = found.get(id(value))
            if known is None or _rank(path, value) < _rank(known[0], value):
                found[id(value)] = (path, value)
    objects = [_described(path, value) for path, value in sorted(found.values(), key=lambda pair: pair[0])]
    return {"objects": objects, "problems": problems}


def _rank(path: str, value: Any) -> tuple[int, bool, str]:
    """Sort key for the paths of an object: the shortest first; among equals, one that ends in its own name."""
    return path.count("."), not path.endswith(f".{getattr(value, '__qualname__', '')}"), path


def _modules(names: Iterable[str], problems: list[dict[str, str]]) -> Iterator[types.ModuleType]:
    """Import the public modules of these names, and their submodules."""
    for name in names:
        last = name.rpartition(".")[2]
        if last in LEFT_OUT or last.startswith(("_", "test_", "testing_")) or last.endswith("_test"):
            continue
        module = _imported(name, problems)
        if module is not None:
            yield module
            if name.count(".") < DEEPEST:
                below = pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}.")
                yield from _modules(sorted(one.name for one in below), problems)


def _imported(name: str, problems: list[dict[str, str]]) -> types.ModuleType | None:
    """Import a module; note a failure in `problems` and return None."""
    printed = io.StringIO()
    module = None
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        text = ADDRESS.sub("", f"raised {type(error).__name__}: {error}")
        problems.append({"module": name, "problem": text[:200]})
    if printed.getvalue():
        problems.append({"module": name, "problem": f"printed {printed.getvalue()[:100]!r}"})
    return module


def _members(module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield a module's public functions, classes and methods that its own package defines."""
    listed = {name for name in getattr(module, "__all__", ()) if isinstance(name, str)}
    for name, value in list(vars(module).items()):
        if name.startswith("_") or not _is_own(value, module, name in listed):
            continue
        path = f"{module.__name__}.{name}"
        if _doc(value):
            yield path, value
        if inspect.isclass(value):
            yield from _methods(path, value)


def _is_own(value: Any, module: types.ModuleType, listed: bool) -> bool:
    """Whether a class or function belongs to the module's package; `listed`: whether it is in `__all__`."""
    if isinstance(value, types.ModuleType) or not callable(value):
        return False
    home = getattr(value, "__module__", None)
    if inspect.isclass(value) or (inspect.isroutine(value) and home is not None):
        return isinstance(home, str) and _package(home) == _package(module.__name__)
    return listed  # NumPy's ufuncs and torch's built-in functions do not name their module


def _package(module: str) -> str:
    """The package of a module; the accelerator `_json` belongs to `json`."""
    top = module.partition(".")[0]
    return ALIASES.get(top, top.removeprefix("_"))


def _methods(path: str, cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class defines itself."""
    for name, value in list(vars(cls).items()):
        value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not name.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)) and _doc(value):
            yield f"{path}.{name}", value


def _doc(value: Any) -> str:
    """The object's own docstring, not an inherited one; empty if it has none."""
    try:
        if inspect.isclass(value):
            doc = vars(value).get("__doc__")
        else:
            doc = None if value.__doc__ == type(value).__doc__ else value.__doc__
    except Exception:  # `__doc__` can run any code of the package
        return ""
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def _described(path: str, value: Any) -> dict[str, str]:
    try:
        signature = str(_without_objects(inspect.signature(value)))
    except Exception:  # no signature, or its defaults or annotations cannot be shown
        signature = ""
    home = os.path.expanduser("~")
    texts = {"name": path, "signature": signature, "doc": _doc(value)}
    return {key: ADDRESS.sub("", text).replace(home, "~") for key, text in texts.items()}


class _Hidden:
    """A default value that is not shown."""

    def __repr__(self) -> str:
        return "..."


def _without_objects(signature: inspect.Signature) -> inspect.Signature:
    """Replace the defaults that depend on the machine or the process by "...".

    `environ=os.environ` would print all environment variables, including passwords.
    """
    shown = [
        one if one.default is one.empty or _is_plain(one.default) else one.replace(default=_Hidden())
        for one in signature.parameters.values()
    ]
    return signature.replace(parameters=shown)


def _is_plain(value: Any) -> bool:
    """Whether a default is a simple value (such as a number or a text, but no path), or a tuple of simple values."""
    if isinstance(value, tuple):
        return all(_is_plain(one) for one in value)
    if isinstance(value, str):
        return type(value) is str and not os.path.isabs(value)
    return value is None or type(value) in (bool, int, float, complex, bytes, type)


def main() -> None:
    """Run `docstrings.py PACKAGE OUTPUT SEARCH_PATH`: write the result of `read_package`. The path is a JSON list."""
    package, output, search_path = sys.argv[1:]
    sys.path[:] = json.loads(search_path)
    forbid_network()
    text = json.dumps(read_package(package))
    with open(output, "w", encoding="utf-8") as stream:
        stream.write(text)
    sys.stdout.flush()
    os._exit(0)  # do not wait for threads that the package has started


if __name__ == "__main__":
    main()
