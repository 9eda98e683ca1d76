"""An event becomes facts, or is refused: the second boundary after the parser."""

import json
from datetime import datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.attack_facts import (
    HOST,
    RECEIPT,
    example_events,
    flow_rule,
    host_event,
    hostgroup_event,
    status_event,
)

from consumers.mitigation.reason_key import ATTACK, MAX_KEY_BYTES, ReasonKey
from consumers.policy.facts import facts_of
from consumers.policy.flow_rules import MAX_RULES
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import (
    AttackDetails,
    Event,
    FlowSpecRule,
    HostgroupNetwork,
    StatusEvent,
    TextMode,
)
from fnm_bus.event.parse import parse

SAMPLES = Path(__file__).parents[1] / "samples"


@pytest.mark.parametrize("name", sorted(example_events()))
def test_every_example_has_facts(name: str) -> None:
    assert facts_of(example_events()[name])


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda p: p.stem)
def test_every_sample_document_has_facts(path: Path) -> None:
    event = parse(path.read_bytes(), [], RECEIPT).event
    assert facts_of(event)


def test_facts_of_a_ban() -> None:
    (facts,) = facts_of(example_events()["ban"])
    assert facts.reason_key == ReasonKey("fra1", "host", "203.0.113.25", ATTACK)
    assert facts.networks == (ip_network("203.0.113.25/32"),)
    assert facts.hostgroup == "customers"
    assert (facts.pps, facts.bits) == (289_104, 3_303_012_344)
    assert (facts.rules, facts.refused_rules, facts.has_rules) == ((), (), False)
    assert facts.attack == facts.attack_uuid
    assert not facts.outgoing


def test_text_mode_names_the_attack_by_direction_and_power() -> None:
    (facts,) = facts_of(example_events()["text-mode-ban"])
    assert (facts.attack_uuid, facts.attack) == (None, "incoming 48211")


@pytest.mark.parametrize("name", ["ban", "attack-status", "text-mode-ban"])
def test_the_default_hostgroup_is_not_a_group_of_hosts(name: str) -> None:
    event = example_events()[name]
    details = event.attack_details or AttackDetails()
    for sent, expected in (("global", None), ("web", "web"), (None, None)):
        changed = msgspec.structs.replace(details, host_group=sent)
        (facts,) = facts_of(msgspec.structs.replace(event, attack_details=changed))
        assert facts.hostgroup == expected


def test_an_attacked_hostgroup_named_global_keeps_its_name() -> None:
    event = hostgroup_event("203.0.113.0/24", hostgroup_name="global")
    assert facts_of(event)[0].hostgroup == "global"


def test_invalid_networks_of_a_hostgroup_are_left_out() -> None:
    event = hostgroup_event()
    networks = (
        HostgroupNetwork(sent="203.0.113.0-203.0.113.63", network=None),
        HostgroupNetwork(sent="203.0.113.64/26", network="203.0.113.64/26"),
        HostgroupNetwork(sent="203.0.113.65/26", network="203.0.113.64/26"),
    )
    event = msgspec.structs.replace(event, hostgroup_networks=networks)
    assert facts_of(event)[0].networks == (ip_network("203.0.113.64/26"),)


# Size and direction.

BOTH: dict[str, Any] = {
    "total_incoming_traffic_bits": 40_000_000,
    "total_incoming_pps": 60_000,
    "total_outgoing_traffic_bits": 12_000_000_000,
    "total_outgoing_pps": 1_100_000,
}


@pytest.mark.parametrize(
    ("direction", "pps", "bits"),
    [
        ("incoming", 60_000, 40_000_000),
        ("Outgoing", 1_100_000, 12_000_000_000),
        ("internal", 1_100_000, 12_000_000_000),
        ("", 1_100_000, 12_000_000_000),
    ],
)
def test_the_size_has_the_direction_of_the_attack(
    direction: str, pps: int, bits: int
) -> None:
    event = host_event(details={**BOTH, "attack_direction": direction})
    (facts,) = facts_of(event)
    assert (facts.pps, facts.bits) == (pps, bits)


