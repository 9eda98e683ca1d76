"""Printed text cannot steer a terminal; one module prints."""

import ast
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnm_bus.ops.terminal import SafeStream, json_line, visible, visible_lines

ROOT = Path(__file__).parents[3]
EVIL = [
    *("\x1b[2J", "\x1b]0;title\x07", "\x9b2J", "\x9d0;title\x9c", "\x7f", "\x00"),
    *("a\nb", "a\rb", "a\x85b", "a\u2028b", "a\u2029b", "a\x0bb", "a\tb"),
    *("\u202egnp.exe", "\u2066x\u2069", "\u200ex", "\u061cx", "\ufeffx", "\u00adx"),
    *("\udcff", "\ue000", "\U000e0041", "\ufdd0"),
]
PRINTERS = {"print", "echo", "secho", "style", "stdout", "stderr", "__stderr__"}
MAY_PRINT = {
    "fnm_bus/cli/options.py": "the module that prints",
    "fnm_bus/hook/python_hook.py": "the hook, which imports nothing of ours",
    "fnm_bus/ops/log.py": "the log, made safe by `visible` and `json_line`",
    "consumers/samples/print_bans.py": "prints a line of `visible`",
    "consumers/samples/blackhole_bans.py": "the pipe to ExaBGP; prefixes only",
    "consumers/jsonlines.py": "standard output gets lines of `json_line`",
    "consumers/enforcers/exabgp/server.py": "runs as ExaBGP; its line is `visible`",
    "consumers/enforcers/exabgp/watchdog.py": "a stream that `run` made safe",
    "consumers/enforcers/exabgp/session.py": "the pipe to ExaBGP",
    "consumers/cli/mitigations.py": "asks whether standard input is a terminal",
}


@pytest.mark.parametrize("text", EVIL)
def test_unprintable_characters_are_escaped(text: str) -> None:
    assert visible(text).isprintable()
    assert visible(text) == "".join(
        c if c.isprintable() else repr(c)[1:-1] for c in text
    )


@pytest.mark.parametrize("text", ["", "203.0.113.7", "Köln ÄÖ", "ネット", "a\\x1b"])
def test_printable_text_stays(text: str) -> None:
    assert visible(text) == text


@given(st.text())
def test_lines_are_cut_at_line_feeds_only(text: str) -> None:
    lines = visible_lines(text).split("\n")
    assert len(lines) == text.count("\n") + 1
    assert all(line.isprintable() for line in lines)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_printable_and_the_same_value(value: Any) -> None:
    line = json_line(value)
    assert line.isprintable()
    assert json.loads(line) == value


@pytest.mark.parametrize("text", EVIL)
def test_json_of_control_characters_keeps_the_value(text: str) -> None:
    assert json_line(text).isprintable()
    assert json.loads(json_line(text)) == text


def test_a_safe_stream_escapes_text_of_libraries() -> None:
    raw = io.StringIO()
    stream = SafeStream(raw)
    assert stream.write("Error: \x1b[2J\n") == len("Error: \x1b[2J\n")
    print("\u202e", file=stream)
    assert raw.getvalue() == "Error: \\x1b[2J\n\\u202e\n"


def printing(path: Path) -> Iterator[str]:
    """Yield each name in a module by which something can be printed."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in PRINTERS:
            owner = node.value
            if isinstance(owner, ast.Name) and owner.id in {"typer", "click", "sys"}:
                yield f"{path.relative_to(ROOT)}:{node.lineno} {owner.id}.{node.attr}"
        if isinstance(node, ast.Name) and node.id == "print":
            yield f"{path.relative_to(ROOT)}:{node.lineno} print"


def test_everything_prints_through_a_single_module() -> None:
    modules = [
        path
        for folder in ("fnm_bus", "consumers")
        for path in (ROOT / folder).rglob("*.py")
        if str(path.relative_to(ROOT)) not in MAY_PRINT
    ]
    assert [name for path in modules for name in printing(path)] == []


def test_allowed_characters_are_printed() -> None:
    assert all((ROOT / name).exists() for name in MAY_PRINT)
