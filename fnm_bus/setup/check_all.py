"""The doctor: look at everything between FastNetMon and Kafka; change nothing."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from fnm_bus import build
from fnm_bus.avro import schema_ids
from fnm_bus.config.settings import Settings
from fnm_bus.errors import AccessDenied, FnmBusError, SchemaError, TopicRefused
from fnm_bus.kafka.access import Resources, Right, rights_of
from fnm_bus.kafka.client_errors import principal_of
from fnm_bus.kafka.connection_check import check_connection
from fnm_bus.kafka.names import GROUP, TOPIC, TRANSACTIONAL_ID
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import TopicSpec, planned_topics, topic_differences
from fnm_bus.setup.check_result import CheckResult
from fnm_bus.spool import layout
from fnm_bus.spool.spool import Spool

_FREE: Final = 1 << 30
_SHOWN: Final = 3
"""Entries that are named; there may be thousands of them."""
_FCLI_WITHIN: Final = 10.0
_WANTED_OF_FASTNETMON: Final = {
    "notify_script_enabled": "enable",
    "notify_script_format": "json",
    "notify_script_attack_status_updates": "enable",
}


def examine(settings: Settings) -> Iterator[CheckResult]:
    """Yield what was found, one thing after the other."""
    for look in (_spool, _relay, _topics, _registry, _fastnetmon):
        try:
            yield from look(settings)
        except FnmBusError as exc:
            yield CheckResult(ok=False, what=str(exc), remedy=_REMEDIES[look])


def _spool(settings: Settings) -> Iterator[CheckResult]:
    for name, root in (
        ("spool", settings.spool.directory),
        ("fallback spool", settings.spool.fallback),
    ):
        remedy = (
            "run `fnm-bus hook install` as root with --owner and --group: it makes it"
        )
        if not root.is_dir():
            yield CheckResult(ok=False, what=f"{name} {root}: missing", remedy=remedy)
            continue
        facts = root.stat()
        for fault in layout.faults(root, facts.st_uid, facts.st_gid):
            yield CheckResult(ok=False, what=f"{name}: {fault}", remedy=remedy)
        closed = layout.unreadable(root, facts.st_uid, _groups(facts))
        if closed:
            yield CheckResult(
                ok=False,
                what=f"{name}: the relay may not read {len(closed)} entries:"
                f" {', '.join(closed[:_SHOWN])}",
                remedy="chgrp them to the spool's group and chmod 640; then the relay"
                " publishes them",
            )
        depth, free = Spool(root).size(), shutil.disk_usage(root).free
        yield CheckResult(
            ok=free > _FREE or name != "spool",
            what=f"{name} {root}: owner {facts.st_uid}, {depth.files} waiting,"
            f" {free >> 20} MiB free",
            remedy="make room: an hour without Kafka in an attack needs gigabytes",
        )
    if not settings.spool.directory.is_dir():
        return
    kept = build.build_quarantine(settings).count()
    yield CheckResult(
        ok=not kept,
        what=f"quarantine: {kept} documents",
        remedy="`fnm-bus quarantine list` shows why",
    )


def _groups(spool: os.stat_result) -> set[int]:
    """Return the groups of the relay, which runs as the owner of *spool*."""
    try:
        name = pwd.getpwuid(spool.st_uid).pw_name
    except KeyError:  # an owner without a name, as in a container
        return {spool.st_gid}
    return {spool.st_gid, *os.getgrouplist(name, spool.st_gid)}


def _relay(settings: Settings) -> Iterator[CheckResult]:
    if not settings.spool.directory.is_dir():
        return
    runs = Spool(settings.spool.directory).locked()
    yield CheckResult(
        ok=runs,
        what="relay: drains the spool" if runs else "relay: none drains the spool",
        remedy="start `fnm-bus relay` as a service",
    )


def _topics(settings: Settings) -> Iterator[CheckResult]:
    names = build.topic_names(settings)
    plan = planned_topics(
        names, settings.topics.partitions, settings.topics.replication
    )
    rights = rights_of("relay", Resources(names))
    yield from check_access(build.kafka_settings(settings), plan, rights)


def check_access(
    kafka: Mapping[str, str], plan: Sequence[TopicSpec], rights: Sequence[Right]
) -> Iterator[CheckResult]:
    """Check the way to Kafka, the topics, and the rights of one program.

    Only the rights of the program itself are needed for this.

    Args:
        kafka: librdkafka's settings.
        plan: the topics as they should be.
        rights: what the program needs.

    Raises:
        ConfigError: librdkafka refuses the settings.
        BrokerUnavailable: no broker serves this client; the text says why.
    """
    check_connection(kafka)
    user = principal_of(kafka)
    servers = kafka.get("bootstrap.servers")
    yield CheckResult(ok=True, what=f"kafka {servers}: answers {user}")
    admin = TopicAdmin(kafka)
    needed = {
        right.name: {other.operation for other in rights if other[1:] == right[1:]}
        for right in rights
        if right.kind == TOPIC
    }
    found = admin.describe([topic.name for topic in plan])
    for topic in plan:
        operations = needed.get(topic.name, set())
        yield from _check_topic(topic, found[topic.name], operations, user)
    groups = {right.name: right.operation for right in rights if right.kind == GROUP}
    for name, allowed in admin.group_rights(list(groups)).items():
        yield _right_finding(Right(groups[name], GROUP, name), allowed, user)
    for right in rights:
        if right.kind == TRANSACTIONAL_ID:
            what = f"{right}: not checked, it would end the active mitigator's work"
            remedy = "the log of the mitigator names this right when it is missing"
            yield CheckResult(ok=True, what=what, remedy=remedy)


def _check_topic(
    plan: TopicSpec, topic: TopicSpec | TopicRefused, needed: set[str], user: str
) -> Iterator[CheckResult]:
    if isinstance(topic, AccessDenied):
        what = f"topic {plan.name}: not visible to {user}"
        if not needed:
            yield CheckResult(ok=True, what=f"{what}, and not needed")
        for operation in sorted(needed):
            missing = Right(operation, TOPIC, plan.name)
            yield _right_finding(missing, frozenset(), user)
        return
    if isinstance(topic, TopicRefused):
        yield CheckResult(
            ok=False,
            what=f"topic {plan.name}: missing",
            remedy="`fnm-bus topics create` creates it",
        )
        return
    faults = "; ".join(topic_differences(plan, topic))
    unseen = " (its settings are not visible without DescribeConfigs)"
    yield CheckResult(
        ok=not faults,
        what=f"topic {plan.name}: {faults or 'as wanted'}"
        + unseen * (topic.settings is None),
        remedy="change it with Kafka's tools, or change [topics]",
    )
    for operation in sorted(needed):
        wanted_right = Right(operation, TOPIC, plan.name)
        yield _right_finding(wanted_right, topic.operations, user)


def _right_finding(right: Right, operations: frozenset[str], user: str) -> CheckResult:
    # Kafka lists what is allowed with what that includes.
    is_allowed = right.operation in operations
    return CheckResult(
        ok=is_allowed,
        what=f"right: {user} {'has' if is_allowed else 'lacks'} {right}",
        remedy="`fnm-bus topics acls` prints the kafka-acls commands",
    )


def _registry(settings: Settings) -> Iterator[CheckResult]:
    if settings.registry.url is None:
        yield CheckResult(ok=True, what="registry: none; records are single objects")
        return
    build.build_codec(settings)
    yield CheckResult(ok=True, what=f"pinned ids: {settings.registry.pins} fits")
    framed = build.topic_names(settings).of_framed()
    pinned = schema_ids.read(settings.registry.pins)
    events = build.topic_names(settings).of_events()  # `codec` has checked theirs
    for topic in (it for it in framed if it not in events):
        try:
            pinned.check({topic: framed[topic]})
        except SchemaError as exc:
            yield CheckResult(
                ok=False,
                what=f"{exc}; until then records of {topic} are Avro single objects",
                remedy="run `fnm-bus schemas register`, then restart the services",
            )
    registry = build.build_registry(settings)
    for subject, said in registry.check(framed).items():
        yield CheckResult(
            ok=not said,
            what=f"registry {subject}: {'; '.join(said) or 'fits'}",
            remedy="a newer fnm-bus may have registered there",
        )


def _fastnetmon(_settings: Settings) -> Iterator[CheckResult]:
    fcli = shutil.which("fcli")
    if fcli is None:
        yield CheckResult(
            ok=True, what="FastNetMon: no fcli here, settings not looked at"
        )
        return
    for name, value in _WANTED_OF_FASTNETMON.items():
        said = _ask(fcli, name)
        yield CheckResult(
            ok=value in said,
            what=f"FastNetMon {name}: {said or 'no answer'}",
            remedy=f"sudo fcli set main {name} {value} && sudo fcli commit",
        )


def _ask(fcli: str, name: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 - FastNetMon's own command line
            [fcli, "show", "main", name],
            capture_output=True,
            text=True,
            timeout=_FCLI_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"{fcli}: {exc}"
    return " ".join((answer.stdout or answer.stderr).split())


_REMEDIES: Final[dict[Callable[[Settings], Iterator[CheckResult]], str]] = {
    _spool: "run `fnm-bus hook install`, and this command as the spool's owner",
    _relay: "run this command as the spool's owner, or as root",
    _topics: "look at [kafka] in the configuration, and at the brokers",
    _registry: "run `fnm-bus schemas register`",
    _fastnetmon: "",
}