def test_a_size_of_the_other_direction_does_not_count() -> None:
    event = host_event(
        details={"total_outgoing_pps": 5, "total_outgoing_traffic_bits": 6}
    )
    (facts,) = facts_of(event)
    assert (facts.pps, facts.bits) == (None, None)


def test_bits_come_from_bytes_only_where_bits_are_missing() -> None:
    details = {"total_incoming_traffic": 10, "total_incoming_traffic_bits": 81}
    assert facts_of(host_event(details=details))[0].bits == 81
    assert facts_of(host_event(details={"total_incoming_traffic": 10}))[0].bits == 80


@pytest.mark.parametrize("size", [2**60, 2**62, 2**63 - 1])
def test_a_size_above_the_bound_becomes_the_bound(size: int) -> None:
    (facts,) = facts_of(host_event(details={"total_incoming_traffic": size}))
    assert facts.bits == 2**63 - 1


def test_zero_is_a_size() -> None:
    details = {"total_incoming_pps": 0, "total_incoming_traffic_bits": 0}
    (facts,) = facts_of(host_event(details=details))
    assert (facts.pps, facts.bits) == (0, 0)


def test_a_certain_direction_counts_before_an_uncertain_one() -> None:
    details = {
        "attack_detection_threshold_direction": "unknown",
        "attack_direction": "outgoing",
    }
    assert facts_of(host_event(details=details))[0].direction == "outgoing"
    details["attack_detection_threshold_direction"] = "incoming"
    assert facts_of(host_event(details=details))[0].direction == "incoming"
    details = {
        "attack_detection_threshold_direction": "unknown",
        "attack_direction": "other",
    }
    assert facts_of(host_event(details=details))[0].direction == "unknown"


def test_text_mode_power_counts_if_the_report_has_no_size() -> None:
    mode = TextMode(direction="incoming", power_pps=7)
    event = host_event(text_mode=mode, details={"attack_direction": None})
    assert (facts_of(event)[0].pps, facts_of(event)[0].direction) == (7, "incoming")
    event = host_event(text_mode=mode, details={"total_incoming_pps": 8})
    assert facts_of(event)[0].pps == 8


@pytest.mark.parametrize(
    ("protocol", "threshold", "expected"),
    [
        ("UDP", None, "udp"),
        ("unknown", "tcp syn packets per second", "tcp"),
        (None, "udp bytes per second", "udp"),
        ("icmp", "udp bytes per second", "icmp"),
        (None, "packets per second", ""),
        (None, None, ""),
    ],
)
def test_the_protocol_may_be_named_by_the_threshold(
    protocol: str | None, threshold: str | None, expected: str
) -> None:
    details = {"attack_protocol": protocol, "attack_detection_threshold": threshold}
    assert facts_of(host_event(details=details))[0].protocol == expected


# Flow Spec rules.

DSCP = {"/flow_spec_rules/0/dscp": "[46]"}


def test_an_invalid_rule_of_a_ban_is_refused_with_reason() -> None:
    rules = (flow_rule(), flow_rule(source_ports=(123,)))
    (facts,) = facts_of(host_event(flow_spec_rules=rules, extra=DSCP))
    assert facts.part == ATTACK
    assert facts.rules == (rules[1],)
    assert facts.has_rules
    (check,) = facts.refused_rules
    assert (check.stage, check.name) == ("policy", "flow_spec_rules/0")
    assert (check.code, check.verdict) == ("rule_not_understood", "refuse")
    assert check.text == "not understood: dscp = [46]"


