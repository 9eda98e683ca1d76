"""Parsed lines of ExaBGP 5.0.15's listing."""

import json
from typing import Any

import pytest
from support.exabgp_measures import BLACKHOLE_ATTRIBUTES, HOST, HOST6, blackhole, rule

from consumers.enforcers.exabgp.commands import (
    announce_commands,
    form_of,
    withdraw_commands,
)
from consumers.enforcers.exabgp.listing import parse_route
from consumers.mitigation.measure import Measure
from fnm_bus.event import FlowThen


def route_line(nlri: dict[str, Any], **attributes: list[str]) -> str:
    route = {
        "nlri": nlri,
        "attributes": {
            key.replace("_", "-"): values for key, values in attributes.items()
        },
    }
    return json.dumps({"peer": {"address": "127.0.0.2"}, "route": route})


def unicast(prefix: str, hop: str, **attributes: list[str]) -> str:
    afi = "ipv6" if ":" in prefix else "ipv4"
    family = {"afi": afi, "safi": "unicast"}
    return route_line(
        {"prefix": prefix, "nexthop": hop, "family": family}, **attributes
    )


def flow(rules: dict[str, list[str]], action: str, **attributes: list[str]) -> str:
    family = {"afi": "ipv4", "safi": "flow"}
    nlri = {"rules": rules, "nexthop": None, "rd": None, "family": family}
    return route_line(nlri, extended_community=[action], **attributes)


LISTINGS = [
    pytest.param(
        blackhole(HOST, "64500:1", "64500:1:2"),
        unicast(
            HOST,
            "192.0.2.1",
            community=["64500:1", "blackhole", "no-export"],
            large_community=["64500:1:2"],
        ),
        id="v4",
    ),
    pytest.param(
        blackhole(HOST6),
        unicast(HOST6, "100::1", community=["blackhole", "no-export"]),
        id="v6",
    ),
    pytest.param(
        rule(
            source_prefix="203.0.113.0/24",
            protocols=("tcp", "udp"),
            source_ports=(53, 123),
            destination_ports=(591,),
            packet_lengths=(400, 1400),
            fragmentation_flags=(
                *("is-fragment", "not-a-fragment", "dont-fragment"),
                *("first-fragment", "last-fragment"),
            ),
            tcp_flags=("syn", "syn|ack", "urgent|push|rst|fin"),
        ),
        flow(
            {
                "destination-ipv4": [HOST],
                "source-ipv4": ["203.0.113.0/24"],
                "protocol": ["=tcp", "=udp"],
                "destination-port": [">tns-cml&<eudora-set"],
                "source-port": ["=domain", "=ntp"],
                "tcp-flags": ["=syn", "=syn+ack", "=fin+rst+push+urg"],
                "packet-length": ["=400", "=1400"],
                "fragment": [
                    *("is-fragment", "!is-fragment", "dont-fragment"),
                    *("first-fragment", "last-fragment"),
                ],
            },
            "rate-limit:0",
        ),
        id="every part",
    ),
    pytest.param(
        rule(
            FlowThen(action="rate-limit", rate=125_000),
            ("64500:7", "64500:1:2"),
            protocols=("udp",),
        ),
        flow(
            {"destination-ipv4": [HOST], "protocol": ["=udp"]},
            "rate-limit:125000",
            community=["64500:7"],
            large_community=["64500:1:2"],
        ),
        id="rate limit",
    ),
    pytest.param(
        rule(FlowThen(action="redirect", redirect_as=65500, redirect_value=12345)),
        flow({"destination-ipv4": [HOST]}, "redirect:65500:12345"),
        id="redirect",
    ),
    pytest.param(
        rule(
            FlowThen(action="redirect", redirect_as=4_200_000_000, redirect_value=12345)
        ),
        flow({"destination-ipv4": [HOST]}, "redirect:4200000000:12345"),
        id="redirect with a 32 bit AS",
    ),
    pytest.param(
        rule(
            to=HOST6,
            source_prefix="2001:db8:9::/48",
            protocols=("udp", "ipv6-icmp"),
            source_ports=(123,),
            fragmentation_flags=("is-fragment", "first-fragment", "not-a-fragment"),
            tcp_flags=("syn",),
            packet_lengths=(400,),
        ),
        flow(
            {
                "destination-ipv6": ["2001:db8::1/128/0"],
                "source-ipv6": ["2001:db8:9::/48/0"],
                "next-header": ["=udp", "=58"],
                "source-port": ["=ntp"],
                "tcp-flags": ["=syn"],
                "packet-length": ["=400"],
                "fragment": ["is-fragment", "first-fragment", "!is-fragment"],
            },
            "rate-limit:0",
        ),
        id="v6 rule",
    ),
]


