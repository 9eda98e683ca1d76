"""Every key and element of a TOML text is found on its line."""

import json
import time
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.policy.file.toml_lines import Path, line_of, lines

DOCUMENT = """\
# a comment
name = 'x'  # [not.a.header]
[own]
networks = [  # the first
  "a", "b",

  # ] a comment that closes nothing
  "c"
  , "d",
]
text = \"\"\"
[not.a.header]
key = "nor this one" \"\"\"
[[rule]]
match = { protocol = ["udp",
  "tcp"], scope = "host" }
then.lease = "15m"
[[rule]]
[rule.match]
"odd.key" = [[1,
  2], [3]]
[[rule.deep]]
end = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("name",), 2),
        (("own",), 3),
        (("own", "networks"), 4),
        (("own", "networks", 0), 5),
        (("own", "networks", 1), 5),
        (("own", "networks", 2), 8),
        (("own", "networks", 3), 9),
        (("own", "text"), 11),
        (("rule", 0), 14),
        (("rule", 0, "match", "protocol", 1), 15),
        (("rule", 0, "match", "scope"), 15),
        (("rule", 0, "then"), 17),
        (("rule", 0, "then", "lease"), 17),
        (("rule", 1), 18),
        (("rule", 1, "match"), 19),
        (("rule", 1, "match", "odd.key"), 20),
        (("rule", 1, "match", "odd.key", 1, 0), 20),  # with the element before it
        (("rule", 1, "deep", 0, "end"), 23),
    ],
)
def test_a_key_is_found_on_its_line(path: Path, line: int) -> None:
    assert lines(DOCUMENT)[path] == line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("rule", 1, "match", "scope"), 19),
        (("rule", 1, "then", "lease"), 18),
        (("own", "networks", 9), 4),
        (("customer", 3), 1),
    ],
)
def test_what_is_not_there_has_the_line_of_the_table_that_lacks_it(
    path: Path, line: int
) -> None:
    assert line_of(lines(DOCUMENT), path) == line


def test_lines_that_end_as_on_windows_count_the_same() -> None:
    assert lines(DOCUMENT.replace("\n", "\r\n")) == lines(DOCUMENT)


def test_a_separator_that_only_python_takes_for_a_line_end_counts_as_none() -> None:
    assert lines('a = "\u2028\x85"\nb = 1')[("b",)] == 2


def test_a_list_of_many_networks_is_read_in_a_moment() -> None:
    text = "a = [\n" + '"203.0.113.0/24",\n' * 20_000 + "]\nb = 1"
    start = time.monotonic()
    assert lines(text)[("b",)] == 20_003
    assert time.monotonic() - start < 30  # 1 s; were it quadratic, an hour


SCALARS = st.one_of(st.booleans(), st.integers(-9, 9), st.text("a]\"'[#=\n\\{,é"))
KEYS = st.one_of(st.sampled_from(["a", "b-c", "rule"]), st.text('a. "]#', max_size=3))
INLINE = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=6,
)
NOISE = st.sampled_from(["", "", "", "# x = [", "# ]", "   "])


def spelled(value: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(k)} = {spelled(v)}" for k, v in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(spelled, value)) + "]"
    return json.dumps(value)


class Written:
    """A document, and where in it everything was put."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.places: dict[Path, int] = {}

    def put(self, path: Path, row: str) -> None:
        self.rows.append(row)
        for end in range(1, len(path) + 1):
            self.places.setdefault(path[:end], len(self.rows))

    def put_all(self, path: Path, value: Any) -> None:
        """Say that all of a value begins on the last line."""
        self.places.setdefault(path, len(self.rows))
        parts = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value)
            if isinstance(value, list)
            else ()
        )
        for key, below in parts:
            self.put_all((*path, key), below)


@st.composite
def documents(draw: st.DrawFn) -> Written:
    made = Written()
    tables: list[Path] = [()]
    for name in draw(st.lists(KEYS, max_size=3, unique=True)):
        if draw(st.booleans()):
            tables.append((name,))
        else:
            count = draw(st.integers(1, 3))
            tables += [(name, number) for number in range(count)]
    for table in tables:
        if table:
            name = json.dumps(table[0])
            made.put(table, f"[{name}]" if len(table) == 1 else f" [[ {name} ]] # [")
        body = draw(st.dictionaries(KEYS, INLINE, max_size=3))
        if not table:  # a table of this name would be another
            body = {f"above {key}": value for key, value in body.items()}
        for key, value in body.items():
            made.rows.append(draw(NOISE))
            path = (*table, key)
            if isinstance(value, list) and draw(st.booleans()):
                made.put(path, f"{json.dumps(key)} = [")
                for number, element in enumerate(value):
                    made.put((*path, number), f"  {spelled(element)},")
                    made.put_all((*path, number), element)
                made.rows.append("]")
            else:
                made.put(path, f"{json.dumps(key)} = {spelled(value)}")
                made.put_all(path, value)
    return made


@given(documents())
def test_everything_in_any_document_is_found_where_it_was_put(made: Written) -> None:
    text = "\n".join(made.rows)
    tomllib.loads(text)
    found = lines(text)
    assert {path: found.get(path) for path in made.places} == made.places