@pytest.mark.parametrize("action", ["partial_block", "partial_unblock"])
@pytest.mark.parametrize("uuid", [None, "r1"])
def test_the_part_of_an_invalid_rule_is_not_the_attack(
    action: str, uuid: str | None
) -> None:
    event = host_event(action, flow_spec_rules=(flow_rule(uuid=uuid),), extra=DSCP)
    (facts,) = facts_of(event)
    assert facts.part != ATTACK
    assert facts.rules == ()
    assert facts.has_rules
    assert [check.code for check in facts.refused_rules] == ["rule_not_understood"]


def test_an_invalid_rule_has_another_name_than_valid_ones() -> None:
    understood = host_event("partial_block", flow_spec_rules=(flow_rule(),))
    other = host_event("partial_unblock", flow_spec_rules=(flow_rule(),), extra=DSCP)
    assert facts_of(understood)[0].part != facts_of(other)[0].part


def test_block_and_unblock_of_one_rule_name_one_part() -> None:
    for extra in ({}, DSCP):
        block = host_event("partial_block", flow_spec_rules=(flow_rule(),), extra=extra)
        unblock = host_event(
            "partial_unblock", flow_spec_rules=(flow_rule(),), extra=extra
        )
        assert facts_of(block)[0].part == facts_of(unblock)[0].part


def test_each_rule_of_a_partial_block_is_a_part() -> None:
    rules = tuple(flow_rule(uuid=uuid) for uuid in ("r1", "r2", "r3"))
    event = host_event(
        "partial_block",
        flow_spec_rules=rules,
        extra={"/flow_spec_rules/1/source_ports/0": '"53"'},
    )
    parts = facts_of(event)
    assert [facts.part for facts in parts] == ["r1", "r2", "r3"]
    assert [facts.rules for facts in parts] == [(rules[0],), (), (rules[2],)]
    assert [len(facts.refused_rules) for facts in parts] == [0, 1, 0]
    assert all(facts.has_rules for facts in parts)


@pytest.mark.parametrize("action", ["partial_block", "partial_unblock"])
def test_a_partial_block_without_rules_is_not_about_the_attack(action: str) -> None:
    (facts,) = facts_of(host_event(action))
    assert facts.part != ATTACK
    assert [check.code for check in facts.refused_rules] == ["no_rules"]


@pytest.mark.parametrize("uuid", ["attack", "operator", "x" * 2000])
def test_a_digest_replaces_a_uuid_unfit_as_a_part(uuid: str) -> None:
    event = host_event("partial_block", flow_spec_rules=(flow_rule(uuid=uuid),))
    assert facts_of(event)[0].part.startswith("sha256:")


@pytest.mark.parametrize(
    "pointer",
    [
        "/flow_spec_rules",
        "/flow_spec_rules/7/x",
        "/flow_spec_rules/x",
        "/flow_spec_rules/1",
    ],
)
def test_extra_of_the_list_refuses_all_rules(pointer: str) -> None:
    event = host_event(flow_spec_rules=(flow_rule(),), extra={pointer: "1"})
    (facts,) = facts_of(event)
    assert facts.rules == ()
    assert facts.has_rules
    assert [check.name for check in facts.refused_rules] == ["flow_spec_rules"]


def test_extra_about_other_fields_refuses_no_rule() -> None:
    extra = {"/flow_spec_rules_x/0": "1", "/new": "1"}
    (facts,) = facts_of(host_event(flow_spec_rules=(flow_rule(),), extra=extra))
    assert facts.rules == (flow_rule(),)


@pytest.mark.parametrize("action", ["ban", "partial_block"])
def test_too_many_rules_start_nothing_and_are_reported_once(action: str) -> None:
    rules = tuple(flow_rule(source_ports=(port,)) for port in range(MAX_RULES + 1))
    (facts,) = facts_of(host_event(action, flow_spec_rules=rules))
    assert facts.rules == ()
    assert facts.has_rules
    assert [check.code for check in facts.refused_rules] == ["too_many_measures"]
    assert (facts.part == ATTACK) == (action == "ban")
    rules = rules[:MAX_RULES]
    assert (
        len(facts_of(host_event("partial_block", flow_spec_rules=rules))) == MAX_RULES
    )


