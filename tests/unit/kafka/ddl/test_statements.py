from typing import get_args

import pytest
from support.ddl_tables import FRAMED, SOURCE

from fnm_bus.kafka.ddl.statements import Engine, statements


@pytest.mark.parametrize("engine", get_args(Engine))
def test_an_engine_gets_the_tables_of_all_topics_in_order(engine: Engine) -> None:
    text = statements(engine, FRAMED.values(), SOURCE)
    headings = [line for line in text.split("\n") if line.startswith("-- fastnetmon.")]

    assert headings == [
        f"-- {table.topic}: {table.full_name}" for table in FRAMED.values()
    ]


def test_duckdb_loads_its_extension_first() -> None:
    assert statements("duckdb", (), SOURCE) == "INSTALL avro;\nLOAD avro;\n"
