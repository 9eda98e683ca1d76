"""The mitigator and bad input: it never exits, and what comes behind is decided."""

import os
import signal
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from support.consumer_processes import ConsumerProcesses, policy
from support.installed_hook import InstalledHook
from support.relay_processes import RelayProcesses, ban
from support.process import Server

from consumers.mitigation.reason_key import key_of_reason
from fnm_bus.event import (
    Command,
    DeadLetter,
    FlowSpecRule,
    HostEvent,
    HostgroupEvent,
    HostgroupNetwork,
    Mitigation,
    Reason,
    Receipt,
    Want,
)

pytestmark = pytest.mark.kafka

PROMPT = 1.0
"""Seconds within which an event behind a bad one is decided."""
LOADED = 4.0
"""More of them on a machine that is busy with other tests."""
HUGE = 2**63 - 1


@pytest.fixture
def crew(real_plant: RelayProcesses) -> Iterator[ConsumerProcesses]:
    made = ConsumerProcesses(real_plant, policy(), "[consumers]", "metrics_port = 0")
    yield made
    made.stop()


def receipt(**fields: Any) -> Receipt:
    return Receipt(**{"event_id": "poison", "sensor": "fnm1", "sequence": 1, **fields})


def host(**fields: Any) -> HostEvent:
    values = {"receipt": receipt(), "action": "ban", "ip": "203.0.113.66", **fields}
    return HostEvent(**values)


def hostgroup(*networks: str | None) -> HostgroupEvent:
    return HostgroupEvent(
        receipt=receipt(),
        action="ban",
        hostgroup_name="customers",
        hostgroup_networks=tuple(HostgroupNetwork(network=it) for it in networks),
    )


EVENTS = {
    "text for an address": host(ip="garbage"),
    "no address": host(ip=""),
    "a network for an address": host(ip="203.0.113.0/24"),
    "an address with a zone": host(ip="fe80::1%eth0"),
    "a network with host bits": hostgroup("203.0.113.7/24"),
    "a network that is none": hostgroup("203.0.113.0/33"),
    "a sequence of 2^53": host(receipt=receipt(sequence=2**53)),
    "the largest sequence": host(receipt=receipt(sequence=HUGE)),
    "no sensor": host(receipt=receipt(sensor="")),
    "control characters": host(action="ban\x1b[2J"),
}


def follows(crew: ConsumerProcesses, server: Server, host: str = "203.0.113.9") -> None:
    """Make sure that it runs, and decides promptly about the ban of a host."""
    [event] = crew.tell("ban", host)
    assert crew.decided_after(event, 30) < PROMPT + LOADED
    assert server.alive


def letters(crew: ConsumerProcesses, count: int) -> list[DeadLetter]:
    """Return the dead letters once they are *count*."""
    found: list[DeadLetter] = []

    def there() -> bool:
        found[:] = [
            it
            for _key, it, _at in crew.records("deadletter")
            if isinstance(it, DeadLetter)
        ]
        return len(found) >= count

    crew.until(there, 30, f"{count} dead letters")
    assert len(found) == count
    return found


def test_events_that_no_parser_makes_are_dead_letters(crew: ConsumerProcesses) -> None:
    mitigator = crew.start("mitigator")
    for event in EVENTS.values():
        kind = "host" if isinstance(event, HostEvent) else "hostgroup"
        crew.put(kind, b"203.0.113.9", event)
    crew.flush()
    follows(crew, mitigator)
    found = letters(crew, len(EVENTS))
    assert all(letter.reason for letter in found)
    reasons = " ".join(letter.reason for letter in found)
    assert "unexpected" not in reasons
    for field in ("ip", "hostgroup_networks", "receipt.sequence", "receipt.sensor"):
        assert field in reasons
    assert crew.metric(mitigator, "fnm_bus_mitigator_unexpected_errors_total") == 0
    assert crew.health(mitigator)[0] == 200


