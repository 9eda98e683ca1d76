"""The statements of an engine for the topics."""

from collections.abc import Iterable
from typing import Literal

from fnm_bus.kafka.ddl import clickhouse, duckdb, flink, spark
from fnm_bus.kafka.ddl.source import Source
from fnm_bus.kafka.ddl.topic_table import TopicTable

Engine = Literal["flink", "clickhouse", "duckdb", "spark"]


def statements(engine: Engine, topics: Iterable[TopicTable], source: Source) -> str:
    """Return the statements that create an engine's tables.

    Raises:
        SchemaError: Spark needs schema ids, and a topic has none.
    """
    match engine:
        case "flink":
            parts = [flink.table(topic, source) for topic in topics]
        case "clickhouse":
            parts = [clickhouse.table(topic, source) for topic in topics]
        case "duckdb":
            views = [duckdb.table(topic) for topic in topics]
            parts = [duckdb.PREAMBLE, *views]
        case "spark":
            parts = [spark.table(topic, source) for topic in topics]
    return "\n".join(parts)
