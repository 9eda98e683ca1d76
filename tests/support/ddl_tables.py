"""Tables of the topics, for tests of the SQL that reads them."""

import re

from fnm_bus.avro import schema
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.ddl.columns import Column
from fnm_bus.kafka.ddl.source import Source
from fnm_bus.kafka.ddl.topic_table import topic_tables

TOPICS = Topics()
FRAMED = {table.name: table for table in topic_tables(TOPICS, registry=True)}
SINGLE = {table.name: table for table in topic_tables(TOPICS, registry=False)}
SOURCE = Source(
    "kafka1:9092",
    "http://registry:8081",
    {
        topic: {7: schema.text(full_name)}
        for topic, full_name in TOPICS.of_framed().items()
    },
)


def names_in(columns: tuple[Column, ...]) -> list[str]:
    """Return the name of every field in the order of a statement."""
    names = []
    for column in columns:
        names.append(column.name)
        names += names_in(column.type.columns)
        for item in column.type.items:
            names += names_in(item.columns)
    return names


def typed_names(statement: str, quote: str) -> list[str]:
    """Return the quoted names in a statement that a type follows, in order."""
    return re.findall(rf"{quote}(\w+){quote} [A-Z][A-Za-z]*\d*", statement)
