"""Measures: their keys, and the check of those from other programs."""

from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.mitigation.flow_match import MAX_VALUES
from consumers.mitigation.measure import (
    MAX_COMMUNITIES,
    MAX_RATE,
    Measure,
    canonical,
    match_text,
    validate_measure,
)
from fnm_bus.errors import InvalidRecord
from fnm_bus.event import FlowMatch, FlowThen

DISCARD = FlowThen(action="discard")
HOST = "203.0.113.7/32"


def plain(prefix: Any = HOST, kind: Any = "blackhole", **fields: Any) -> Measure:
    return Measure(kind=kind, prefix=prefix, **fields)


def flowspec(then: Any = DISCARD, measure: Any = None, **match: Any) -> Measure:
    flow = FlowMatch(**{"destination_prefix": HOST, **match})
    return Measure(kind="flowspec", flow=flow, then=then, **(measure or {}))


def test_a_key_is_kind_and_match() -> None:
    assert plain().key == "blackhole|203.0.113.7/32"
    measure = flowspec(protocols=("udp",), source_ports=(53,))
    assert measure.key == (
        'flowspec|{"destination_prefix":"203.0.113.7/32","protocols":["udp"],'
        '"source_ports":[53]}'
    )


def test_a_key_does_not_depend_on_action_or_spelling() -> None:
    rate = FlowThen(action="rate-limit", rate=5)
    first = flowspec(
        protocols=("UDP", "tcp"), source_ports=(2, 1, 2), tcp_flags=("b|a",)
    )
    second = flowspec(
        rate, protocols=("tcp", "udp"), source_ports=(1, 2), tcp_flags=("a|b",)
    )
    assert first.key == second.key


def test_a_prefix_of_length_0_is_the_absent_field() -> None:
    flow = FlowMatch(destination_prefix=HOST, source_prefix="0.0.0.0/0")
    assert canonical(flow) == FlowMatch(destination_prefix=HOST)
    assert match_text(flow) == match_text(FlowMatch(destination_prefix=HOST))
    measure = Measure(kind="flowspec", flow=flow, then=DISCARD)
    assert measure.networks == (ip_network(HOST),)


def test_the_networks_are_those_of_the_match_destination_first() -> None:
    measure = flowspec(source_prefix="198.51.100.0/24")
    assert measure.networks == (ip_network(HOST), ip_network("198.51.100.0/24"))
    assert plain().networks == (ip_network(HOST),)


@pytest.mark.parametrize("number", [7, True])
def test_a_prefix_that_is_not_text_is_not_an_address(number: Any) -> None:
    with pytest.raises(ValueError, match="is not a network"):
        canonical(FlowMatch(destination_prefix=number))


@pytest.mark.parametrize("text", [f"{HOST[:-3]}/0.0.0.0", f"{HOST[:-3]}/0.0.0.255"])
def test_a_prefix_with_a_mask_is_not_a_network(text: str) -> None:
    with pytest.raises(ValueError, match="mask"):
        canonical(FlowMatch(destination_prefix=text))


VALID = [
    plain(),
    plain("2001:db8::/32", "firewall"),
    plain(kind="notify"),
    plain(communities=("64500:666", "65535:65535", "4294967295:0:4294967295")),
    flowspec(),
    flowspec(measure={"communities": ("64500:1",)}),
    flowspec(FlowThen(action="rate-limit", rate=1)),
    flowspec(FlowThen(action="rate-limit", rate=MAX_RATE)),
    flowspec(FlowThen(action="redirect", redirect_as=65_535, redirect_value=2**32 - 1)),
    flowspec(FlowThen(action="redirect", redirect_as=65_536, redirect_value=65_535)),
    flowspec(FlowThen(action="redirect", redirect_as=2**32 - 1, redirect_value=0)),
    flowspec(
        source_prefix="198.51.100.0/24",
        protocols=("sctp", "tcp"),
        source_ports=(0, 65_535),
        destination_ports=(80,),
        packet_lengths=(1500,),
        fragmentation_flags=("dont-fragment", "is-fragment"),
        tcp_flags=("ack|syn", "rst"),
    ),
    flowspec(source_ports=tuple(range(MAX_VALUES))),
    flowspec(destination_prefix=None, source_prefix=HOST),
]


@pytest.mark.parametrize("measure", VALID, ids=lambda measure: measure.key[:60])
def test_a_measure_of_our_programs_is_valid(measure: Measure) -> None:
    validate_measure(measure)
    validate_measure(measure, measure.key)


