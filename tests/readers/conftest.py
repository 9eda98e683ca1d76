"""Readers of other projects, on one real Kafka and one real registry.

`make test-readers` runs all of them, and installs what they need. `--readers=cached`
leaves out the readers that the machine does not have yet; `make test` does so. The end
of a run names the readers that ran and those that were left out.
"""

from pathlib import Path

import pytest
from support import fetch, recipes
from support.reader_topics import ReaderTopics, publish_examples

NEEDS = {
    "asyncapi": fetch.directory_name("readers-node", fetch.ASYNCAPI),
    "go": fetch.directory_name("readers-go", recipes.packages("reader.go")),
    "node": fetch.directory_name("readers-node", recipes.packages("reader.mjs")),
    "sql_clickhouse": fetch.SQL_ENGINES,
    "sql_duckdb": fetch.SQL_ENGINES,
    "sql_flink": fetch.FLINK_DIRECTORY,
    "sql_spark": fetch.SPARK_DIRECTORY,
}
"""Reader → its directory in the cache. Other readers need nothing that is large."""
LEFT_OUT: set[str] = set()
RAN: set[str] = set()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--readers`."""
    parser.addoption("--readers", choices=("all", "cached"), default="all")


@pytest.fixture(scope="session")
def reader_topics(kafka: str, registry: str) -> ReaderTopics:
    """Topics with every example, which no test changes."""
    return publish_examples(kafka, registry)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out the readers that the machine does not have, if the run wants that."""
    here = [item for item in items if item.path.parent == Path(__file__).parent]
    absent = []
    for item in here:
        item.add_marker(pytest.mark.readers)
        needed = NEEDS.get(_reader(item.path))
        is_absent = needed is not None and not (fetch.cache() / needed).is_dir()
        if is_absent and config.getoption("readers") == "cached":
            absent.append(item)
    LEFT_OUT.update(_reader(item.path) for item in absent)
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record the readers whose tests passed."""
    if report.when == "call" and report.passed and "tests/readers/" in report.nodeid:
        RAN.add(_reader(Path(report.nodeid.partition("::")[0])))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the readers of this run."""
    terminalreporter.line(f"readers that ran: {', '.join(sorted(RAN)) or 'none'}")
    if LEFT_OUT:
        terminalreporter.line(
            f"readers that this machine does not have: {', '.join(sorted(LEFT_OUT))};"
            " `make test-readers` installs and runs them"
        )


def _reader(path: Path) -> str:
    return path.stem.removeprefix("test_")
