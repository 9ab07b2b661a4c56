"""Build command options from the fields of a dataclass, so that each is written once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_origin, get_type_hints

import typer


def with_fields(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each dataclass parameter of a command by one option per field.

    A field's help is its `metadata["help"]`, unless its type has a typer annotation. A ValueError of the dataclass
    becomes a usage error.
    """
    parameters = signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {
        parameter.name: parameter.annotation for parameter in parameters if is_dataclass(parameter.annotation)
    }

    @wraps(command)
    def call(**values: Any) -> None:
        for name, cls in groups.items():
            own = {field.name: values.pop(field.name) for field in fields(cls)}
            try:
                values[name] = cls(**own)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
        command(**values)

    options: list[Parameter] = []
    for parameter in parameters:
        options += _options(parameter.annotation) if parameter.name in groups else [_keyword_only(parameter)]
    call.__signature__ = Signature(options)  # type: ignore[attr-defined]  # inspect and typer read this attribute
    return call


def _options(cls: Any) -> list[Parameter]:
    """One keyword-only parameter per field."""
    hints = get_type_hints(cls, include_extras=True)
    options = []
    for field in fields(cls):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated:
            hint = Annotated[hint, typer.Option(help=field.metadata["help"])]
        default = Parameter.empty if field.default is MISSING else field.default
        options.append(Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint))
    return options


def _keyword_only(parameter: Parameter) -> Parameter:
    return parameter.replace(kind=Parameter.KEYWORD_ONLY)
