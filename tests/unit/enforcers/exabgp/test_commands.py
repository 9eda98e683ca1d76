"""Commands for measures, and refused values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.exabgp_measures import (
    BLACKHOLE_ATTRIBUTES,
    HOST,
    HOST6,
    blackhole,
    rule,
)

from consumers.enforcers.backend import UnsupportedMeasure
from consumers.enforcers.exabgp.commands import (
    BlackholeAttributes,
    announce_commands,
    form_of,
    withdraw_commands,
)
from consumers.mitigation.measure import BLACKHOLE, FIREWALL, FLOWSPEC, Measure
from fnm_bus.event import FlowMatch, FlowThen


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
