"""One stack for all its tests, and a table of the measured times."""

import shutil
from collections.abc import Callable, Generator, Iterator

import pytest
from support.stack import Stack

ROWS: list[tuple[str, ...]] = []


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The healthy stack; removed afterwards."""
    if shutil.which("docker") is None:
        pytest.exit("docker is missing, and these tests are of nothing else", 1)
    stack = Stack()
    stack.down()
    unused = stack.unused()
    try:
        first = stack.up()
        stack.down()
        assert stack.left() == []
        assert stack.unused() <= unused
        second = stack.up()
        ROWS.append(("from nothing to healthy", f"{first:.0f} s, again {second:.0f} s"))
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="session")
def note() -> Callable[..., None]:
    """Put a row into the table that is shown at the end: `note("kafka", "2 s")`."""
    return lambda *row: ROWS.append(row)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the last log lines of the services below a test's failure."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, Stack):
        lines = stack.compose("logs", "--tail=60", check=False)
        report.sections.append(("what the services said", lines))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the table."""
    if not ROWS:
        return
    terminalreporter.section("what was seen")
    widths = [max(map(len, column)) for column in zip(*_square(ROWS), strict=True)]
    for row in _square(ROWS):
        line = "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        )
        terminalreporter.line(line.rstrip())


def _square(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    most = max(map(len, rows))
    return [(*row, *[""] * (most - len(row))) for row in rows]
