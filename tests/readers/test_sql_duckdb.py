"""DuckDB reads archives, and answers the questions of examples/sql."""

from operator import attrgetter
from pathlib import Path

import pytest
from support.ddl_tables import FRAMED, SOURCE, TOPICS
from support.noc_scenario import ANSWERS, records
from support.sql_questions import comparable, execute, questions, statements

from fnm_bus.avro.archive import Archive
from fnm_bus.avro.examples import example_records
from fnm_bus.kafka.ddl.statements import statements as ddl
from fnm_bus.kafka.ddl.topic_table import TopicTable


def archive(directory: Path, name: str, events: list[object]) -> None:
    with Archive(directory / f"{name}.avro", FRAMED[name].full_name) as file:
        for event in events:
            file.add(event)  # type: ignore[arg-type]


def test_every_view_shows_each_record_once(tmp_path: Path) -> None:
    for name, table in FRAMED.items():
        examples = list(example_records(table.full_name).values())
        archive(tmp_path, name, examples * 2)
    tables = statements(ddl("duckdb", FRAMED.values(), SOURCE))
    counts = [f"SELECT count(*) FROM {name}" for name in FRAMED]

    rows = execute("duckdb", [*tables, *counts], tmp_path)[len(tables) :]

    assert {name: int(row[0][0]) for name, row in zip(FRAMED, rows, strict=True)} == {
        name: identities(table) for name, table in FRAMED.items()
    }


def identities(table: TopicTable) -> int:
    """Return the number of rows for the examples of a table, each stored twice."""
    examples = list(example_records(table.full_name).values())
    if not table.identity:
        return 2 * len(examples)
    values = attrgetter(*(".".join(path) for path in table.identity))
    return len({values(example) for example in examples})


@pytest.mark.parametrize("name", ANSWERS)
def test_a_question_has_its_answer(
    answers: dict[str, list[tuple[str, ...]]], name: str
) -> None:
    assert answers[name] == ANSWERS[name]


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, list[tuple[str, ...]]]:
    directory = tmp_path_factory.mktemp("duckdb")
    events: dict[str, list[object]] = {name: [] for name in FRAMED}
    for topic, _, event in records(TOPICS):
        (name,) = (name for name, table in FRAMED.items() if table.topic == topic)
        events[name].append(event)
    for name, contents in events.items():
        archive(directory, name, contents)
    tables = statements(ddl("duckdb", FRAMED.values(), SOURCE))
    asked = questions("duckdb")
    texts = [question.statement for question in asked]
    rows = execute("duckdb", [*tables, *texts], directory)[len(tables) :]
    return {
        question.name: comparable(answer)
        for question, answer in zip(asked, rows, strict=True)
    }