@pytest.mark.parametrize("traffic", [2**60, 2**63 - 1])
def test_extreme_figures_through_hook_and_relay(
    crew: ConsumerProcesses, traffic: int
) -> None:
    mitigator = crew.start("mitigator")
    crew.plant.start()
    hook = InstalledHook(crew.plant.root)  # in front of the relay's spool
    details = {"total_incoming_traffic": traffic, "total_outgoing_traffic": traffic}
    called = hook(ban("203.0.113.66", **details))
    assert called.returncode == 0, called.stderr
    crew.plant.messages("host", 1)
    follows(crew, mitigator, "203.0.113.66")
    assert crew.wanted() == ["blackhole|203.0.113.66/32"]
    assert crew.records("deadletter") == []


def reason(**fields: Any) -> Reason:
    values = {
        "sensor": "fnm1",
        "scope": "host",
        "target": "203.0.113.70",
        "part": "attack",
        "sequence": 1,
        "lease_ms": 60_000,
        "rule": "all",
        "wants": (Want(kind="blackhole", prefix="203.0.113.70/32"),),
        **fields,
    }
    return Reason(**values)


def wanted(prefix: str, **fields: Any) -> Mitigation:
    values = {
        "key": f"blackhole|{prefix}",
        "kind": "blackhole",
        "prefix": prefix,
        "state": "wanted",
        "lease_ms": 60_000,
        **fields,
    }
    return Mitigation(**values)


def poison(crew: ConsumerProcesses) -> int:
    """Write records that no mitigator writes; return how many cannot be used."""
    unusable: list[tuple[str, bytes, Any]] = [
        ("mitigation", b"blackhole|garbage", wanted("garbage")),
        ("mitigation", b"blackhole|203.0.113.71/24", wanted("203.0.113.71/24")),
        ("mitigation", b"another", wanted("203.0.113.72/32")),
        ("mitigation", b"\xff\xfe", wanted("203.0.113.72/32")),
        ("mitigation", b"blackhole|203.0.113.73/32", b"\x00"),
        ("mitigation", b"blackhole|203.0.113.74/32", Command(verb="pause")),
    ]
    bad = [
        reason(target="a", wants=(Want(kind="blackhole", prefix="garbage"),)),
        reason(target="b", wants=(Want(kind="blackhole", prefix="203.0.113.7/24"),)),
        reason(target="c", wants=(Want(kind="odd", prefix="203.0.113.7/32"),)),
        reason(target="d", wants=(Want(kind="flowspec"),)),
    ]
    unusable += [("reason", key_of_reason(it).encode(), it) for it in bad]
    unusable += [
        ("reason", b"[]", reason(target="e")),
        ("reason", b'["fnm1","host","f","attack"]', b"\xc3\x01" + bytes(20)),
    ]
    usable = [
        reason(target="203.0.113.75", lease_ms=HUGE),
        reason(target="203.0.113.76", sequence=HUGE),
        reason(target="203.0.113.77", renewals=HUGE, pps=HUGE, bits=HUGE),
    ]
    for kind, key, record in unusable:
        crew.put(kind, key, record)
    for it in usable:
        prefix = f"{it.target}/32"
        wants = (Want(kind="blackhole", prefix=prefix),)
        stored = msgspec.structs.replace(it, wants=wants)
        crew.put("reason", key_of_reason(stored).encode(), stored)
        record = wanted(prefix, lease_ms=it.lease_ms, revision=HUGE)
        crew.put("mitigation", record.key.encode(), record)
    crew.flush()
    return len(unusable)


def test_stored_records_that_nobody_can_use_are_left_out(
    crew: ConsumerProcesses,
) -> None:
    unusable = poison(crew)
    mitigator = crew.start("mitigator")
    follows(crew, mitigator)
    name = "fnm_bus_mitigator_unreadable_records_total"
    assert crew.metric(mitigator, name) >= unusable
    assert crew.metric(mitigator, "fnm_bus_mitigator_state_reloads_total") == 0
    # A restart meets what this one wrote.
    os.kill(mitigator.pid, signal.SIGTERM)
    again = crew.start("mitigator")
    follows(crew, again, "203.0.113.10")


