"""Problems of a policy file: the wrong key, and the remedy."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from consumers.policy.file.tables import PolicyTables

Key: TypeAlias = tuple[str | int, ...]
"""Names of keys and numbers of elements, from 0: ("rule", 2, "match", "protocol")."""

_NAMED: Final = frozenset({"rule", "customer", "hostgroup"})
_TOP: Final = {
    "own_networks": 'write own_networks = ["203.0.113.0/24"] above all tables',
    "rule": "write a [[rule]]; without a rule no measure ever starts",
}
_EXPECTED: Final[Mapping[str, str]] = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text in quotes",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text on one line",
    "model_type": "a table",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}
_BOUNDS: Final[Mapping[str, str]] = {
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
}


class Problem(NamedTuple):
    """One problem."""

    path: Key
    text: str


def format_problems(
    problems: Iterable[Problem], data: Mapping[str, Any], name: str
) -> str:
    """Return all problems, one a line, in the order of the file."""
    ordered = sorted(problems, key=lambda problem: _position(problem.path, data))
    places = ((_place(problem.path, data), problem.text) for problem in ordered)
    return "\n".join(f"{name}: {place}: {text}" for place, text in places)


def describe(error: ErrorDetails) -> str:
    """Return the text of a problem that pydantic reports."""
    kind, actual = error["type"], json.dumps(error["input"], default=str)
    path: Key = error["loc"]
    top = _TOP.get(str(path[0])) if len(path) == 1 else None
    match kind:
        case "missing":
            return f"is missing; {top}" if top else "is missing"
        case "extra_forbidden":
            return _unknown(path)
        case "value_error":
            return str(error["ctx"]["error"])
        case "too_short":
            return top or "expected at least one value; leave the key out instead"
        case "too_long" | "string_too_long":
            return f"expected at most {error['ctx']['max_length']}{_units(kind)}"
    expected = _EXPECTED.get(kind) or error["msg"].removeprefix("Input should be ")
    for pydantic_words, words in _BOUNDS.items():
        expected = expected.replace(pydantic_words, words)
    return f"expected {expected}, got {actual:.60}"


def _units(kind: str) -> str:
    return " characters" if kind == "string_too_long" else " values"


def _place(path: Key, data: Mapping[str, Any]) -> str:
    """Return a key in words: `rule "x": match.protocol`."""
    if path[0] not in _NAMED or len(path) == 1:
        return _dotted(path)
    kind, number, *keys = path
    try:
        name = data[str(kind)][number]["name"]
    except (KeyError, TypeError):
        name = None
    shown = json.dumps(name, ensure_ascii=False) if isinstance(name, str) else ""
    place = f"{kind} {shown or int(number) + 1}"
    return f"{place}: {_dotted(keys)}" if keys else place


def _dotted(keys: Iterable[str | int]) -> str:
    return ".".join(key for key in keys if isinstance(key, str))


def _position(path: Key, data: Any) -> tuple[int, ...]:
    """Return a key's position in the file, for sorting; a missing key comes first."""
    position = []
    for key in path:
        if isinstance(data, dict) and key in data:
            position.append([*data].index(key))
            data = data[key]
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            position.append(key)
            data = data[key]
        else:
            break
    return tuple(position)


def _unknown(path: Key) -> str:
    """Return the text about an unknown key: similar keys, else all keys."""
    table: Any = PolicyTables
    for key in path[:-1]:
        if isinstance(key, str):
            table = _table(table.model_fields[key].annotation)
    keys = list(table.model_fields)
    near = difflib.get_close_matches(str(path[-1]), keys, n=1)
    if near:
        return f"there is no such key; did you mean {near[0]}?"
    return f"there is no such key; the keys are {', '.join(keys)}"


def _table(kind: Any) -> Any:
    """Return the table in an annotation such as tuple[Table, ...]."""
    while not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        kind = get_args(kind)[0]
    return kind
