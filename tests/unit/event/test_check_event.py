"""Events that the parser would never return are refused with their field."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnm_bus.avro.examples import example_records
from fnm_bus.errors import InvalidNotification, InvalidRecord
from fnm_bus.event import (
    Event,
    HostEvent,
    HostgroupEvent,
    HostgroupNetwork,
    Receipt,
    StatusEvent,
)
from fnm_bus.event.identifiers import check_event
from fnm_bus.event.parse import parse

RECEIPT = Receipt(event_id="id")
HOST = HostEvent(receipt=RECEIPT, action="ban", ip="192.0.2.1")
GROUP = HostgroupEvent(
    receipt=RECEIPT,
    action="ban",
    hostgroup_name="servers",
    hostgroup_networks=(HostgroupNetwork(sent="10.10.1.2/16", network="10.10.0.0/16"),),
)
STATUS = StatusEvent(receipt=RECEIPT, action="attack_status", ip="2001:db8::1")


@pytest.mark.parametrize("event", [HOST, GROUP, STATUS], ids=type)
def test_a_parsed_event_passes(event: Event) -> None:
    check_event(event)


@pytest.mark.parametrize(
    "event",
    [
        event
        for name in ("HostEvent", "HostgroupEvent", "StatusEvent")
        for event in example_records(f"fastnetmon.{name}").values()
    ],
)
def test_every_example_passes(event: Event) -> None:
    check_event(event)


@pytest.mark.parametrize(
    ("event", "changes", "reason"),
    [
        (HOST, {"ip": ""}, "HostEvent: /ip: wanted an IPv4 or IPv6 address"),
        (HOST, {"ip": "garbage"}, "HostEvent: /ip: wanted an IPv4 or IPv6 address"),
        (HOST, {"ip": "192.0.2.1/32"}, "/ip: wanted"),
        (HOST, {"ip": "fe80::1%eth0"}, "/ip: wanted"),
        (HOST, {"ip": "2001:DB8::1"}, "/ip: wanted an address in canonical text"),
        (HOST, {"ip": "::ffff:c000:201"}, "/ip: wanted an address in canonical text"),
        (HOST, {"action": ""}, "HostEvent: /action: wanted an action"),
        (HOST, {"action": "ban\n"}, "/action: wanted"),
        (GROUP, {"hostgroup_name": ""}, "HostgroupEvent: /hostgroup_name: wanted"),
        (GROUP, {"hostgroup_name": "a\0"}, "/hostgroup_name: wanted"),
        (GROUP, {"hostgroup_name": "x" * 1025}, "/hostgroup_name: wanted"),
        (STATUS, {"ip": None}, "StatusEvent: /hostgroup_name: wanted"),
        (STATUS, {"ip": "garbage"}, "StatusEvent: /ip: wanted"),
        (STATUS, {"hostgroup_name": "servers"}, "/ip: wanted no address beside a"),
    ],
)
def test_an_event_with_an_invalid_field_is_refused(
    event: Event, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRecord) as caught:
        check_event(msgspec.structs.replace(event, **changes))
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "network", ["", "garbage", "10.10.1.2/16", "10.0.0.0/33", "10.0.0.0", "10.0.0.0/08"]
)
@pytest.mark.parametrize("event", [GROUP, STATUS], ids=type)
def test_a_network_that_is_not_canonical_is_refused(
    event: HostgroupEvent | StatusEvent, network: str
) -> None:
    members = (
        HostgroupNetwork(sent="x", network=None),
        HostgroupNetwork(sent="x", network=network),
    )
    wrong = msgspec.structs.replace(event, hostgroup_networks=members)
    with pytest.raises(InvalidRecord, match=r": /hostgroup_networks/1/network: wanted"):
        check_event(wrong)


@given(
    ip=st.one_of(st.ip_addresses().map(str), st.text(max_size=20)),
    name=st.text(max_size=20),
    networks=st.lists(
        st.one_of(
            st.ip_addresses().map(lambda address: f"{address}/20"), st.text(max_size=20)
        ),
        max_size=3,
    ),
    scope=st.sampled_from(["host", "hostgroup"]),
    action=st.sampled_from(["ban", "attack_status", "partial_block"]),
)
def test_every_parsed_event_passes(
    ip: str, name: str, networks: list[str], scope: str, action: str
) -> None:
    document = {
        "action": action,
        "alert_scope": scope,
        "ip": ip,
        "hostgroup_name": name,
        "hostgroup_networks": networks,
    }
    try:
        event = parse(msgspec.json.encode(document), (), RECEIPT).event
    except InvalidNotification:
        return
    check_event(event)
