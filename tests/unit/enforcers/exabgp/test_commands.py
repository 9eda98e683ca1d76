"""Commands for measures, and refused values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.exabgp_measures import BLACKHOLE_ATTRIBUTES, HOST, HOST6, blackhole, rule

from consumers.enforcers.backend import UnsupportedMeasure
from consumers.enforcers.exabgp.commands import (
    announce_commands,
    form_of,
    withdraw_commands,
)
from consumers.mitigation.measure import (
    BLACKHOLE,
    FIREWALL,
    FLOWSPEC,
    Measure,
    canonical,
)
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


@pytest.mark.parametrize(
    ("measure", "field"),
    [
        (blackhole(None), "prefix"),
        (blackhole("198.51.100.1/32; shutdown"), "prefix"),
        (blackhole(HOST, "blocked"), "communities"),
        (Measure(kind=BLACKHOLE, prefix=HOST, flow=FlowMatch()), "flow"),
        (Measure(kind=FIREWALL, prefix=HOST), "kind"),
        (Measure(kind=FLOWSPEC, prefix=HOST), "prefix"),
        (rule(protocols=("17",)), "protocols"),
        (rule(source_ports=(454,)), "source_ports"),
        (rule(FlowThen(action="rate-limit", rate=0)), "then.rate"),
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
    nowhere = Measure(kind=FLOWSPEC, flow=FlowMatch(destination_prefix="nowhere"))
    with pytest.raises(UnsupportedMeasure, match="flowspec"):
        form_of(nowhere, BLACKHOLE_ATTRIBUTES)
    assert not withdraw_commands([nowhere], BLACKHOLE_ATTRIBUTES, {})


def test_unsupported_measures_are_ignored_on_withdrawal() -> None:
    bad = [blackhole(None), rule(None)]
    (command,) = withdraw_commands([*bad, blackhole(HOST)], BLACKHOLE_ATTRIBUTES, {})
    assert HOST in command


def tuples_of(*values: object) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(values), max_size=3).map(tuple)


PORTS = tuples_of(0, 53, 80, 8008, 8080)
PREFIXES = st.sampled_from([None, HOST, "198.51.100.0/24"])
FLOWS = st.builds(
    FlowMatch,
    destination_prefix=PREFIXES,
    source_prefix=PREFIXES,
    protocols=tuples_of("udp", "tcp", "gre"),
    source_ports=PORTS,
    destination_ports=PORTS,
    tcp_flags=tuples_of("syn", "ack", "ack|syn", "syn|ack"),
    fragmentation_flags=tuples_of("is-fragment", "not-a-fragment"),
)


@given(FLOWS, FLOWS)
def test_measures_with_different_keys_have_different_matches(
    flow: FlowMatch, other: FlowMatch
) -> None:
    commands = []
    for match in (flow, other):
        measure = Measure(
            kind=FLOWSPEC, flow=canonical(match), then=FlowThen(action="discard")
        )
        try:
            commands.append(
                (measure.key, *announce_commands([measure], BLACKHOLE_ATTRIBUTES))
            )
        except UnsupportedMeasure:
            return
    assert (commands[0][0] == commands[1][0]) is (commands[0][1] == commands[1][1])