@pytest.mark.parametrize(("measure", "line_of_route"), LISTINGS)
def test_listed_route_has_key_and_form_of_its_measure(
    measure: Measure, line_of_route: str
) -> None:
    listed, active = parse_route(line_of_route)
    assert listed.key == measure.key
    assert active.form == form_of(measure, BLACKHOLE_ATTRIBUTES)
    assert active.seconds_left is None


@pytest.mark.parametrize(("measure", "line_of_route"), LISTINGS)
def test_listed_route_is_withdrawn_with_its_attributes(
    measure: Measure, line_of_route: str
) -> None:
    listed, active = parse_route(line_of_route)
    (command,) = announce_commands([measure], BLACKHOLE_ATTRIBUTES)
    (withdrawal,) = withdraw_commands(
        [listed], BLACKHOLE_ATTRIBUTES, {listed.key: active.form}
    )
    assert withdrawal == command.replace("announce", "withdraw", 1)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "done",
        "[]",
        "{}",
        '{"route": {"nlri": {}, "attributes": {}}}',
        '{"route": {"nlri": {"prefix": "x", "nexthop": "y"}, "attributes": {}}}',
        unicast("10.0.0.1/8", "192.0.2.1"),
        unicast(HOST, "192.0.2.1", community=["no-llgr"]),
        flow({"destination-ipv4": [HOST]}, "mark 7"),
        flow({"destination-ipv4": [HOST]}, "rate-limit:many"),
        flow({"destination-ipv4": [HOST], "port": ["=ntp"]}, "rate-limit:0"),
        flow({"destination-ipv4": [HOST], "dscp": ["=1"]}, "rate-limit:0"),
        flow({"destination-ipv4": [HOST], "protocol": [">tcp"]}, "rate-limit:0"),
        flow({"destination-ipv4": [HOST], "protocol": ["=new"]}, "rate-limit:0"),
        flow({"destination-ipv4": [HOST], "source-port": ["=echo"]}, "rate-limit:0"),
        flow({"destination-ipv4": [HOST], "source-port": [">1"]}, "rate-limit:0"),
        flow({"destination-ipv4": [HOST], "source-port": [">1&<9"]}, "rate-limit:0"),
        flow({"destination-ipv4": [HOST], "tcp-flags": ["syn"]}, "rate-limit:0"),
        flow({"destination-ipv4": [HOST], "tcp-flags": ["=ns"]}, "rate-limit:0"),
        flow({"destination-ipv4": [HOST], "fragment": ["=x"]}, "rate-limit:0"),
        flow({"destination-ipv4": [HOST], "packet-length": [">4"]}, "rate-limit:0"),
        route_line({"rules": {"destination-ipv4": [HOST]}}),
    ],
)
def test_line_of_foreign_route_is_refused(bad: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each line has another reason
        parse_route(bad)


def test_foreign_route_with_a_protocol_without_a_name_is_withdrawn() -> None:
    line = flow(
        {"source-ipv4": ["203.0.113.0/24"], "protocol": ["=253"]}, "redirect:1:2"
    )
    listed, active = parse_route(line)
    forms = {listed.key: active.form}
    (command,) = withdraw_commands([listed], BLACKHOLE_ATTRIBUTES, forms)
    assert "protocol =253; } then { redirect 1:2;" in command