def test_any_number_of_rules_can_end() -> None:
    rules = tuple(flow_rule(source_ports=(port,)) for port in range(MAX_RULES + 1))
    parts = facts_of(host_event("partial_unblock", flow_spec_rules=rules))
    assert len({facts.part for facts in parts}) == MAX_RULES + 1


def test_a_rule_with_all_ports_has_a_short_part() -> None:
    rule = flow_rule(source_ports=tuple(range(65_000)))
    (facts,) = facts_of(host_event("partial_block", flow_spec_rules=(rule,)))
    assert len(facts.part) < 100


# Events that the parser cannot make.

BAD: list[tuple[Event, str]] = [
    (host_event(ip="web"), "/?ip"),
    (host_event(ip=7), "/?ip"),
    (host_event(ip=True), "/?ip"),
    (host_event(ip=""), "/?ip"),
    (host_event(ip="2001:DB8::1"), "ip"),
    (host_event(ip="203.0.113.7/32"), "ip"),
    (host_event(ip="fe80::1%eth0"), "ip"),
    (status_event(ip=7), "ip"),
    (status_event(ip=None), "hostgroup_name"),
    (status_event(hostgroup_name="web"), "hostgroup_name"),
    (hostgroup_event("203.0.113.9/24"), r"hostgroup_networks\.0\.network"),
    (hostgroup_event("203.0.113.0/24", "web"), r"hostgroup_networks\.1\.network"),
    (hostgroup_event("203.0.113.0/255.255.255.0"), r"hostgroup_networks\.0\.network"),
    (hostgroup_event("2001:DB8::/32"), r"hostgroup_networks\.0\.network"),
    (hostgroup_event(hostgroup_networks=None), "hostgroup_networks"),
    (hostgroup_event(*["203.0.113.0/24"] * 50_001), "hostgroup_networks"),
    (hostgroup_event(hostgroup_name="x" * 256), "hostgroup_name"),
    (hostgroup_event(hostgroup_name=" "), "hostgroup_name"),
    (hostgroup_event(hostgroup_name="a\nb"), "hostgroup_name"),
    (hostgroup_event(hostgroup_name="a\ud800"), "hostgroup_name"),
    (hostgroup_event(hostgroup_name=None), "hostgroup_name"),
    (host_event(action="x" * 256), "action"),
    (host_event(action=""), "action"),
    (host_event(receipt={"sensor": ""}), r"receipt\.sensor"),
    (host_event(receipt={"sensor": "x" * 256}), r"receipt\.sensor"),
    (host_event(receipt={"event_id": ""}), r"receipt\.event_id"),
    (host_event(receipt={"sequence": 2**53}), r"receipt\.sequence"),
    (host_event(receipt={"sequence": -1}), r"receipt\.sequence"),
    (host_event(receipt={"sequence": True}), r"receipt\.sequence"),
    (host_event(receipt={"sequence": 1.0}), r"receipt\.sequence"),
    (
        host_event(receipt={"received_at": datetime(2026, 5, 1)}),  # noqa: DTZ001 - the fault
        r"receipt\.received_at",
    ),
    (host_event(receipt={"received_at": 0}), r"receipt\.received_at"),
    (
        host_event(details={"total_incoming_pps": -1}),
        r"attack_details\.total_incoming_pps",
    ),
    (
        host_event(details={"total_outgoing_traffic": 2**63}),
        r"attack_details\.total_outgoing_traffic",
    ),
    (
        host_event(details={"total_incoming_traffic_bits": "9"}),
        r"attack_details\.total_incoming_traffic_bits",
    ),
    (host_event(details={"host_group": "x" * 256}), r"attack_details\.host_group"),
    (host_event(details={"attack_uuid": "x" * 256}), r"attack_details\.attack_uuid"),
    (host_event(details={"attack_protocol": 17}), r"attack_details\.attack_protocol"),
    (host_event(text_mode=TextMode(direction="x" * 256)), r"text_mode\.direction"),
    (host_event(text_mode=TextMode(power_pps=-1)), r"text_mode\.power_pps"),
    (host_event(flow_spec_rules=None), "flow_spec_rules"),
    (host_event(flow_spec_rules=(flow_rule(),) * 50_001), "flow_spec_rules"),
    (host_event(extra=None), "extra"),
]


