"""The settings, each with its default, type and description.

docs/reference/configuration.md is generated from the descriptions.
"""

import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
)

from fnm_bus.hook import python_hook

_MIB = 1024 * 1024
_KAFKA_MUST = {
    "acks": ("all", "-1"),
    "request.required.acks": ("all", "-1"),
    "enable.idempotence": ("true",),
}
"""Settings of librdkafka with their allowed values. With others a notification would
leave the disk before Kafka has it, or Kafka would lose the order."""

MAX_LEASE = 86_400
"""Seconds: the longest lease of a mitigation, and the highest value of any time."""


def _no_flag(wanted: str) -> BeforeValidator:
    """Return a validator that refuses booleans, which pydantic accepts as 1 and 0."""

    def refuse(value: object) -> object:
        if isinstance(value, bool):
            text = f"wanted {wanted}, got {str(value).lower()}"
            raise ValueError(text)  # noqa: TRY004 - pydantic reports only this
        return value

    return BeforeValidator(refuse)


_Whole = _no_flag("a whole number")
_Number = _no_flag("a number")
Text = Annotated[str, Field(min_length=1)]
_TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
"""The names that Kafka permits; one that begins with ^ would be a pattern."""
Count = Annotated[int, Field(ge=1), _Whole]
Seconds = Annotated[float, Field(gt=0, le=MAX_LEASE), _Number]
Nice = Annotated[int, Field(ge=0, le=19), _Whole]
Port = Annotated[int, Field(ge=0, le=65_535), _Whole]
Share = Annotated[float, Field(ge=0, lt=1), _Number]
_Partitions = Annotated[int, Field(ge=1, le=10_000), _Whole]
_Replicas = Annotated[int, Field(ge=1, le=32_767), _Whole]


def _as_librdkafka_writes(value: object) -> object:
    """Return a whole number or a boolean as librdkafka's text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


Option = Annotated[str, BeforeValidator(_as_librdkafka_writes)]
"""A value of another program's settings: text, a whole number, true or false."""


