"""The rights that each program needs, and the commands that give them.

Pure. This table is the only list: `topics acls`, `check`, the tests with a real
authorizer and docs/security.md are generated from it.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

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
        raise ConfigError(f"{program}: {_unknown_program()}")
    return tuple(dict.fromkeys(_RIGHTS[program](resources)))


def resource_names(
    topics: Topics, consumers: Mapping[str, object] | object
) -> Resources:
    """Return the names from the topics and the raw tables below [consumers]."""
    defaults = Resources()

    def value(table: str, key: str, default: str) -> str:
        section = consumers.get(table) if isinstance(consumers, Mapping) else None
        text = section.get(key) if isinstance(section, Mapping) else None
        return text if isinstance(text, str) and text else default

    listed: object = None
    if isinstance(consumers, Mapping):
        table = consumers.get("jsonlines")
        listed = table.get("topics") if isinstance(table, Mapping) else None
    if isinstance(listed, str):
        listed = [name.strip() for name in listed.split(",") if name.strip()]
    return Resources(
        topics,
        value("mitigator", "transactional_id", defaults.mitigator),
        value("notifier", "group", defaults.notifier),
        value("jsonlines", "group", defaults.jsonlines),
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
            raise ConfigError(f"--principal {text}: {_unknown_program()}")
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


def _unknown_program() -> str:
    return f"unknown program; known programs are {', '.join(PROGRAMS)}"


PROGRAMS: Final[Mapping[str, str]] = {
    "relay": "the relay, `notify` and the drain",
    "mitigator": "`fnm-bus-consumer mitigator`",
    "exabgp": "`fnm-bus-consumer exabgp`",
    "nftables": "`fnm-bus-consumer nftables`",
    "notifier": "`fnm-bus-consumer notifier`",
    "jsonlines": "`fnm-bus-consumer jsonlines`",
    "operator": "`fnm-bus mitigations` and `explain`, and all of viewer",
    "viewer": "`fnm-bus tail`",
    "admin": "`fnm-bus topics create` and `topics list`",
}
"""Program → the commands that run with its rights."""


def _all_topics(resources: Resources) -> tuple[str, ...]:
    topics = resources.topics
    return (
        *(topics.host, topics.hostgroup, topics.status),
        *(topics.reason, topics.mitigation),
        *(topics.command, topics.audit, topics.deadletter),
    )


def _on_topics(operation: str, *names: str) -> Iterator[Right]:
    for name in names:
        yield Right(operation, TOPIC, name)


def _relay(resources: Resources) -> Iterator[Right]:
    topics = resources.topics
    yield from _on_topics(
        WRITE, topics.host, topics.hostgroup, topics.status, topics.deadletter
    )


def _mitigator(resources: Resources) -> Iterator[Right]:
    topics = resources.topics
    yield from _on_topics(
        READ, topics.command, topics.host, topics.hostgroup, topics.status
    )
    yield from _on_topics(READ, topics.reason, topics.mitigation)
    yield from _on_topics(
        WRITE, topics.reason, topics.mitigation, topics.audit, topics.deadletter
    )
    yield Right(READ, GROUP, resources.mitigator)
    yield Right(READ, GROUP, f"{resources.mitigator}{_ELECTION}")
    yield Right(DESCRIBE, GROUP, READER_GROUP)
    yield Right(WRITE, TRANSACTIONAL_ID, resources.mitigator)


def _enforcer(resources: Resources) -> Iterator[Right]:
    topics = resources.topics
    yield from _on_topics(READ, topics.mitigation, topics.command)
    yield from _on_topics(WRITE, topics.audit)
    yield Right(DESCRIBE, GROUP, READER_GROUP)


def _notifier(resources: Resources) -> Iterator[Right]:
    yield from _on_topics(READ, resources.topics.mitigation)
    yield from _on_topics(WRITE, resources.topics.deadletter)
    yield Right(READ, GROUP, resources.notifier)
    yield Right(DESCRIBE, GROUP, READER_GROUP)


def _jsonlines(resources: Resources) -> Iterator[Right]:
    topics = resources.topics
    read = resources.jsonlines_topics or (
        *(topics.host, topics.hostgroup, topics.status, topics.audit),
    )
    yield from _on_topics(READ, *read)
    yield from _on_topics(WRITE, topics.deadletter)
    yield Right(READ, GROUP, resources.jsonlines)


def _operator(resources: Resources) -> Iterator[Right]:
    yield from _viewer(resources)
    yield from _on_topics(WRITE, resources.topics.command)


def _viewer(resources: Resources) -> Iterator[Right]:
    yield from _on_topics(READ, *_all_topics(resources))
    yield Right(DESCRIBE, GROUP, READER_GROUP)


def _admin(resources: Resources) -> Iterator[Right]:
    for operation in (CREATE, DESCRIBE, DESCRIBE_CONFIGS):
        yield from _on_topics(operation, *_all_topics(resources))


_RIGHTS: Final = {
    "relay": _relay,
    "mitigator": _mitigator,
    "exabgp": _enforcer,
    "nftables": _enforcer,
    "notifier": _notifier,
    "jsonlines": _jsonlines,
    "operator": _operator,
    "viewer": _viewer,
    "admin": _admin,
}