@pytest.mark.parametrize("value", [b"broken", wanted("203.0.113.1/32", kind="odd")])
def test_a_pause_that_cannot_be_decoded_counts_as_paused(
    crew: ConsumerProcesses, value: Any
) -> None:
    crew.put("mitigation", b"pause", value)
    crew.flush()
    mitigator = crew.start("mitigator")
    follows(crew, mitigator)
    assert crew.health(mitigator)[0] == 200
    crew.until(lambda: crew.metric(mitigator, "fnm_bus_mitigator_paused") == 1)
    status, _out, said = crew.run("mitigations", "resume", "--why", "repaired")
    assert status == 0, said
    crew.until(lambda: crew.metric(mitigator, "fnm_bus_mitigator_paused") == 0)


def limit(crew: ConsumerProcesses, kind: str, size: int) -> None:
    """Let Kafka refuse what is larger on a topic."""
    entry = ConfigEntry(
        "max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(
        ResourceType.TOPIC, crew.plant.topic(kind), incremental_configs=[entry]
    )
    admin = AdminClient({"bootstrap.servers": crew.plant.bootstrap})
    [done] = admin.incremental_alter_configs([resource]).values()
    done.result(30)


def test_a_record_that_kafka_refuses_costs_one_event(crew: ConsumerProcesses) -> None:
    crew.policy.write_text(policy("flowspec"))
    limit(crew, "reason", 2_000)
    mitigator = crew.start("mitigator")
    rules = tuple(
        FlowSpecRule(destination_prefix="203.0.113.66/32", source_ports=(port,))
        for port in range(1, 101)
    )
    before = [f"203.0.113.{number}" for number in range(1, 4)]
    after = [f"203.0.113.{number}" for number in range(101, 104)]
    crew.tell("ban", *before, attack_protocol="udp")
    [large] = crew.tell("ban", "203.0.113.66", rules=rules)
    crew.tell("ban", *after, attack_protocol="udp")
    [letter] = letters(crew, 1)
    assert "Kafka refuses" in letter.reason
    [offset] = [at for at, it in crew.values("host") if it.receipt.event_id == large]
    assert (letter.origin_partition, letter.origin_offset) == offset
    crew.until(lambda: len(crew.wanted()) == len(before) + len(after))
    assert len(crew.audits("wanted")) == len(before) + len(after)
    assert mitigator.alive
    crew.tell("ban", "203.0.113.9", attack_protocol="udp")
    crew.until(lambda: len(crew.wanted()) == len(before) + len(after) + 1)
    crew.until(lambda: crew.health(mitigator)[0] == 200)


FAULT = """
from consumers.mitigator import service, breaker
breaker._MINUTE = 20.0
apply = service.apply_event
def faulty(change, event, **more):
    apply(change, event, **more)  # what it changed has to be undone
    if getattr(event, "ip", "") == "203.0.113.66":
        raise KeyError("a planted fault")
service.apply_event = faulty
"""


def test_an_unexpected_exception_costs_one_event(crew: ConsumerProcesses) -> None:
    mitigator = crew.start("mitigator", fault=FAULT)
    crew.tell("ban", "203.0.113.66")
    follows(crew, mitigator)
    [letter] = letters(crew, 1)
    assert "unexpected KeyError" in letter.reason
    assert "Traceback" in mitigator.output()
    assert "a planted fault" in mitigator.output()
    assert crew.metric(mitigator, "fnm_bus_mitigator_unexpected_errors_total") == 1
    assert crew.wanted() == ["blackhole|203.0.113.9/32"], "it was not undone"
    assert crew.health(mitigator)[0] == 200


