"""What ExaBGP is told, and what its listing means; the lines are ExaBGP 5.0.15's."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.enforcers.backend import UnsupportedMeasure
from consumers.enforcers.exabgp import ports, vocabulary
from consumers.enforcers.exabgp.commands import (
    BlackholeAttributes,
    announce_commands,
    form_of,
    withdraw_commands,
)
from consumers.enforcers.exabgp.listing import parse_route
from consumers.mitigation.measure import BLACKHOLE, FIREWALL, FLOWSPEC, Measure
from fnm_bus.event import FlowMatch, FlowThen

CARRIED = BlackholeAttributes("192.0.2.1", "100::1", ("65535:666", "65535:65281"))
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


def line(nlri: dict[str, Any], **attributes: list[str]) -> str:
    route = {
        "nlri": nlri,
        "attributes": {key.replace("_", "-"): it for key, it in attributes.items()},
    }
    return json.dumps({"peer": {"address": "127.0.0.2"}, "route": route})


def unicast(prefix: str, hop: str, **attributes: list[str]) -> str:
    afi = "ipv6" if ":" in prefix else "ipv4"
    family = {"afi": afi, "safi": "unicast"}
    return line({"prefix": prefix, "nexthop": hop, "family": family}, **attributes)


def flow(rules: dict[str, list[str]], action: str, **attributes: list[str]) -> str:
    family = {"afi": "ipv4", "safi": "flow"}
    nlri = {"rules": rules, "nexthop": None, "rd": None, "family": family}
    return line(nlri, extended_community=[action], **attributes)


RECORDED = [
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


@pytest.mark.parametrize(("measure", "recorded"), RECORDED)
def test_the_listing_of_a_measure_has_its_key_and_its_form(
    measure: Measure, recorded: str
) -> None:
    found, standing = parse_route(recorded)
    assert found.key == measure.key
    assert standing.form == form_of(measure, CARRIED)
    assert standing.seconds_left is None


@pytest.mark.parametrize(("measure", "recorded"), RECORDED)
def test_what_is_listed_is_withdrawn_with_its_own_attributes(
    measure: Measure, recorded: str
) -> None:
    found, standing = parse_route(recorded)
    (said,) = announce_commands([measure], CARRIED)
    (back,) = withdraw_commands([found], CARRIED, {found.key: standing.form})
    assert back == said.replace("announce", "withdraw", 1)


def test_prefixes_with_the_same_attributes_share_a_command() -> None:
    others = [blackhole(f"10.0.{it // 250}.{it % 250}/32") for it in range(1500)]
    said = announce_commands(
        [blackhole(HOST, "64500:1"), blackhole(HOST6), *others], CARRIED
    )
    hop = "announce attributes next-hop"
    own = "community [ 65535:666 65535:65281 ]"
    assert said[:2] == [
        f"{hop} 192.0.2.1 community [ 64500:1 65535:666 65535:65281 ] nlri {HOST}",
        f"{hop} 100::1 {own} nlri {HOST6}",
    ]
    assert [it.count("/32") for it in said[2:]] == [1000, 500]


def test_of_one_match_the_last_counts() -> None:
    limit = FlowThen(action="rate-limit", rate=9600)
    (said,) = announce_commands([rule(), rule(limit)], CARRIED)
    assert "rate-limit 9600" in said


def test_several_values_stand_in_brackets() -> None:
    (said,) = announce_commands(
        [rule(source_ports=(53, 123), protocols=("udp",))], CARRIED
    )
    assert "source-port [ =53 =123 ];" in said
    assert "protocol =17;" in said


def test_a_discard_is_a_rate_limit_of_nothing() -> None:
    none = FlowThen(action="rate-limit", rate=0)
    assert form_of(rule(), CARRIED) == form_of(rule(none), CARRIED)


def test_ports_that_exabgp_gives_one_name_are_told_apart() -> None:
    names = {
        it: [other for other, name in ports._names_by_port().items() if name == it]
        for it in ports._names_by_port().values()
    }
    shared = [port for ports in names.values() if len(ports) > 1 for port in ports]
    assert {7, 8008, 8080} <= set(shared)
    refused = set()
    for port in shared:
        try:
            (term,) = ports.port_terms("source_ports", [port])
        except UnsupportedMeasure:
            refused.add(port)
            continue
        below, above = term[1:].split("&<")
        in_words = [ports._names_by_port().get(int(it), it) for it in (below, above)]
        assert ports.port_numbers([f">{in_words[0]}&<{in_words[1]}"]) == (port,)
    assert refused == {454, 3365}


@given(st.integers(0, 65535))
def test_every_port_comes_back_as_it_went(port: int) -> None:
    if port in {454, 3365}:
        return
    (term,) = ports.port_terms("source_ports", [port])
    name = ports._names_by_port().get(port)
    as_listed = f"={name}" if name and term.startswith("=") else term
    assert ports.port_numbers([as_listed]) == (port,)


@given(st.sampled_from(sorted(vocabulary.PROTOCOLS)))
def test_every_protocol_comes_back_as_it_went(word: str) -> None:
    version = 6 if word == "ipv6-icmp" else 4
    terms = vocabulary.protocol_terms([word], version)
    assert vocabulary.protocol_words(terms) == (word,)


@pytest.mark.parametrize(
    ("measure", "named"),
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
def test_what_cannot_be_said_is_refused_for_good_by_its_part(
    measure: Measure, named: str
) -> None:
    with pytest.raises(UnsupportedMeasure) as caught:
        form_of(measure, CARRIED)
    assert named in str(caught.value)
    assert str(caught.value).startswith(measure.key)
    assert not caught.value.retryable


def test_a_rule_of_no_network_is_refused_though_it_has_no_key() -> None:
    with pytest.raises(UnsupportedMeasure, match="flowspec"):
        form_of(rule(to="nowhere"), CARRIED)


@pytest.mark.parametrize("prefix", [HOST, HOST6])
def test_a_next_hop_that_does_not_fit_is_refused(prefix: str) -> None:
    for hops in (("100::1", "192.0.2.1"), ("nowhere", "")):
        with pytest.raises(UnsupportedMeasure, match="next_hop"):
            form_of(blackhole(prefix), BlackholeAttributes(*hops, ()))


def test_withdrawing_what_cannot_be_said_says_nothing() -> None:
    bad = [blackhole(None), rule(None), rule(to="nowhere")]
    (said,) = withdraw_commands([*bad, blackhole(HOST)], CARRIED, {})
    assert HOST in said


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
        line({"rules": {"destination-ipv4": [HOST]}}),
    ],
)
def test_a_line_that_is_not_ours_is_told(bad: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own reason
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
def test_two_mitigations_never_share_a_match(one: FlowMatch, other: FlowMatch) -> None:
    said = []
    for flow in (one, other):
        measure = Measure(kind=FLOWSPEC, flow=flow, then=FlowThen(action="discard"))
        try:
            said.append((measure.key, *announce_commands([measure], CARRIED)))
        except UnsupportedMeasure:
            return
    assert (said[0][0] == said[1][0]) is (said[0][1] == said[1][1])


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
def test_values_without_bounds_are_refused(measure: Measure) -> None:
    with pytest.raises(UnsupportedMeasure):
        form_of(measure, CARRIED)