class Table(BaseModel):
    """A table of the configuration file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SpoolSettings(Table):
    """The spools and their limits."""

    directory: Path = Field(
        Path(python_hook.SPOOL), description="The spool, on a local disk."
    )
    fallback: Path = Field(
        Path(python_hook.FALLBACK),
        description="A small second spool on another file system, used by the hook when"
        " the first one cannot be written.",
    )
    soft_limit_files: Count = Field(
        20_000,
        description="Waiting files above which only the newest status update of each"
        " attack is published.",
    )
    soft_limit_bytes: Count = Field(512 * _MIB, description="The same limit in bytes.")
    hard_limit_files: Count = Field(
        200_000,
        description="Waiting files at which the spool refuses all notifications: the"
        " hook stores to the fallback spool and exits with status 75.",
    )
    hard_limit_bytes: Count = Field(4096 * _MIB, description="The same limit in bytes.")
    status_reserve: Share = Field(
        0.25, description="Share of the hard limits that status updates may not use."
    )
    quarantine_files: Count = Field(
        10_000, description="Documents that the quarantine holds at most."
    )
    quarantine_bytes: Count = Field(1024 * _MIB, description="The same limit in bytes.")


class TopicSettings(Table):
    """The topics: names, and settings for `topics create`.

    A name has 1 to 249 letters, digits, dots, underscores and hyphens.
    """

    host: _TopicName = Field("fastnetmon.host.v1", description="Events of hosts.")
    hostgroup: _TopicName = Field(
        "fastnetmon.hostgroup.v1", description="Events of hostgroups."
    )
    status: _TopicName = Field("fastnetmon.status.v1", description="Status updates.")
    reason: _TopicName = Field(
        "fastnetmon.reason.v1",
        description="Reasons of mitigations with their leases, compacted.",
    )
    mitigation: _TopicName = Field(
        "fastnetmon.mitigation.v1", description="The wanted state, compacted."
    )
    command: _TopicName = Field(
        "fastnetmon.command.v1", description="Commands of people to the mitigator."
    )
    audit: _TopicName = Field(
        "fastnetmon.audit.v1", description="Decisions and actions, with their causes."
    )
    deadletter: _TopicName = Field(
        "fastnetmon.deadletter.v1",
        description="Documents and records that cannot be processed.",
    )
    partitions: _Partitions = Field(
        12,
        description="Partitions of a new topic. Kafka's tools add more later"
        " (docs/operation.md).",
    )
    replication: _Replicas = Field(
        3,
        description="Replicas of a new topic. With 3 or more, Kafka acknowledges a"
        " record when two replicas have it.",
    )


class RegistrySettings(Table):
    """The schema registry. Without an address fnm-bus uses no registry."""

    url: Text | None = Field(
        None,
        description="Base address of a registry with Confluent's API; Apicurio's ends"
        " with /apis/ccompat/v7.",
    )
    schema_ids_file: Path = Field(
        Path("/var/lib/fnm-bus/schema-ids.json"),
        description="File with the schema ids, written by `fnm-bus schemas register`.",
    )
    timeout: Seconds = Field(5.0, description="Seconds for each request.")
    client: dict[str, Option] = Field(
        default_factory=dict,
        description="Further settings of Confluent's client, under their original names"
        " (`basic.auth.user.info`, `ssl.ca.location`, …).",
    )


class RelaySettings(Table):
    """The relay."""

    metrics_host: Text = Field(
        "127.0.0.1", description="Address of /metrics and /healthz."
    )
    metrics_port: Port = Field(
        9310, description="Port of /metrics and /healthz; 0 takes a free one."
    )
    in_flight_records: Count = Field(
        10_000,
        description="Records per topic that wait for Kafka's acknowledgement, at most.",
    )
    in_flight_bytes: Count = Field(16 * _MIB, description="The same limit in bytes.")
    shutdown_timeout: Seconds = Field(
        5.0, description="Seconds that a stopping relay waits for acknowledgements."
    )
    cpu_nice: Nice = Field(
        5,
        description="CPU priority of the process that drains, from 0 (normal) to 19"
        " (lowest), so that the detector and its hooks come first.",
    )


class NotifySettings(Table):
    """`fnm-bus notify`, and the hook if no relay runs."""

    drain_timeout: Seconds = Field(
        5.0, description="Seconds that one call may spend on publishing."
    )


class LogSettings(Table):
    """Lines on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe level that is logged."
    )
    format: Literal["console", "json"] = Field(
        "console",
        description="A line of text with key=value fields, or one JSON object per line."
        " The option --log-format overrides it.",
    )


class Settings(Table):
    """All settings."""

    sensor: Text = Field(
        default_factory=socket.gethostname,
        description="Stable name of this FastNetMon. Never change it: every event_id"
        " is derived from it. The default is the machine's name.",
    )
    dry_run: bool = Field(
        default=True,
        description="Whether consumers that act only report their actions.",
    )
    spool: SpoolSettings = SpoolSettings()
    kafka: dict[str, Option] = Field(
        default_factory=lambda: {"bootstrap.servers": "localhost:9092"},
        description="librdkafka's settings under their original names, in quotes."
        " Values are text; whole numbers, true and false need no quotes. fnm-bus sets"
        ' `"reconnect.backoff.max.ms" = "1000"` unless it is set here, so that it finds'
        " a restarted broker within a second.",
    )
    kafka_files: dict[str, Path] = Field(
        default_factory=dict,
        description="librdkafka's settings with values in files, such as"
        ' `"sasl.password" = "/run/secrets/kafka"`.',
    )
    topics: TopicSettings = TopicSettings()
    registry: RegistrySettings = RegistrySettings()
    relay: RelaySettings = RelaySettings()
    notify: NotifySettings = NotifySettings()
    log: LogSettings = LogSettings()
    consumers: Any = Field(
        default_factory=dict,
        description="One table for each consumer.",
    )

    @field_validator("kafka")
    @classmethod
    def _check_delivery(cls, kafka: dict[str, str]) -> dict[str, str]:
        for name, right in _KAFKA_MUST.items():
            if (value := kafka.get(name)) is not None and value.lower() not in right:
                raise ValueError(
                    f"{name}: wanted {right[0]}, got {value}: notifications"
                    " could be lost, or lose their order; remove the setting"
                )
        return kafka
