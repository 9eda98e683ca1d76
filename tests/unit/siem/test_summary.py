"""The common fields of both formats, for each kind of record."""

from datetime import UTC, datetime

import msgspec
import pytest

from consumers.siem.summary import Summary, summarize
from fnm_bus.avro import schema
from fnm_bus.avro.examples import example_records
from fnm_bus.event import AnyRecord, AttackDetails, HostEvent, Receipt
from fnm_bus.kafka.reader import ConsumedRecord

AT = datetime(2026, 11, 22, 3, 14, 7, tzinfo=UTC)
REASON = next(iter(example_records("fastnetmon.Reason")))


def summary_of(event: AnyRecord | None) -> Summary:
    return summarize(ConsumedRecord("t", 3, 17, AT, b"k", (), b"x", event, ""))


def example(full_name: str, name: str) -> AnyRecord:
    return example_records(f"fastnetmon.{full_name}")[name]


def test_ban_has_the_attack_in_its_direction() -> None:
    event = example("HostEvent", "ban")
    assert isinstance(event, HostEvent)
    assert event.attack_details is not None
    assert summary_of(event) == Summary(
        event.receipt.event_id,
        event.receipt.received_at,
        "host",
        action="ban",
        text="fra1: ban of 203.0.113.25",
        sensor="fra1",
        address="203.0.113.25",
        direction="incoming",
        hostgroup=event.attack_details.host_group or "",
        protocol=event.attack_details.attack_protocol or "",
        attack=event.attack_details.attack_uuid or "",
        pps=event.attack_details.total_incoming_pps,
        bits=event.attack_details.total_incoming_traffic_bits,
        trace=event.receipt.event_id.replace("-", ""),
    )


@pytest.mark.parametrize("full_name", schema.RECORDS)
def test_every_example_has_an_id_a_kind_and_a_time(full_name: str) -> None:
    for event in example_records(full_name).values():
        summary = summary_of(event)
        assert summary.record_id
        assert summary.at.tzinfo is not None
        assert summary.kind in {"host", "hostgroup", "status"} or full_name.lower() == (
            f"fastnetmon.{summary.kind}"
        )


def test_audit_record_joins_the_trace_of_its_event() -> None:
    ban = summary_of(example("HostEvent", "ban"))
    audit = summary_of(example("Audit", "wanted"))
    assert (audit.trace, audit.address) == (ban.trace, ban.address)
    assert (audit.actor, audit.rule, audit.record_id) == (
        "mitigator",
        "large",
        "t/3/17",
    )


def test_hostgroup_has_no_address() -> None:
    summary = summary_of(example("HostgroupEvent", "hostgroup-ban"))
    assert (summary.kind, summary.address) == ("hostgroup", "")
    assert summary.hostgroup


@pytest.mark.parametrize("ip", ["customers", "", "0.0.0.0", "::", "203.0.113.25/32"])  # noqa: S104 - no host
def test_text_that_names_no_host_is_no_address(ip: str) -> None:
    event = HostEvent(receipt=Receipt(sensor="fra1"), action="ban", ip=ip)
    assert summary_of(event).address == ""


@pytest.mark.parametrize("target", ["fe80::1%eth0", "::1%a src=192.0.2.1"])
def test_address_with_a_zone_is_no_address(target: str) -> None:
    reason = msgspec.structs.replace(example("Reason", REASON), target=target)
    assert summary_of(reason).address == ""


def test_mapped_address_has_the_text_of_its_key() -> None:
    event = HostEvent(receipt=Receipt(), ip="::ffff:192.0.2.1")
    assert summary_of(event).address == "::ffff:192.0.2.1"


def test_unknown_protocol_is_absent() -> None:
    event = HostEvent(
        receipt=Receipt(), ip="::1", attack_details=AttackDetails(attack_protocol="x")
    )
    assert summary_of(event).protocol == ""


def test_tombstone_has_a_kind_and_the_time_of_its_record() -> None:
    assert summary_of(None) == Summary("t/3/17", AT, "tombstone")


def test_command_joins_the_trace_of_its_answer() -> None:
    command = example("Command", "withdraw")
    answer = msgspec.structs.replace(
        example("Audit", "ended"),
        event_id=command.command_id,  # type: ignore[union-attr]
    )
    assert summary_of(command).trace == summary_of(answer).trace != ""