RATE = "rate-limit"
INVALID = [
    (plain(kind="divert"), "kind"),
    (plain(kind=7), "kind"),
    (plain(kind=[]), "kind"),
    (plain(7), "prefix"),
    (plain(True), "prefix"),  # noqa: FBT003 - a value
    (plain(None), "prefix"),
    (plain(""), "prefix"),
    (plain("web"), "prefix"),
    (plain("203.0.113.7"), "prefix"),
    (plain("203.0.113.7/24"), "prefix"),
    (plain("203.0.113.7/255.255.255.255"), "prefix"),
    (plain("2001:DB8::/32"), "prefix"),
    (plain("fe80::%eth0/128"), "prefix"),
    (plain("0.0.0.0/0"), "prefix"),
    (plain("::/0", "firewall"), "prefix"),
    (plain(flow=FlowMatch(destination_prefix=HOST)), "flow, then"),
    (plain(then=DISCARD), "flow, then"),
    (plain(communities=("65536:1",)), "communities"),
    (plain(communities=("1:2:3:4",)), "communities"),
    (plain(communities=("01:2",)), "communities"),
    (plain(communities=("1:2:4294967296",)), "communities"),
    (plain(communities=("no-export",)), "communities"),
    (plain(communities=(7,)), "communities"),
    (plain(communities=["1:2"]), "communities"),
    (plain(communities=("1:2",) * (MAX_COMMUNITIES + 1)), "communities"),
    (plain(kind="firewall", communities=("1:2",)), "communities"),
    (plain(kind="notify", communities=("1:2",)), "communities"),
    (Measure(kind="flowspec", then=DISCARD), "flow"),
    (Measure(kind="flowspec", flow=FlowMatch(), then=DISCARD), "flow"),
    (flowspec(destination_prefix=None, protocols=("udp",)), "flow"),
    (flowspec(measure={"prefix": HOST}), "prefix"),
    (flowspec(destination_prefix="203.0.113.7/24"), "flow.destination_prefix"),
    (flowspec(destination_prefix=7), "flow.destination_prefix"),
    (flowspec(source_prefix=""), "flow.source_prefix"),
    (flowspec(source_prefix="0.0.0.0/0"), "flow.source_prefix"),
    (flowspec(source_prefix="2001:db8::/32"), "flow"),
    (flowspec(source_ports=(65_536,)), "flow.source_ports"),
    (flowspec(destination_ports=(-1,)), "flow.destination_ports"),
    (flowspec(packet_lengths=(True,)), "flow.packet_lengths"),
    (flowspec(packet_lengths=("1",)), "flow.packet_lengths"),
    (flowspec(source_ports=[1]), "flow.source_ports"),
    (flowspec(source_ports=(2, 1)), "flow"),
    (flowspec(source_ports=(1, 1)), "flow"),
    (flowspec(source_ports=tuple(range(101))), "flow.source_ports"),
    (flowspec(source_ports=tuple(range(99)), destination_ports=(1, 2)), "flow"),
    (flowspec(protocols=("UDP",)), "flow.protocols"),
    (flowspec(protocols=("quic",)), "flow.protocols"),
    (flowspec(protocols=("ipv6-icmp",)), "flow.protocols"),
    (flowspec(destination_prefix="2001:db8::/32", protocols=("icmp",)), "flow.proto"),
    (flowspec(protocols=(17,)), "flow.protocols"),
    (flowspec(protocols=("udp", "tcp")), "flow"),
    (flowspec(fragmentation_flags=("more",)), "flow.fragmentation_flags"),
    (
        flowspec(
            destination_prefix="2001:db8::/32", fragmentation_flags=("dont-fragment",)
        ),
        "flow.fragmentation_flags",
    ),
    (flowspec(tcp_flags=("psh",)), "flow.tcp_flags"),
    (flowspec(tcp_flags=("syn|syn",)), "flow.tcp_flags"),
    (flowspec(tcp_flags=("syn|ack",)), "flow"),
    (flowspec(None), "then"),
    (flowspec("discard"), "then"),
    (flowspec(FlowThen(action="accept")), "then"),
    (flowspec(FlowThen(action="discard", rate=1)), "then"),
    (flowspec(FlowThen(action="discard", redirect_as=1)), "then"),
    (flowspec(FlowThen(action=RATE)), "then"),
    (flowspec(FlowThen(action=RATE, rate=0)), "then.rate"),
    (flowspec(FlowThen(action=RATE, rate=MAX_RATE + 1)), "then.rate"),
    (flowspec(FlowThen(action=RATE, rate=True)), "then"),
    (flowspec(FlowThen(action=RATE, rate=1, redirect_as=1)), "then"),
    (flowspec(FlowThen(action="redirect", redirect_as=1)), "then"),
    (flowspec(FlowThen(action="redirect", redirect_value=1)), "then"),
    (flowspec(FlowThen(action="redirect", redirect_as=-1, redirect_value=1)), "then"),
    (flowspec(FlowThen(action="redirect", redirect_as=1, redirect_value=-1)), "then"),
    (
        flowspec(FlowThen(action="redirect", redirect_as=2**32, redirect_value=1)),
        "then",
    ),
    (
        flowspec(FlowThen(action="redirect", redirect_as=1, redirect_value=2**32)),
        "then",
    ),
    (
        flowspec(
            FlowThen(action="redirect", redirect_as=65_536, redirect_value=65_536)
        ),
        "then",
    ),
    (
        flowspec(FlowThen(action="redirect", redirect_as=1, redirect_value=1, rate=1)),
        "then",
    ),
]


