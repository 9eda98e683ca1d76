"""TOML lines: where a key stands in a text.

tomllib says what a document holds and not where, and no library that says it is kept
up. So tomllib itself reads the document here, one statement after another: no rule of
TOML's grammar is written down a second time.
"""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Names of keys and numbers of elements, from 0: ("rule", 2, "match", "protocol")."""


def lines(text: str) -> dict[Path, int]:
    """Return the line, from 1, of each table, key and element of a valid document.

    What stands in one statement has the line on which that begins. Only where the
    statement's value is an array over several lines, each element has its own.
    """
    found: dict[Path, int] = {(): 1}
    sizes: dict[Path, int] = {}
    table: Path = ()
    for number, path, value in _statements(text):
        if path is None:
            table = _header(value, sizes)
            for end in range(1, len(table) + 1):
                found.setdefault(table[:end], number)
        else:
            for it in _paths(value, path):
                found.setdefault((*table, *it), number)
    return found


def line_of(found: Mapping[Path, int], path: Path) -> int:
    """Return the line of *path*, or of the nearest table above it that is there."""
    while path not in found and path:
        path = path[:-1]
    return found.get(path, 1)


def _statements(text: str) -> Iterator[tuple[int, Path | None, Any]]:
    """Yield what is read, and the line on which that begins.

    With None for a path it is a table's header; else the value, or a part of it, that
    stands at the path in the table.

    TOML is read from left to right: lines that are a document by themselves are whole
    statements, and no line that follows changes them. An array that is still open is
    read as far as it goes, and is then gone on with as `x = […`: else each of its
    lines would be read again with every line that follows.
    """
    waiting, start = "", 0
    path: Path | None = None  # of the array that is open
    count = standing_in = 0  # elements before, and how many of them `x` has
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        start = start or number
        waiting += line + "\n"
        whole = _load(waiting)
        part = whole if whole is not None else _load(waiting + "]")
        if part is None:
            continue
        if path is None and whole is not None:
            yield start, None if _is_header(waiting) else (), whole
        else:
            if path is None:
                path, values = _array(part)
                yield start, path, []
            else:
                values = part["x"][standing_in:]
            for value in values:
                yield start, (*path, count), value
                count += 1
        if whole is None:
            # An element can follow here at once, or only after a comma.
            standing_in = 0 if _load(waiting + "0]") is not None else 1
            waiting = "x = [0" if standing_in else "x = ["
        else:
            waiting, path, count = "", None, 0
        start = 0


def _load(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _is_header(statement: str) -> bool:
    return statement.lstrip(" \t").startswith("[")


def _array(values: Any) -> tuple[Path, list[Any]]:
    """Return where the only value of a statement stands, which is an array, and it."""
    path: Path = ()
    while isinstance(values, dict):
        ((key, values),) = values.items()
        path = (*path, key)
    return path, values


def _header(values: Any, sizes: dict[Path, int]) -> Path:
    """Return the path of a header's table.

    Args:
        values: what tomllib makes of the header alone.
        sizes: path of an array of tables → how many it has so far; kept up here.
    """
    path: Path = ()
    while values:
        ((key, values),) = values.items()
        path = (*path, key)
        if isinstance(values, list):  # [[…]]
            sizes[path] = sizes.get(path, 0) + 1
            values = None
        if path in sizes:
            path = (*path, sizes[path] - 1)
    return path


def _paths(value: Any, path: Path) -> Iterator[Path]:
    """Yield *path* and those of all that is in *value*."""
    yield path
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _paths(below, (*path, key))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _paths(below, (*path, number))
