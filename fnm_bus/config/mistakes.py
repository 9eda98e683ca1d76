"""Mistakes in the configuration, in words: expectation, value and remedy."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

_WANTED: Final[Mapping[str, str]] = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "path_type": "a path",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
    "tuple_type": "a list",
    "list_type": "a list",
}
"""Expected values, by pydantic's type of the error."""
_BOUNDS: Final[Mapping[str, str]] = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}
_QUOTED: Final = frozenset({"string_type", "path_type"})
_TABLES: Final = frozenset({"model_type", "model_attributes_type", "dict_type"})
_SCALARS: Final = (bool, int, float)
_SHOWN: Final = 60
_NAMES: Final = 12
"""Names of settings that a message lists, at most."""


def describe(error: Mapping[str, Any], got: object, model: Any) -> str:
    """Return the mistake in one setting and its remedy.

    Args:
        error: pydantic's description of the error.
        got: the value for people; secrets are masked.
        model: the settings, a pydantic model.
    """
    kind, path = error["type"], error["loc"]
    if kind == "extra_forbidden":
        return describe_unknown(str(path[-1]), _setting_names(model, path[:-1]))
    if kind == "value_error":
        text = str(error["ctx"]["error"])
    else:
        text = f"wanted {_wanted(error)}, got {_shown(got, kind)}"
    remedy = _remedy(error, model)
    return f"{text}; {remedy}" if remedy else text


def describe_unknown(written: str, names: Iterable[str], prefix: str = "") -> str:
    """Return that the setting *written* does not exist, with similar or all names.

    Args:
        written: the unknown name, without *prefix*.
        names: the names of the settings, without *prefix*.
        prefix: the prefix of all names.
    """
    settings = list(names)
    similar = difflib.get_close_matches(written, settings, n=1)
    if similar:
        return f"there is no such setting; did you mean {prefix}{similar[0]}?"
    if 0 < len(settings) <= _NAMES:
        return f"there is no such setting; there are {', '.join(settings)}"
    return "there is no such setting"


def _setting_names(model: Any, path: Iterable[str | int]) -> list[str]:
    """Return the names of the settings in the table at *path*."""
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        model = field.annotation
    return list(getattr(model, "model_fields", {}))


def _wanted(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS:
        numbers = {name: _number(value) for name, value in context.items()}
        return _BOUNDS[kind].format(**numbers)
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "")
    if kind == "string_pattern_mismatch":
        return str(context["pattern"]).strip("^()$").replace("|", " or ")
    return _WANTED.get(kind) or str(error["msg"])


def _number(value: object) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)  # type: ignore[call-overload]


def _shown(got: object, kind: str) -> str:
    """Return a value for people; for a table, or a value in its place, the kind."""
    if isinstance(got, Mapping):
        return "a table"
    if kind in _TABLES and not isinstance(got, _SCALARS):
        return "text" if isinstance(got, str) else "a list"
    text = json.dumps(got, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _remedy(error: Mapping[str, Any], model: Any) -> str:
    kind, path, got = error["type"], error["loc"], error["input"]
    own = _own_remedy(model, path)
    if own and kind in _BOUNDS:
        return own
    if kind in _QUOTED and isinstance(got, dict):
        dotted = ".".join([str(path[-1]), *_first_path(got)])
        return f'write a name with dots in quotes: "{dotted}" = …'
    if kind in _QUOTED and isinstance(got, _SCALARS):
        return "write it in quotes"
    if kind in {"tuple_type", "list_type"}:
        return 'write ["a", "b"], or a,b in the environment'
    if kind == "model_type":
        return f"write a line [{'.'.join(map(str, path))}], and its settings below it"
    return ""


def _own_remedy(model: Any, path: Iterable[str | int]) -> str:
    """Return the remedy that the setting declares (`json_schema_extra`)."""
    extra: Any = None
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return ""
        model, extra = field.annotation, field.json_schema_extra
    return str(extra.get("remedy", "")) if isinstance(extra, dict) else ""


def _first_path(table: Mapping[str, Any]) -> list[str]:
    """Return the keys of the first value in nested tables."""
    path: list[str] = []
    inner: Any = table
    while isinstance(inner, dict) and inner:
        name, inner = next(iter(inner.items()))
        path.append(str(name))
    return path


def is_list(kind: Any) -> bool:
    """Return whether an annotation is a list, or a list or None."""
    origin = getattr(kind, "__origin__", None)
    if origin in {list, tuple}:
        return True
    return any(is_list(part) for part in get_args(kind)) if origin is None else False
