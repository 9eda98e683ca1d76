"""The rights that each program needs, and the commands that give them.

Pure. This table is the only list: `topics acls`, `check`, the tests with a real
authorizer and docs/security.md are generated from it.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Final, NamedTuple

from fnm_bus.errors import ConfigError
from fnm_bus.kafka.addressing import Topics
from fnm_bus.kafka.names import (
    CREATE,
    DESCRIBE,
    DESCRIBE_CONFIGS,
    GROUP,
    READ,
    READER_GROUP,
    TOPIC,
    TRANSACTIONAL_ID,
    WRITE,
)

PROGRAMS: Final = (
    *("relay", "mitigator", "exabgp", "nftables", "notifier", "jsonlines"),
    *("operator", "viewer", "admin"),
)
"""The programs, and the people that run commands: docs/security.md has the commands."""
_UNKNOWN: Final = f"unknown program; known programs are {', '.join(PROGRAMS)}"
MITIGATOR_ID: Final = "fnm-bus-mitigator"
NOTIFIER_GROUP: Final = "fnm-bus-notifier"
JSONLINES_GROUP: Final = "fnm-bus-jsonlines"
"""Defaults of the consumers' settings."""
_ELECTION: Final = "-election"
_OPTIONS: Final = {
    TOPIC: "--topic",
    GROUP: "--group",
    TRANSACTIONAL_ID: "--transactional-id",
}
"""kafka-acls' options, by the kind of the resource."""
_PREFIX: Final = "User:"


class Right(NamedTuple):
    """One right: an operation that is allowed on one resource.

    Attributes:
        operation: such as Read. Read and Write include Describe.
        kind: Topic, Group or TransactionalId.
        name: of the resource, literally.
    """

    operation: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Resources:
    """The configured names of topics, groups and transactional ids.

    Attributes:
        topics: names of the topics.
        mitigator: transactional id and group of the mitigator.
        notifier: group of the notifier.
        jsonlines: group of jsonlines.
        jsonlines_topics: topics that jsonlines reads; empty for its default.
    """

    topics: Topics = field(default_factory=Topics)
    mitigator: str = MITIGATOR_ID
    notifier: str = NOTIFIER_GROUP
    jsonlines: str = JSONLINES_GROUP
    jsonlines_topics: tuple[str, ...] = ()


def rights_of(program: str, resources: Resources) -> tuple[Right, ...]:
    """Return every right that *program* needs, and no other.

    Args:
        program: one of PROGRAMS.
        resources: the configured names.

    Raises:
        ConfigError: the program is unknown.
    """
    if program not in PROGRAMS:
        raise ConfigError(f"{program}: {_UNKNOWN}")
    topics = resources.topics
    every_topic = astuple(topics)
    events = (topics.host, topics.hostgroup, topics.status)
    state = (topics.reason, topics.mitigation)
    reader = Right(DESCRIBE, GROUP, READER_GROUP)
    viewer = (*_on_topics(READ, every_topic), reader)
    enforcer = (
        *_on_topics(READ, (topics.mitigation, topics.command)),
        *_on_topics(WRITE, (topics.audit,)),
        reader,
    )
    rights = {
        "relay": _on_topics(WRITE, (*events, topics.deadletter)),
        "mitigator": (
            *_on_topics(READ, (topics.command, *events, *state)),
            *_on_topics(WRITE, (*state, topics.audit, topics.deadletter)),
            Right(READ, GROUP, resources.mitigator),
            Right(READ, GROUP, f"{resources.mitigator}{_ELECTION}"),
            reader,
            Right(WRITE, TRANSACTIONAL_ID, resources.mitigator),
        ),
        "exabgp": enforcer,
        "nftables": enforcer,
        "notifier": (
            *_on_topics(READ, (topics.mitigation,)),
            *_on_topics(WRITE, (topics.deadletter,)),
            Right(READ, GROUP, resources.notifier),
            reader,
        ),
        "jsonlines": (
            *_on_topics(READ, resources.jsonlines_topics or (*events, topics.audit)),
            *_on_topics(WRITE, (topics.deadletter,)),
            Right(READ, GROUP, resources.jsonlines),
        ),
        "operator": (*viewer, *_on_topics(WRITE, (topics.command,))),
        "viewer": viewer,
        "admin": tuple(
            right
            for operation in (CREATE, DESCRIBE, DESCRIBE_CONFIGS)
            for right in _on_topics(operation, every_topic)
        ),
    }
    return tuple(dict.fromkeys(rights[program]))


def _on_topics(operation: str, names: Iterable[str]) -> tuple[Right, ...]:
    return tuple(Right(operation, TOPIC, name) for name in names)


def resource_names(topics: Topics, consumers: object) -> Resources:
    """Return the names from the topics and the raw tables below [consumers]."""

    def value(table: str, key: str) -> Any:
        section = consumers.get(table) if isinstance(consumers, Mapping) else None
        return section.get(key) if isinstance(section, Mapping) else None

    def text(table: str, key: str, default: str) -> str:
        given = value(table, key)
        return given if isinstance(given, str) and given else default

    listed = value("jsonlines", "topics")
    if isinstance(listed, str):
        listed = [name.strip() for name in listed.split(",") if name.strip()]
    return Resources(
        topics,
        text("mitigator", "transactional_id", MITIGATOR_ID),
        text("notifier", "group", NOTIFIER_GROUP),
        text("jsonlines", "group", JSONLINES_GROUP),
        tuple(map(str, listed)) if isinstance(listed, list | tuple) else (),
    )


def principal_names(texts: list[str]) -> dict[str, str]:
    """Return program → principal from texts such as `relay=User:fnm-bus-relay`.

    Raises:
        ConfigError: a text has another form, or names an unknown program.
    """
    principals: dict[str, str] = {}
    for text in texts:
        program, _, principal = text.partition("=")
        if not principal.startswith(_PREFIX) or principal == _PREFIX:
            raise ConfigError(
                f"--principal {text}: expected PROGRAM=User:NAME, such as"
                " relay=User:fnm-bus-relay"
            )
        if program not in PROGRAMS:
            raise ConfigError(f"--principal {text}: {_UNKNOWN}")
        principals[program] = principal
    return principals


def acl_commands(
    principals: Mapping[str, str], resources: Resources, bootstrap: str
) -> Iterator[str]:
    """Yield the kafka-acls commands, one for each kind of resource and operation.

    Args:
        principals: program → principal.
        resources: the configured names.
        bootstrap: the brokers.
    """
    for program, principal in principals.items():
        grouped: dict[tuple[str, str], list[str]] = {}
        for right in rights_of(program, resources):
            grouped.setdefault((right.kind, right.operation), []).append(right.name)
        for (kind, operation), names in grouped.items():
            words = [
                *("kafka-acls", "--bootstrap-server", bootstrap),
                *("--command-config", "admin.properties", "--add"),
                *("--allow-principal", principal, "--operation", operation),
                *(word for name in names for word in (_OPTIONS[kind], name)),
            ]
            yield shlex.join(words)
