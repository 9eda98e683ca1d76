"""The mitigator and invalid input: it never exits, and decides about later events."""

import os
import signal
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
from support.relay_processes import ban

from consumers.mitigation.reason_key import key_of_reason
from fnm_bus.event import (
    Command,
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

PROMPT = 5.0
"""Seconds within which an event behind a bad event is decided: one second, and four on
a machine that is busy with other tests."""
HUGE = 2**63 - 1


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
        hostgroup_networks=tuple(
            HostgroupNetwork(network=network) for network in networks
        ),
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


def test_events_that_no_parser_makes_are_dead_letters(
    services: ConsumerProcesses,
) -> None:
    mitigator = services.start("mitigator")
    for event in EVENTS.values():
        kind = "host" if isinstance(event, HostEvent) else "hostgroup"
        services.put(kind, b"203.0.113.9", event)
    services.flush()
    services.assert_decides(mitigator, seconds=PROMPT)
    dead_letters = services.dead_letters(len(EVENTS))
    assert all(letter.reason for letter in dead_letters)
    reasons = " ".join(letter.reason for letter in dead_letters)
    assert "unexpected" not in reasons
    for field in ("ip", "hostgroup_networks", "receipt.sequence", "receipt.sensor"):
        assert field in reasons
    assert services.metric(mitigator, "fnm_bus_mitigator_unexpected_errors_total") == 0
    assert services.health(mitigator)[0] == 200


@pytest.mark.parametrize("traffic", [2**60, 2**63 - 1])
def test_extreme_figures_through_hook_and_relay(
    services: ConsumerProcesses, traffic: int
) -> None:
    mitigator = services.start("mitigator")
    services.relays.start()
    hook = InstalledHook(services.relays.root)  # in front of the relay's spool
    details = {"total_incoming_traffic": traffic, "total_outgoing_traffic": traffic}
    called = hook(ban("203.0.113.66", **details))
    assert called.returncode == 0, called.stderr
    services.relays.messages("host", 1)
    services.assert_decides(mitigator, "203.0.113.66", seconds=PROMPT)
    assert services.wanted() == ["blackhole|203.0.113.66/32"]
    assert services.records("deadletter") == []


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


def poison(services: ConsumerProcesses) -> int:
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
    unusable += [("reason", key_of_reason(record).encode(), record) for record in bad]
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
        services.put(kind, key, record)
    for stored_reason in usable:
        prefix = f"{stored_reason.target}/32"
        wants = (Want(kind="blackhole", prefix=prefix),)
        stored = msgspec.structs.replace(stored_reason, wants=wants)
        services.put("reason", key_of_reason(stored).encode(), stored)
        record = wanted(prefix, lease_ms=stored_reason.lease_ms, revision=HUGE)
        services.put("mitigation", record.key.encode(), record)
    services.flush()
    return len(unusable)


def test_unusable_stored_records_are_left_out(services: ConsumerProcesses) -> None:
    unusable = poison(services)
    mitigator = services.start("mitigator")
    services.assert_decides(mitigator, seconds=PROMPT)
    name = "fnm_bus_mitigator_unreadable_records_total"
    assert services.metric(mitigator, name) >= unusable
    assert services.metric(mitigator, "fnm_bus_mitigator_state_reloads_total") == 0
    # The next mitigator reads the records of this one.
    os.kill(mitigator.pid, signal.SIGTERM)
    again = services.start("mitigator")
    services.assert_decides(again, "203.0.113.10", seconds=PROMPT)


@pytest.mark.parametrize("value", [b"broken", wanted("203.0.113.1/32", kind="odd")])
def test_a_pause_that_cannot_be_decoded_counts_as_paused(
    services: ConsumerProcesses, value: Any
) -> None:
    services.put("mitigation", b"pause", value)
    services.flush()
    mitigator = services.start("mitigator")
    services.assert_decides(mitigator, seconds=PROMPT)
    assert services.health(mitigator)[0] == 200
    services.until(lambda: services.metric(mitigator, "fnm_bus_mitigator_paused") == 1)
    services.succeed("mitigations", "resume", "--comment", "repaired")
    services.until(lambda: services.metric(mitigator, "fnm_bus_mitigator_paused") == 0)


def limit(services: ConsumerProcesses, kind: str, size: int) -> None:
    """Let Kafka refuse larger records on a topic."""
    entry = ConfigEntry(
        "max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(
        ResourceType.TOPIC, services.relays.topic(kind), incremental_configs=[entry]
    )
    admin = AdminClient({"bootstrap.servers": services.relays.bootstrap})
    [done] = admin.incremental_alter_configs([resource]).values()
    done.result(30)


def test_a_record_that_kafka_refuses_costs_a_single_event(
    services: ConsumerProcesses,
) -> None:
    services.policy.write_text(policy("flowspec"))
    limit(services, "reason", 2_000)
    mitigator = services.start("mitigator")
    rules = tuple(
        FlowSpecRule(destination_prefix="203.0.113.66/32", source_ports=(port,))
        for port in range(1, 101)
    )
    before = [f"203.0.113.{number}" for number in range(1, 4)]
    after = [f"203.0.113.{number}" for number in range(101, 104)]
    services.tell("ban", *before, attack_protocol="udp")
    [large] = services.tell("ban", "203.0.113.66", rules=rules)
    services.tell("ban", *after, attack_protocol="udp")
    [letter] = services.dead_letters(1)
    assert "Kafka refuses" in letter.reason
    [offset] = [
        at for at, event in services.values("host") if event.receipt.event_id == large
    ]
    assert (letter.origin_partition, letter.origin_offset) == offset
    services.until(lambda: len(services.wanted()) == len(before) + len(after))
    assert len(services.audits("wanted")) == len(before) + len(after)
    assert mitigator.alive
    services.tell("ban", "203.0.113.9", attack_protocol="udp")
    services.until(lambda: len(services.wanted()) == len(before) + len(after) + 1)
    services.until(lambda: services.health(mitigator)[0] == 200)


FAULT = """
from consumers.mitigator import message_processor
from consumers.mitigator.kafka import breaker
breaker._MINUTE = 20.0
apply = message_processor.apply_event
def faulty(transition, event, **more):
    apply(transition, event, **more)  # what it changed has to be undone
    if getattr(event, "ip", "") == "203.0.113.66":
        raise KeyError("a planted fault")
message_processor.apply_event = faulty
"""


def test_an_unexpected_exception_costs_a_single_event(
    services: ConsumerProcesses,
) -> None:
    mitigator = services.start("mitigator", fault=FAULT)
    services.tell("ban", "203.0.113.66")
    services.assert_decides(mitigator, seconds=PROMPT)
    [letter] = services.dead_letters(1)
    assert "unexpected KeyError" in letter.reason
    assert "Traceback" in mitigator.output()
    assert "a planted fault" in mitigator.output()
    assert services.metric(mitigator, "fnm_bus_mitigator_unexpected_errors_total") == 1
    assert services.wanted() == ["blackhole|203.0.113.9/32"], "it was not undone"
    assert services.health(mitigator)[0] == 200


def test_too_many_unexpected_exceptions_hold_their_partition(
    services: ConsumerProcesses,
) -> None:
    mitigator = services.start("mitigator", fault=FAULT)
    services.tell("ban", *(["203.0.113.66"] * 25))  # one key, so one partition
    services.dead_letters(20)
    services.until(lambda: services.health(mitigator)[0] == 503)
    assert "too many unexpected errors" in str(services.health(mitigator)[1]["problem"])
    assert services.metric(mitigator, "fnm_bus_mitigator_suspended_partitions") == 1
    services.succeed("mitigations", "pause", "--comment", "a test")
    hosts = [f"203.0.113.{number}" for number in range(1, 17)]
    # librdkafka's partitioner.
    held, *free = (crc32(ip.encode()) % 4 for ip in ("203.0.113.66", *hosts))
    other = next(ip for ip, part in zip(hosts, free, strict=True) if part != held)
    services.assert_decides(mitigator, other, seconds=PROMPT)
    services.dead_letters(20)  # the partition is paused
    services.until(
        lambda: services.health(mitigator)[0] == 200, 40, "the end of the minute"
    )
    services.dead_letters(25)
    services.assert_decides(mitigator, "203.0.113.67", seconds=PROMPT)


def test_another_mitigator_s_id_is_refused_before_fencing(
    services: ConsumerProcesses,
    make_relays: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    first = services.start("mitigator")
    root = tmp_path_factory.mktemp("other")
    other = make_relays(root, services.relays.bootstrap)
    foreign = ConsumerProcesses(other, policy())
    name = '"{}mitigator"'
    text = other.config.read_text()
    text = text.replace(name.format(other.prefix), name.format(services.relays.prefix))
    other.config.write_text(text)
    for options in ((), ("--once",)):
        status, _out, said = foreign.run("consumer", "mitigator", *options)
        assert status == 78, said
        assert "transactional_id" in said
        assert services.relays.topic("host") in said
    services.assert_decides(first, seconds=PROMPT)
    assert services.metric(first, "fnm_bus_mitigator_state_reloads_total") == 0


def test_statuses_before_their_bans_after_a_backlog(
    services: ConsumerProcesses,
) -> None:
    services.policy.write_text(policy("flowspec"))
    hosts = [f"203.0.113.{number}" for number in range(1, 101)]
    services.tell("attack_status", *hosts, attack_protocol="tcp")
    rules = {
        ip: FlowSpecRule(destination_prefix=f"{ip}/32", source_ports=(123,))
        for ip in [*hosts, "203.0.113.200"]
    }
    for ip in hosts:
        services.tell("ban", ip, rules=[rules[ip]])
    services.tell("attack_status", *hosts, attack_protocol="tcp")
    services.start("mitigator")
    services.until(lambda: len(services.wanted()) >= len(hosts))
    services.tell("attack_status", *hosts, attack_protocol="tcp")
    [event] = services.tell("ban", "203.0.113.200", rules=[rules["203.0.113.200"]])
    services.decided_after(event, 30)
    flows = {key: mitigation.flow for key, mitigation in services.state().items()}
    assert len(flows) == len(hosts) + 1
    assert all(flow and flow.source_ports == (123,) for flow in flows.values())


def test_an_open_transaction_on_the_command_topic_hides_no_command(
    services: ConsumerProcesses,
) -> None:
    mitigator = services.start("mitigator")
    foreign = Producer(
        {"bootstrap.servers": services.relays.bootstrap, "transactional.id": "foreign"}
    )
    foreign.init_transactions(30)
    foreign.begin_transaction()
    foreign.produce(services.relays.topic("command"), b"never committed")
    assert foreign.flush(30) == 0
    services.succeed("mitigations", "pause", "--comment", "a test")
    services.until(lambda: services.metric(mitigator, "fnm_bus_mitigator_paused") == 1)
    foreign.abort_transaction(30)


def test_once_processes_the_waiting_events_and_ends(
    services: ConsumerProcesses,
) -> None:
    services.succeed("consumer", "mitigator", "--once")
    assert services.state() == {}
    services.tell("ban", "203.0.113.7", "203.0.113.8")
    services.tell("unban", "203.0.113.8")
    services.order("pause")
    services.succeed("consumer", "mitigator", "--once")
    assert services.wanted() == ["blackhole|203.0.113.7/32", "pause"]
    revisions = {
        key: mitigation.revision for key, mitigation in services.state().items()
    }
    services.succeed("consumer", "mitigator", "--once")
    assert {
        key: mitigation.revision for key, mitigation in services.state().items()
    } == revisions
