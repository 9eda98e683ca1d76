"""Check everything between FastNetMon and Kafka; change nothing."""

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
from fnm_bus.kafka.topics import TopicSpec, topic_differences
from fnm_bus.setup.check_result import CheckResult
from fnm_bus.spool import layout
from fnm_bus.spool.spool import Spool

_MIN_FREE: Final = 1 << 30
"""Bytes: an hour without Kafka during an attack fills this."""
_MAX_LISTED: Final = 3
"""Unreadable entries that a line names; a spool may have thousands."""
_FCLI_TIMEOUT: Final = 10.0
_FASTNETMON_SETTINGS: Final = {
    "notify_script_enabled": "enable",
    "notify_script_format": "json",
    "notify_script_attack_status_updates": "enable",
}


def examine(settings: Settings) -> Iterator[CheckResult]:
    """Yield the result of each check; an error ends only its own group of checks."""
    for group in (_spool, _relay, _topics, _registry, _fastnetmon):
        try:
            yield from group(settings)
        except FnmBusError as exc:
            yield CheckResult(ok=False, text=str(exc), remedy=_REMEDIES[group])


def _spool(settings: Settings) -> Iterator[CheckResult]:
    for name, root in (
        ("spool", settings.spool.directory),
        ("fallback spool", settings.spool.fallback),
    ):
        remedy = "run `fnm-bus hook install` as root with --owner and --group"
        if not root.is_dir():
            yield CheckResult(ok=False, text=f"{name} {root}: missing", remedy=remedy)
            continue
        status = root.stat()
        for fault in layout.find_faults(root, status.st_uid, status.st_gid):
            yield CheckResult(ok=False, text=f"{name}: {fault}", remedy=remedy)
        unreadable = layout.find_unreadable_entries(
            root, status.st_uid, _relay_groups(status)
        )
        if unreadable:
            yield CheckResult(
                ok=False,
                text=f"{name}: the relay may not read {len(unreadable)} entries:"
                f" {', '.join(unreadable[:_MAX_LISTED])}",
                remedy="chgrp them to the spool's group and chmod 640; then the relay"
                " publishes them",
            )
        usage, free = Spool(root).usage(), shutil.disk_usage(root).free
        yield CheckResult(
            ok=free > _MIN_FREE or name != "spool",
            text=f"{name} {root}: owner {status.st_uid}, {usage.files} waiting,"
            f" {free >> 20} MiB free",
            remedy="free disk space: an attack without Kafka needs gigabytes per hour",
        )
    if not settings.spool.directory.is_dir():
        return
    documents = build.build_quarantine(settings).count()
    yield CheckResult(
        ok=not documents,
        text=f"quarantine: {documents} documents",
        remedy="`fnm-bus quarantine list` shows the reasons",
    )


def _relay_groups(spool: os.stat_result) -> set[int]:
    """Return the groups of the relay, which runs as the owner of *spool*."""
    try:
        name = pwd.getpwuid(spool.st_uid).pw_name
    except KeyError:  # an owner without a name, as in a container
        return {spool.st_gid}
    return {spool.st_gid, *os.getgrouplist(name, spool.st_gid)}


def _relay(settings: Settings) -> Iterator[CheckResult]:
    if not settings.spool.directory.is_dir():
        return
    is_running = Spool(settings.spool.directory).is_locked()
    yield CheckResult(
        ok=is_running,
        text=f"relay: {'drains the spool' if is_running else 'does not run'}",
        remedy="start `fnm-bus relay` as a service",
    )


def _topics(settings: Settings) -> Iterator[CheckResult]:
    rights = rights_of("relay", Resources(build.topic_names(settings)))
    yield from check_access(
        build.kafka_settings(settings), build.topic_plan(settings), rights
    )


def check_access(
    kafka: Mapping[str, str], plan: Sequence[TopicSpec], rights: Sequence[Right]
) -> Iterator[CheckResult]:
    """Check the connection to Kafka, the topics, and the rights of one program.

    The checks themselves need no other rights.

    Args:
        kafka: librdkafka's settings.
        plan: the topics as configured.
        rights: the rights that the program needs.

    Raises:
        ConfigError: librdkafka refuses the settings.
        BrokerUnavailable: no broker serves this client; the text has the reason.
    """
    check_connection(kafka)
    user = principal_of(kafka)
    servers = kafka.get("bootstrap.servers")
    yield CheckResult(ok=True, text=f"kafka {servers}: answers {user}")
    admin = TopicAdmin(kafka)
    operations = {
        right.name: {other.operation for other in rights if other[1:] == right[1:]}
        for right in rights
        if right.kind == TOPIC
    }
    topics = admin.describe([topic.name for topic in plan])
    for topic in plan:
        needed = operations.get(topic.name, set())
        yield from _check_topic(topic, topics[topic.name], needed, user)
    groups = {right.name: right.operation for right in rights if right.kind == GROUP}
    for name, allowed in admin.group_rights(list(groups)).items():
        yield _check_right(Right(groups[name], GROUP, name), allowed, user)
    for right in rights:
        if right.kind == TRANSACTIONAL_ID:
            yield CheckResult(
                ok=True,
                text=f"right: {right}: not checked, because the check would stop the"
                " active mitigator, whose log names this right if it is missing",
            )


