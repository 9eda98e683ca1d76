"""Commands for measures, and the parsed listing; the lines are ExaBGP 5.0.15's."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.enforcers.backend import UnsupportedMeasure
from consumers.enforcers.exabgp.commands import (
    BlackholeAttributes,
    announce_commands,
    form_of,
    withdraw_commands,
)
from consumers.enforcers.exabgp.listing import parse_route
from consumers.mitigation.measure import BLACKHOLE, FIREWALL, FLOWSPEC, Measure
from fnm_bus.event import FlowMatch, FlowThen

BLACKHOLE_ATTRIBUTES = BlackholeAttributes(
    "192.0.2.1", "100::1", ("65535:666", "65535:65281")
)
DISCARD = FlowThen(action="discard")
HOST = "198.51.100.1/32"
HOST6 = "2001:db8::1/128"


def blackhole(prefix: str | None, *communities: str) -> Measure:
    return Measure(kind=BLACKHOLE, prefix=prefix, communities=communities)


def rule(
    then: FlowThen | None = DISCARD,
    communities: tuple[str, ...] = (),
    to: str | None = HOST,
    **match: Any,
) -> Measure:
    flow = FlowMatch(destination_prefix=to, **match)
    return Measure(kind=FLOWSPEC, flow=flow, then=then, communities=communities)


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
    pytest.param(
        rule(to=None, source_prefix="203.0.113.0/24", protocols=("253",)),
        flow({"source-ipv4": ["203.0.113.0/24"], "protocol": ["=253"]}, "rate-limit:0"),
        id="a protocol without a name",
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


def test_prefixes_with_equal_attributes_share_a_command() -> None:
    others = [blackhole(f"10.0.{n // 250}.{n % 250}/32") for n in range(1500)]
    commands = announce_commands(
        [blackhole(HOST, "64500:1"), blackhole(HOST6), *others], BLACKHOLE_ATTRIBUTES
    )
    hop = "announce attributes next-hop"
    own = "community [ 65535:666 65535:65281 ]"
    assert commands[:2] == [
        f"{hop} 192.0.2.1 community [ 64500:1 65535:666 65535:65281 ] nlri {HOST}",
        f"{hop} 100::1 {own} nlri {HOST6}",
    ]
    assert [command.count("/32") for command in commands[2:]] == [1000, 500]


def test_last_measure_of_a_match_counts() -> None:
    limit = FlowThen(action="rate-limit", rate=9600)
    (command,) = announce_commands([rule(), rule(limit)], BLACKHOLE_ATTRIBUTES)
    assert "rate-limit 9600" in command


def test_several_values_are_in_brackets() -> None:
    (command,) = announce_commands(
        [rule(source_ports=(53, 123), protocols=("udp",))], BLACKHOLE_ATTRIBUTES
    )
    assert "source-port [ =53 =123 ];" in command
    assert "protocol =17;" in command


def test_rate_limit_of_zero_is_discard() -> None:
    zero = FlowThen(action="rate-limit", rate=0)
    assert form_of(rule(), BLACKHOLE_ATTRIBUTES) == form_of(
        rule(zero), BLACKHOLE_ATTRIBUTES
    )


@pytest.mark.parametrize(
    ("measure", "field"),
    [
        (blackhole(None), "prefix"),
        (blackhole("198.51.100.1"), "canonical"),
        (blackhole("198.51.100.1/24"), "host bits"),
        (blackhole("2001:DB8::/32"), "canonical"),
        (blackhole("fe80::1%x/128"), "prefix"),
        (blackhole("198.51.100.1/32; shutdown"), "prefix"),
        (blackhole(HOST, "blocked"), "communities"),
        (blackhole(HOST, "65536:1"), "communities"),
        (blackhole(HOST, "1:2:4294967296"), "communities"),
        (blackhole(HOST, "1:2:3:4"), "communities"),
        (blackhole(HOST, "1:-2"), "communities"),
        (Measure(kind=FIREWALL, prefix=HOST), "kind"),
        (Measure(kind=FLOWSPEC, prefix=HOST), "kind"),
        (rule(to=None, source_ports=(53,)), "destination_prefix"),
        (rule(source_prefix=HOST6), "IPv6"),
        (rule(protocols=("quic",)), "protocols: quic"),
        (rule(protocols=("256",)), "protocols: 256"),
        (rule(protocols=("17",)), "udp"),
        (rule(protocols=("ipv6-icmp",)), "write icmp"),
        (rule(to=HOST6, protocols=("icmp",)), "write ipv6-icmp"),
        (rule(source_ports=(65536,)), "source_ports"),
        (rule(source_ports=(454,)), "source_ports"),
        (rule(destination_ports=(-1,)), "destination_ports"),
        (rule(destination_ports=tuple(range(1000, 1500))), "values"),
        (rule(packet_lengths=(65536,)), "packet_lengths"),
        (rule(tcp_flags=("psh",)), "push"),
        (rule(tcp_flags=("syn|syn",)), "repeats"),
        (rule(fragmentation_flags=("fragment",)), "is-fragment"),
        (rule(to=HOST6, fragmentation_flags=("dont-fragment",)), "dont-fragment"),
        (rule(None), "then.action"),
        (rule(FlowThen(action="accept")), "then.action"),
        (rule(FlowThen(action="rate-limit")), "then.rate"),
        (rule(FlowThen(action="rate-limit", rate=10**12 + 1)), "then.rate"),
        (rule(FlowThen(action="redirect")), "redirect_as"),
        (rule(FlowThen(action="redirect", redirect_as=1)), "redirect_value"),
        (
            rule(FlowThen(action="redirect", redirect_as=65536, redirect_value=65536)),
            "redirect_value",
        ),
    ],
)
def test_unsupported_measure_is_refused_naming_the_field(
    measure: Measure, field: str
) -> None:
    with pytest.raises(UnsupportedMeasure) as caught:
        form_of(measure, BLACKHOLE_ATTRIBUTES)
    assert field in str(caught.value)
    assert str(caught.value).startswith(measure.key)
    assert not caught.value.retryable


def test_rule_without_network_is_refused() -> None:
    with pytest.raises(UnsupportedMeasure, match="flowspec"):
        form_of(rule(to="nowhere"), BLACKHOLE_ATTRIBUTES)


@pytest.mark.parametrize("prefix", [HOST, HOST6])
def test_next_hop_of_other_ip_version_is_refused(prefix: str) -> None:
    for hops in (("100::1", "192.0.2.1"), ("nowhere", "")):
        with pytest.raises(UnsupportedMeasure, match="next_hop"):
            form_of(blackhole(prefix), BlackholeAttributes(*hops, ()))


def test_unsupported_measures_are_ignored_on_withdrawal() -> None:
    bad = [blackhole(None), rule(None), rule(to="nowhere")]
    (command,) = withdraw_commands([*bad, blackhole(HOST)], BLACKHOLE_ATTRIBUTES, {})
    assert HOST in command


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


WORDS = st.lists(
    st.one_of(st.sampled_from(["udp", "17", "UDP", "syn", "ack|syn", "syn|ack", "٣"])),
    max_size=3,
).map(tuple)
NUMBERS = st.lists(st.sampled_from([0, 53, 80, 8008, 8080, 65536]), max_size=3)
PREFIXES = st.sampled_from(
    [None, "198.51.100.1/32", "198.51.100.0/24", "2001:db8::/48"]
)
FLOWS = st.builds(
    FlowMatch,
    destination_prefix=PREFIXES,
    source_prefix=PREFIXES,
    protocols=WORDS,
    source_ports=NUMBERS.map(tuple),
    destination_ports=NUMBERS.map(tuple),
    tcp_flags=WORDS,
    fragmentation_flags=st.lists(
        st.sampled_from(["is-fragment", "not-a-fragment", "IS-FRAGMENT"]), max_size=2
    ).map(tuple),
)


@given(FLOWS, FLOWS)
def test_measures_with_different_keys_have_different_matches(
    flow: FlowMatch, other: FlowMatch
) -> None:
    commands = []
    for match in (flow, other):
        measure = Measure(kind=FLOWSPEC, flow=match, then=FlowThen(action="discard"))
        try:
            commands.append(
                (measure.key, *announce_commands([measure], BLACKHOLE_ATTRIBUTES))
            )
        except UnsupportedMeasure:
            return
    assert (commands[0][0] == commands[1][0]) is (commands[0][1] == commands[1][1])


@pytest.mark.parametrize(
    "measure",
    [
        Measure(kind=BLACKHOLE, prefix="192.0.2.1/32", communities=("9" * 5000,)),
        Measure(kind=BLACKHOLE, prefix="192.0.2.1/32", communities=("1:" + "9" * 99,)),
        Measure(
            kind=BLACKHOLE,
            prefix="192.0.2.1/32",
            flow=FlowMatch(destination_prefix="192.0.2.2/32"),
        ),
        Measure(
            kind=FLOWSPEC,
            flow=FlowMatch(destination_prefix="192.0.2.1/32", protocols=("9" * 5000,)),
            then=FlowThen(action="discard"),
        ),
        Measure(
            kind=FLOWSPEC,
            flow=FlowMatch(destination_prefix="192.0.2.1/32"),
            then=FlowThen(action="redirect", redirect_as=-1, redirect_value=1),
        ),
        Measure(
            kind=FLOWSPEC,
            flow=FlowMatch(destination_prefix="192.0.2.1/32"),
            then=FlowThen(action="redirect", redirect_as=1, redirect_value=2**40),
        ),
    ],
)
def test_values_out_of_range_are_refused(measure: Measure) -> None:
    with pytest.raises(UnsupportedMeasure):
        form_of(measure, BLACKHOLE_ATTRIBUTES)