@pytest.mark.parametrize(("event", "field"), BAD, ids=[field for _, field in BAD])
def test_an_event_that_the_parser_cannot_make_is_refused(
    event: Event, field: str
) -> None:
    with pytest.raises(InvalidRecord, match=rf"^{field}: "):
        facts_of(event)


@pytest.mark.parametrize("field", ["sensor", "event_id"])
def test_the_longest_names_are_accepted(field: str) -> None:
    assert facts_of(host_event(receipt={field: "x" * 255}))
    assert facts_of(hostgroup_event(hostgroup_name="x" * 255))
    assert facts_of(host_event(receipt={"sequence": 2**53 - 1}))


NAMES = st.text(
    st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=255
)


@given(
    sensor=NAMES,
    name=NAMES,
    uuid=st.none() | st.text(max_size=600),
    ports=st.lists(st.integers(0, 65_535), max_size=300),
    closes=st.booleans(),
)
def test_every_reason_key_is_within_its_bound(
    sensor: str, name: str, uuid: str | None, ports: list[int], *, closes: bool
) -> None:
    rule = flow_rule(uuid=uuid, source_ports=tuple(ports))
    events: list[Event] = [
        hostgroup_event(
            hostgroup_name=name, receipt=msgspec.structs.replace(RECEIPT, sensor=sensor)
        ),
        host_event(
            "partial_unblock" if closes else "partial_block",
            receipt={"sensor": sensor},
            flow_spec_rules=(rule,),
        ),
    ]
    for event in events:
        try:
            parts = facts_of(event)
        except InvalidRecord:
            continue
        for facts in parts:
            assert len(facts.reason_key.encode()) <= MAX_KEY_BYTES
            json.loads(facts.reason_key.encode().decode("utf-8", "surrogatepass"))


def test_status_updates_of_hosts_have_the_hosts_network() -> None:
    event: StatusEvent = status_event()
    assert facts_of(event)[0].networks == (ip_network(f"{HOST}/32"),)


def test_an_empty_rule_has_a_name_of_its_own() -> None:
    event = host_event("partial_block", flow_spec_rules=(FlowSpecRule(),))
    assert facts_of(event)[0].part not in {"", ATTACK}


def test_texts_of_refusals_are_printable_and_short() -> None:
    pointer = "/flow_spec_rules/0/a\x1b[2J\n"
    extra = {pointer: '"' + "x" * 10**5 + '"', f"{pointer}x": "1"}
    event = host_event(flow_spec_rules=(flow_rule(),), extra=extra)
    ((check,),) = (facts_of(event)[0].refused_rules,)
    assert check.text.isprintable()
    assert check.text.startswith(r"not understood: a\x1b[2J\n = ")
    assert check.text.endswith("…, and 1 more")
    assert 200 < len(check.text) < 250


@pytest.mark.parametrize("action", ["partial_block", "partial_unblock"])
def test_a_refused_document_has_another_name_than_its_rules(action: str) -> None:
    empty = host_event(action, flow_spec_rules=(FlowSpecRule(),))
    named = facts_of(empty)[0].part
    for event in (
        host_event(action),
        host_event(action, extra={"/flow_spec_rules": "1"}),
        host_event(action, flow_spec_rules=(FlowSpecRule(),), extra=DSCP),
    ):
        part = facts_of(event)[0].part
        assert part.startswith("sha256:")
        assert part != named