def _check_topic(
    plan: TopicSpec, topic: TopicSpec | TopicRefused, needed: set[str], user: str
) -> Iterator[CheckResult]:
    if isinstance(topic, AccessDenied):
        if not needed:
            text = f"topic {plan.name}: not visible to {user}, and not needed"
            yield CheckResult(ok=True, text=text)
        for operation in sorted(needed):
            missing = Right(operation, TOPIC, plan.name)
            yield _check_right(missing, frozenset(), user)
        return
    if isinstance(topic, TopicRefused):
        yield CheckResult(
            ok=False,
            text=f"topic {plan.name}: missing",
            remedy="`fnm-bus topics create` creates it",
        )
        return
    faults = "; ".join(topic_differences(plan, topic))
    hidden = " (its settings are not visible without DescribeConfigs)"
    yield CheckResult(
        ok=not faults,
        text=f"topic {plan.name}: {faults or 'as configured'}"
        + hidden * (topic.settings is None),
        remedy="change it with Kafka's tools, or change [topics]",
    )
    for operation in sorted(needed):
        yield _check_right(Right(operation, TOPIC, plan.name), topic.operations, user)


def _check_right(right: Right, operations: frozenset[str], user: str) -> CheckResult:
    # Kafka lists each allowed operation with the operations that it includes.
    is_allowed = right.operation in operations
    return CheckResult(
        ok=is_allowed,
        text=f"right: {user} {'has' if is_allowed else 'lacks'} {right}",
        remedy="`fnm-bus topics acls` prints the kafka-acls commands",
    )


def _registry(settings: Settings) -> Iterator[CheckResult]:
    if settings.registry.url is None:
        text = "registry: not configured; records use Avro single-object encoding"
        yield CheckResult(ok=True, text=text)
        return
    build.build_codec(settings)
    file = settings.registry.schema_ids_file
    yield CheckResult(ok=True, text=f"schema ids: {file} matches")
    subjects = build.topic_names(settings).of_framed()
    ids = schema_ids.read(file)
    checked = build.topic_names(settings).of_events()  # by `build.codec`
    for topic in (topic for topic in subjects if topic not in checked):
        try:
            ids.check({topic: subjects[topic]})
        except SchemaError as exc:
            yield CheckResult(
                ok=False,
                text=f"{exc}; until then records of {topic} are Avro single objects",
                remedy="run `fnm-bus schemas register`, then restart the services",
            )
    for subject, problems in build.build_registry(settings).check(subjects).items():
        yield CheckResult(
            ok=not problems,
            text=f"registry {subject}: {'; '.join(problems) or 'compatible'}",
            remedy="a newer fnm-bus may have registered its schemas there",
        )


def _fastnetmon(_settings: Settings) -> Iterator[CheckResult]:
    fcli = shutil.which("fcli")
    if fcli is None:
        text = "FastNetMon: fcli is not installed; its settings are not checked"
        yield CheckResult(ok=True, text=text)
        return
    for name, expected in _FASTNETMON_SETTINGS.items():
        value = _read_setting(fcli, name)
        yield CheckResult(
            ok=expected in value,
            text=f"FastNetMon {name}: {value or 'no answer'}",
            remedy=f"sudo fcli set main {name} {expected} && sudo fcli commit",
        )


def _read_setting(fcli: str, name: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - FastNetMon's own command line
            [fcli, "show", "main", name],
            capture_output=True,
            text=True,
            timeout=_FCLI_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"{fcli}: {exc}"
    return " ".join((done.stdout or done.stderr).split())


_REMEDIES: Final[dict[Callable[[Settings], Iterator[CheckResult]], str]] = {
    _spool: "run `fnm-bus hook install`, and this command as the spool's owner",
    _relay: "run this command as the spool's owner, or as root",
    _topics: "check [kafka] in the configuration, and the brokers",
    _registry: "run `fnm-bus schemas register`",
    _fastnetmon: "",
}