def test_too_many_unexpected_exceptions_hold_their_partition(
    crew: ConsumerProcesses,
) -> None:
    mitigator = crew.start("mitigator", fault=FAULT)
    crew.tell("ban", *(["203.0.113.66"] * 25))  # one key, so one partition
    letters(crew, 20)
    crew.until(lambda: crew.health(mitigator)[0] == 503)
    assert "too many unexpected errors" in str(crew.health(mitigator)[1]["problem"])
    assert crew.metric(mitigator, "fnm_bus_mitigator_held_partitions") == 1
    status, _out, said = crew.run("mitigations", "pause", "--why", "a test")
    assert status == 0, said
    hosts = [f"203.0.113.{number}" for number in range(1, 17)]
    # librdkafka's partitioner.
    held, *free = (crc32(it.encode()) % 4 for it in ("203.0.113.66", *hosts))
    other = next(it for it, part in zip(hosts, free, strict=True) if part != held)
    follows(crew, mitigator, other)
    assert len(letters(crew, 20)) == 20, "the partition was not held"
    crew.until(lambda: crew.health(mitigator)[0] == 200, 40, "the end of the minute")
    assert len(letters(crew, 25)) == 25
    follows(crew, mitigator, "203.0.113.67")


def test_an_id_of_another_mitigator_is_refused_before_it_is_fenced(
    crew: ConsumerProcesses, make_plant: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = crew.start("mitigator")
    root = tmp_path_factory.mktemp("other")
    other = make_plant(root, crew.plant.bootstrap)
    foreign = ConsumerProcesses(other, policy())
    name = '"{}mitigator"'
    text = other.config.read_text()
    text = text.replace(name.format(other.prefix), name.format(crew.plant.prefix))
    other.config.write_text(text)
    for options in ((), ("--once",)):
        status, _out, said = foreign.run("consumer", "mitigator", *options)
        assert status == 78, said
        assert "transactional_id" in said
        assert crew.plant.topic("host") in said
    follows(crew, first)
    assert crew.metric(first, "fnm_bus_mitigator_state_reloads_total") == 0


def test_statuses_before_their_bans_after_a_backlog(crew: ConsumerProcesses) -> None:
    crew.policy.write_text(policy("flowspec"))
    hosts = [f"203.0.113.{number}" for number in range(1, 101)]
    crew.tell("attack_status", *hosts, attack_protocol="tcp")
    rules = {
        it: FlowSpecRule(destination_prefix=f"{it}/32", source_ports=(123,))
        for it in [*hosts, "203.0.113.200"]
    }
    for it in hosts:
        crew.tell("ban", it, rules=[rules[it]])
    crew.tell("attack_status", *hosts, attack_protocol="tcp")
    crew.start("mitigator")
    crew.until(lambda: len(crew.wanted()) >= len(hosts))
    crew.tell("attack_status", *hosts, attack_protocol="tcp")
    [event] = crew.tell("ban", "203.0.113.200", rules=[rules["203.0.113.200"]])
    crew.decided_after(event, 30)
    flows = {key: it.flow for key, it in crew.state().items()}
    assert len(flows) == len(hosts) + 1
    assert all(it and it.source_ports == (123,) for it in flows.values())


def test_an_open_transaction_on_the_command_topic_hides_no_command(
    crew: ConsumerProcesses,
) -> None:
    mitigator = crew.start("mitigator")
    foreign = Producer(
        {"bootstrap.servers": crew.plant.bootstrap, "transactional.id": "foreign"}
    )
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.produce(crew.plant.topic("command"), b"never committed")
    assert foreign.flush(30) == 0
    status, _out, said = crew.run("mitigations", "pause", "--why", "a test")
    assert status == 0, said
    crew.until(lambda: crew.metric(mitigator, "fnm_bus_mitigator_paused") == 1)
    foreign.abort_transaction(30)


def test_once_processes_what_is_there_and_ends(crew: ConsumerProcesses) -> None:
    status, _out, said = crew.run("consumer", "mitigator", "--once")
    assert status == 0, said
    assert crew.state() == {}
    crew.tell("ban", "203.0.113.7", "203.0.113.8")
    crew.tell("unban", "203.0.113.8")
    crew.order("pause")
    status, _out, said = crew.run("consumer", "mitigator", "--once")
    assert status == 0, said
    assert crew.wanted() == ["blackhole|203.0.113.7/32", "pause"]
    revisions = {key: it.revision for key, it in crew.state().items()}
    status, _out, said = crew.run("consumer", "mitigator", "--once")
    assert status == 0, said
    assert {key: it.revision for key, it in crew.state().items()} == revisions
