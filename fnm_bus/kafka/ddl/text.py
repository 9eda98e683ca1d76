"""Text that the statements of all engines share."""

from collections.abc import Iterable

from fnm_bus.kafka.ddl.topic_table import Path, TopicTable


def literal(text: str) -> str:
    """Return a text as a literal of standard SQL."""
    return "'" + text.replace("'", "''") + "'"


def escaped_literal(text: str) -> str:
    """Return a text as a literal of ClickHouse and Spark, which read backslashes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def heading(topic: TopicTable, notes: Iterable[str]) -> str:
    """Return the comment above a table: its topic, its record, and *notes*."""
    lines = (f"{topic.topic}: {topic.full_name}", *notes)
    return "".join(f"-- {line}\n" for line in lines)


def quoted(path: Path) -> str:
    """Return a path in double quotes, as DuckDB and ClickHouse read it."""
    return ".".join(f'"{name}"' for name in path)
