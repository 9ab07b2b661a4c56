"""Render the templates, and format their values in Markdown."""

from __future__ import annotations

import json
import re
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeGuard

from rich.filesize import decimal

from amer.hub import public_name
from modeling_amer.publishing_amer import is_repo_id

if TYPE_CHECKING:
    from jinja2 import Environment

LINK = "https://huggingface.co/"


def render(template: str, **facts: Any) -> str:
    """The Markdown of a template in `hub_cards/templates`. All facts that the template uses are required."""
    return _environment().get_template(f"{template}.md.jinja").render(facts)


def code(value: Any) -> str:
    """A value as inline code; it may contain backticks."""
    text = str(value).replace("\n", "\\n")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def block(text: str, language: str = "") -> str:
    """A text as a fenced block; it may contain fences."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def repository(name: str, kind: str = "") -> str:
    """A link for a name on the Hub, inline code for a folder.

    Args:
        name: Name of a model or dataset.
        kind: "datasets/" for a dataset.
    """
    return f"[{name}]({LINK}{kind}{name})" if is_repository(name) else code(public_name(name))


def revision(commit: str | None) -> str:
    """The text " at `commit`", or an empty text without a commit."""
    return f" at {code(commit)}" if commit else ""


def is_repository(name: str | None) -> TypeGuard[str]:
    """Whether a name is one on the Hub and not a folder."""
    return bool(name and is_repo_id(name))


def duration(seconds: float) -> str:
    """Seconds in readable units: 4.2 s, 41 s, 6 min 7 s, 3 h 20 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_of_hour = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_of_hour} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def number(value: Any) -> str:
    """A setting as a table shows it: 0.001, 1e-05, 25,000, yes, a, b."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(number, value)) if isinstance(value, list) else str(value)


def quoted(value: str) -> str:
    """A string as a Python literal."""
    return json.dumps(value, ensure_ascii=False)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "block": block,
        "code": code,
        "duration": duration,
        "json": partial(json.dumps, ensure_ascii=False, indent=2),
        "number": number,
        "quoted": quoted,
        "repository": repository,
        "size": decimal,
    }
    return environment
