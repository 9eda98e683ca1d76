"""A setting in words: one row of a reference's table."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typing_extensions import Doc

WORDS: Final = {
    bool: "`true` or `false`",
    str: "string",
    int: "integer",
    float: "number",
    Path: "path",
}


def row(name: str, field: FieldInfo) -> str:
    """Return the row of a setting: name, type, default and meaning."""
    default = field.get_default(call_default_factory=False)
    kind = _kind(field)
    shown = "" if default is None or not _plain(default) else f"`{_toml(default)}`"
    if kind.startswith("duration"):
        shown = f'`"{_duration(default)}"`'
    elif field.is_required():
        shown = "required"
    return f"| `{name}` | {kind} | {shown} | {field.description} |\n"


def _duration(seconds: float) -> str:
    return f"{seconds:g}s" if seconds % 60 else f"{seconds / 60:g}m"


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float | Path | tuple) and value != ()


def _toml(value: object) -> str:
    return json.dumps(value, default=str)


def _kind(field: FieldInfo) -> str:
    """Return the type of a setting in words, with its bounds."""
    for note in _notes(field.metadata, field.annotation):
        if isinstance(note, Doc):
            return note.documentation
    words = _word(field.annotation)
    for bound in _bounds(field.metadata, field.annotation):
        match bound:
            case Ge(ge=least):
                words += f", {least} or more"
            case Gt(gt=least):
                words += f", more than {least}"
            case Le(le=most):
                words += f", {most} at most"
            case Lt(lt=most):
                words += f", less than {most}"
            case MinLen():
                words += ", not empty"
    return words


def _bounds(metadata: list[Any], kind: Any) -> Iterator[Any]:
    if get_origin(kind) is tuple:  # its elements' bounds are not its own
        kind = None
    for note in _notes(metadata, kind):
        yield from note.metadata if isinstance(note, FieldInfo) else (note,)


def _notes(metadata: list[Any], kind: Any) -> Iterator[Any]:
    """Yield the constraints of a type, also where null is allowed."""
    yield from metadata
    for part in get_args(kind):
        yield from getattr(part, "__metadata__", ())


def _word(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f"`{json.dumps(word)}`" for word in get_args(kind))
    if get_origin(kind) in {Union, UnionType}:
        return _word(next(part for part in get_args(kind) if part is not type(None)))
    if get_origin(kind) is dict:
        return "table of strings"
    if get_origin(kind) is tuple:
        return f"list of {_word(get_args(kind)[0])}s"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "table"
    return WORDS[getattr(kind, "__origin__", kind)]
