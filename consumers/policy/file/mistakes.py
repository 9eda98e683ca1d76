"""Policy mistakes: what is wrong, said for people, each with its line."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from consumers.policy.file.tables import PolicyTables
from consumers.policy.file.toml_lines import Path, line_of, lines

_NAMED: Final = frozenset({"rule", "customer", "group"})
_TOP: Final = {
    "own": 'write [own] with networks = ["203.0.113.0/24"]',
    "rule": "write a [[rule]]; without one nothing is ever done",
}
_WANTED: Final[Mapping[str, str]] = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text in quotes",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text on one line",
    "model_type": "a table",
    "tuple_type": "a list",
    "finite_number": "a number that is not as large",
}
_BOUNDS: Final[Mapping[str, str]] = {
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
}


class Problem(NamedTuple):
    """One mistake.

    Attributes:
        path: where it stands, or should.
        text: what is wrong and what to do.
    """

    path: Path
    text: str


def told(
    problems: Iterable[Problem], data: Mapping[str, Any], text: str, name: str
) -> str:
    """Return all mistakes, one a line, in the order of the file.

    Args:
        problems: the mistakes.
        data: what tomllib made of the text.
        text: the policy's text.
        name: of its file.
    """
    found = lines(text)
    rows = sorted(
        (line_of(found, it.path), _place(it.path, data), it) for it in problems
    )
    return "\n".join(
        f"{name}:{line}: {place}: {it.text}" if place else f"{name}:{line}: {it.text}"
        for line, place, it in rows
    )


def said(error: ErrorDetails) -> str:
    """Return a mistake that pydantic found, in words."""
    kind, got = error["type"], json.dumps(error["input"], default=str)
    path: Path = error["loc"]
    match kind:
        case "missing":
            return (
                f"is missing; {_TOP[str(path[0])]}" if len(path) == 1 else "is missing"
            )
        case "extra_forbidden":
            return _unknown(path)
        case "value_error":
            return str(error["ctx"]["error"])
        case "too_short" if path[0] in _TOP and len(path) == 1:
            return _TOP[str(path[0])]
        case "too_short":
            return "wanted at least one, got none; leave the key out instead"
    wanted = _WANTED.get(kind) or error["msg"].removeprefix("Input should be ")
    for theirs, ours in _BOUNDS.items():
        wanted = wanted.replace(theirs, ours)
    return f"wanted {wanted}, got {got:.60}"


def _place(path: Path, data: Mapping[str, Any]) -> str:
    """Return in words where a path leads: `rule "x": match.protocol`."""
    if not path or path[0] not in _NAMED or len(path) == 1:
        return ".".join(it for it in path if isinstance(it, str))
    kind, number, *keys = path
    try:
        name = data[str(kind)][number]["name"]
    except (KeyError, TypeError):
        name = None
    shown = json.dumps(name, ensure_ascii=False) if isinstance(name, str) else ""
    place = f"{kind} {shown or int(number) + 1}"
    rest = ".".join(it for it in keys if isinstance(it, str))
    return f"{place}: {rest}" if rest else place


def _unknown(path: Path) -> str:
    """Return that there is no such key, and which there are."""
    table: Any = PolicyTables
    for key in path[:-1]:
        if isinstance(key, str):
            table = _table(table.model_fields[key].annotation)
    known = list(table.model_fields)
    near = difflib.get_close_matches(str(path[-1]), known, n=1)
    if near:
        return f"there is no such key; did you mean {near[0]}?"
    return f"there is no such key; known are {', '.join(known)}"


def _table(kind: Any) -> Any:
    """Return the table in an annotation such as tuple[Table, ...]."""
    while not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        kind = get_args(kind)[0]
    return kind
