"""The addresses that a table names."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Source:
    """The Kafka cluster and the schema registry.

    Attributes:
        servers: Kafka's `bootstrap.servers`.
        registry_url: base address of the registry's Confluent API, or None.
        writers: topic → schema id → schema as JSON text, for the ids that are pinned.
    """

    servers: str
    registry_url: str | None = None
    writers: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