@pytest.mark.parametrize(
    ("measure", "field"), INVALID, ids=[f"{n}-{f}" for n, (_, f) in enumerate(INVALID)]
)
def test_a_measure_of_another_writer_is_refused_with_its_field(
    measure: Measure, field: str
) -> None:
    with pytest.raises(InvalidRecord) as info:
        validate_measure(measure)
    assert str(info.value).startswith(field)
    assert len(str(info.value)) < 400


@pytest.mark.parametrize(
    ("measure", "text"),
    [
        (plain(kind="divert"), "kind: 'divert' is not a kind of measure"),
        (plain("0.0.0.0/0"), "prefix: 0.0.0.0/0 is any address"),
        (plain(then=DISCARD), "flow, then: a blackhole measure has none"),
        (flowspec(measure={"prefix": HOST}), "prefix: a flowspec measure has none"),
        (
            Measure(kind="flowspec", then=DISCARD),
            "flow: a flowspec measure needs a match",
        ),
        (
            flowspec(destination_prefix=None),
            "flow: a match needs a destination or source prefix",
        ),
        (
            flowspec(source_prefix="2001:db8::/32"),
            "flow: one prefix is IPv4, the other IPv6",
        ),
        (flowspec(source_ports=[1]), "flow.source_ports: expected a list of int"),
        (flowspec(protocols=(1,)), "flow.protocols: expected a list of str"),
        (
            flowspec(source_ports=tuple(range(101))),
            "flow.source_ports: 101 values, allowed are 100",
        ),
        (
            flowspec(source_ports=(65_536,)),
            "flow.source_ports: 65536 is not between 0 and 65535",
        ),
        (flowspec(None), "then: a flowspec measure needs an action"),
        (flowspec(FlowThen(action=RATE, rate=True)), "then: expected numbers"),
        (
            flowspec(FlowThen(action=RATE, rate=0)),
            "then.rate: expected 1 to 1000000000000 bytes/s",
        ),
        (
            flowspec(FlowThen(action="redirect", redirect_as=1, redirect_value=-1)),
            "then: 1:-1 is not a route target",
        ),
        (
            flowspec(FlowThen(action="accept")),
            (
                "then: expected discard, rate-limit with rate, or redirect with"
                " redirect_as and redirect_value, without other values"
            ),
        ),
        (plain(communities=("1:2",) * 33), "communities: expected at most 32"),
        (plain(communities=("x",)), "communities: 'x' is not a community"),
        (plain(communities=("65536:1",)), "communities: '65536:1' is not a community"),
        (
            plain(kind="notify", communities=("1:2",)),
            "communities: a notify measure has none",
        ),
    ],
)
def test_a_refusal_names_the_fault(measure: Measure, text: str) -> None:
    with pytest.raises(InvalidRecord) as info:
        validate_measure(measure)
    assert str(info.value) == text


@pytest.mark.parametrize("key", ["blackhole|203.0.113.8/32", "", 7, "x" * 10**5])
def test_a_record_key_other_than_the_measures_is_refused(key: Any) -> None:
    with pytest.raises(InvalidRecord, match=r"^key: expected blackhole"):
        validate_measure(plain(), key)


SCALARS = st.none() | st.booleans() | st.integers(-1, 70_000) | st.text(max_size=8)
ANYTHING = SCALARS | st.lists(SCALARS, max_size=3) | st.lists(SCALARS).map(tuple)


@settings(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(Measure.__struct_fields__, ANYTHING)
    )
)
def test_a_measure_of_any_types_raises_only_invalidrecord(
    fields: dict[str, Any],
) -> None:
    measure = Measure(**{"kind": "blackhole", **fields})
    try:
        validate_measure(measure)
    except InvalidRecord:
        return
    assert isinstance(measure.key, str)


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(FlowMatch.__struct_fields__, ANYTHING)
    ),
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(FlowThen.__struct_fields__, ANYTHING)
    ),
)
def test_a_match_of_any_types_raises_only_invalidrecord(
    match: dict[str, Any], then: dict[str, Any]
) -> None:
    measure = flowspec(FlowThen(**{"action": "discard", **then}), **match)
    try:
        validate_measure(measure)
    except InvalidRecord:
        return
    assert canonical(measure.flow or FlowMatch()) == measure.flow


def test_a_decoded_measure_equals_the_encoded_one() -> None:
    measure = flowspec(protocols=("udp",))
    assert msgspec.json.decode(msgspec.json.encode(measure), type=Measure) == measure
