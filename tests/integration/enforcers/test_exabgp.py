"""A real ExaBGP with a real BIRD, whose tables are checked."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from support.bird import Bird, Route, running_bird
from support.exabgp import Exabgp
from support.process import wait_until

from consumers.enforcers.backend import BackendError, DesiredMeasure
from consumers.enforcers.exabgp.backend import ExabgpBackend
from consumers.enforcers.exabgp.session import ExabgpExited
from consumers.mitigation.measure import BLACKHOLE, FLOWSPEC, Measure, canonical
from fnm_bus.event import FlowMatch, FlowThen

HOST, HOST6 = "198.51.100.1/32", "2001:db8::1/128"
DEFAULT_COMMUNITIES = ("65535:65281", "65535:666")
DISCARD = FlowThen(action="discard")
LIMIT = FlowThen(action="rate-limit", rate=125_000)
REDIRECT = FlowThen(action="redirect", redirect_as=65500, redirect_value=12345)
NOTHING = "(generic, 0x80060000, 0x0)"
"""Traffic-rate 0, as BIRD shows it."""


@pytest.fixture(scope="module")
def bird() -> Iterator[Bird]:
    with running_bird() as bird:
        yield bird


@pytest.fixture(scope="module")
def shared_exabgp(bird: Bird) -> Iterator[Exabgp]:
    """An ExaBGP whose watchdog has a long grace."""
    with TemporaryDirectory(prefix="fnm-") as root:
        exabgp = Exabgp(Path(root), bird, grace=3600.0)
        exabgp.start()
        yield exabgp
        exabgp.close()


@pytest.fixture
def exabgp(shared_exabgp: Exabgp, bird: Bird) -> Iterator[Exabgp]:
    """The shared ExaBGP with a session, without routes before and after the test."""
    assert shared_exabgp.alive, shared_exabgp.output()
    bird.wait_up()
    yield shared_exabgp
    shared_exabgp.disconnect()
    assert shared_exabgp.alive, shared_exabgp.output()
    bird.wait_up()
    backend = shared_exabgp.connect()
    backend.withdraw(list(backend.active()))
    shared_exabgp.disconnect()
    bird.wait_routes()


@pytest.fixture
def backend(exabgp: Exabgp) -> ExabgpBackend:
    return exabgp.connect()


def wanted(*measures: Measure) -> list[DesiredMeasure]:
    return [DesiredMeasure(measure, 300.0) for measure in measures]


def blackhole(prefix: str, *communities: str) -> Measure:
    return Measure(kind=BLACKHOLE, prefix=prefix, communities=communities)


def hosts(count: int) -> list[str]:
    return [f"10.0.{number // 250}.{number % 250}/32" for number in range(count)]


def hosts6(count: int) -> list[str]:
    """Return prefixes that keep ExaBGP busy: each gets its own UPDATE."""
    return [f"2001:db8:1::{number:x}/128" for number in range(1, count + 1)]


def rule(
    then: FlowThen = DISCARD, *communities: str, to: str | None = HOST, **match: Any
) -> Measure:
    flow = canonical(FlowMatch(destination_prefix=to, **match))
    return Measure(kind=FLOWSPEC, flow=flow, then=then, communities=communities)


def test_blackholes_have_next_hop_and_communities(
    backend: ExabgpBackend, bird: Bird
) -> None:
    backend.announce(
        wanted(
            blackhole(HOST, "64500:1", "64500:1:2"),
            blackhole(HOST6),
            blackhole("203.0.113.0/24"),
            blackhole("2001:db8:7::/48"),
        )
    )
    routes = bird.wait_routes(HOST, HOST6, "203.0.113.0/24", "2001:db8:7::/48")
    communities = ("64500:1", "64500:1:2", *DEFAULT_COMMUNITIES)
    assert routes[HOST] == Route(HOST, "192.0.2.1", communities, "")
    assert routes[HOST6] == Route(HOST6, "100::1", DEFAULT_COMMUNITIES, "")
    assert routes["203.0.113.0/24"].next_hop == "192.0.2.1"
    assert routes["2001:db8:7::/48"].next_hop == "100::1"


RULES = [
    (rule(), f"flow4 {{ dst {HOST}; }}", NOTHING),
    (
        rule(to=None, source_prefix="203.0.113.0/24", protocols=("udp", "tcp", "gre")),
        "flow4 { src 203.0.113.0/24; proto 47,6,17; }",
        NOTHING,
    ),
    (
        rule(LIMIT, source_ports=(123, 53), destination_ports=(0, 8008)),
        f"flow4 {{ dst {HOST}; dport 0 || > 8007 && < 8009; sport 53,123; }}",
        "(generic, 0x80060000, 0x47f42400)",
    ),
    (
        rule(REDIRECT, packet_lengths=(1400, 400)),
        f"flow4 {{ dst {HOST}; length 400,1400; }}",
        "(generic, 0x8008ffdc, 0x3039)",
    ),
    (
        rule(tcp_flags=("syn", "syn|ack", "urgent|push|rst|fin")),
        f"flow4 {{ dst {HOST}; tcp flags 0x12/0x12 || 0x2d/0x2d || 0x2/0x2; }}",
        NOTHING,
    ),
    (
        rule(fragmentation_flags=("is-fragment", "dont-fragment")),
        f"flow4 {{ dst {HOST}; fragment !!dont_fragment || !!is_fragment; }}",
        NOTHING,
    ),
    (
        rule(fragmentation_flags=("not-a-fragment",)),
        f"flow4 {{ dst {HOST}; fragment !is_fragment; }}",
        NOTHING,
    ),
    (
        rule(to=HOST6, protocols=("udp", "ipv6-icmp"), source_ports=(123,)),
        f"flow6 {{ dst {HOST6}; next header 58,17; sport 123; }}",
        NOTHING,
    ),
    (
        rule(LIMIT, to=HOST6, source_prefix="2001:db8:9::/48", tcp_flags=("syn",)),
        f"flow6 {{ dst {HOST6}; src 2001:db8:9::/48; tcp flags 0x2/0x2; }}",
        "(generic, 0x80060000, 0x47f42400)",
    ),
    (
        rule(REDIRECT, to=HOST6, fragmentation_flags=("first-fragment",)),
        f"flow6 {{ dst {HOST6}; fragment !!first_fragment; }}",
        "(generic, 0x8008ffdc, 0x3039)",
    ),
]


def test_rules_have_wanted_match_and_action(backend: ExabgpBackend, bird: Bird) -> None:
    backend.announce(wanted(*(measure for measure, _, _ in RULES)))
    routes = bird.wait_routes(*(net for _, net, _ in RULES))
    for _, net, extended in RULES:
        assert routes[net].extended == extended
        assert routes[net].communities == ()


def test_active_measures_have_wanted_keys_and_forms(backend: ExabgpBackend) -> None:
    measures = [
        *(measure for measure, _, _ in RULES),
        rule(LIMIT, "64500:7", "64500:1:2", destination_ports=(7,)),
        blackhole(HOST, "64500:1", "65535:666", "4200000000:1:2"),
        blackhole("2001:db8::/32"),
    ]
    backend.announce(wanted(*measures))
    active = backend.active().items()
    forms = {measure.key: listed.form for measure, listed in active}
    assert forms == {measure.key: backend.form(measure) for measure in measures}
    backend.withdraw(list(backend.active()))
    assert backend.active() == {}


def test_rule_has_its_own_communities(backend: ExabgpBackend, bird: Bird) -> None:
    backend.announce(wanted(rule(DISCARD, "64500:7", "64500:1:2")))
    (route,) = bird.wait_routes(f"flow4 {{ dst {HOST}; }}").values()
    assert route.communities == ("64500:1:2", "64500:7")


def test_new_action_replaces_announced_action(
    backend: ExabgpBackend, bird: Bird
) -> None:
    # While ExaBGP sends these, it could reorder later requests.
    backend.announce(wanted(*map(blackhole, hosts6(2000))))
    for then in (DISCARD, LIMIT, DISCARD, LIMIT):
        backend.announce(wanted(rule(then)))
    net = f"flow4 {{ dst {HOST}; }}"
    routes = bird.wait_routes(net, *hosts6(2000))
    assert routes[net].extended == "(generic, 0x80060000, 0x47f42400)"
    (form,) = (
        listed.form
        for measure, listed in backend.active().items()
        if measure.kind == FLOWSPEC
    )
    assert form == backend.form(rule(LIMIT))


def test_new_communities_replace_announced_communities(
    backend: ExabgpBackend, bird: Bird
) -> None:
    backend.announce(wanted(blackhole(HOST, "64500:1")))
    bird.wait_routes(HOST)
    backend.announce(wanted(blackhole(HOST)))
    wait_until(
        lambda: bird.routes()[HOST].communities == DEFAULT_COMMUNITIES,
        10,
        "communities",
    )


def test_withdrawn_routes_disappear_from_neighbor(
    backend: ExabgpBackend, bird: Bird
) -> None:
    rules = (rule(), rule(to=HOST6, protocols=("udp",)))
    backend.announce(wanted(blackhole(HOST), blackhole(HOST6), *rules))
    wait_until(lambda: bird.count() == 4, 10, "four routes")
    backend.withdraw([blackhole(HOST), rules[1]])
    bird.wait_routes(HOST6, f"flow4 {{ dst {HOST}; }}")


def test_last_of_quick_requests_counts(backend: ExabgpBackend, bird: Bird) -> None:
    first, second, *others = hosts6(2000)
    backend.announce(wanted(*map(blackhole, hosts6(2000))))
    backend.withdraw([blackhole(first), blackhole(second)])
    backend.announce(wanted(blackhole(first), rule()))
    backend.withdraw([rule(), *map(blackhole, others)])
    bird.wait_routes(first)


def test_thousand_routes_in_one_call(backend: ExabgpBackend, bird: Bird) -> None:
    backend.announce(wanted(*map(blackhole, hosts(1000))))
    bird.wait_routes(*hosts(1000))
    assert len(backend.active()) == 1000
    backend.withdraw(list(map(blackhole, hosts(1000))))
    bird.wait_routes()


def test_unsupported_measure_prevents_no_other(
    backend: ExabgpBackend, bird: Bird
) -> None:
    with pytest.raises(BackendError, match="dont-fragment"):
        backend.announce(
            wanted(
                rule(to=HOST6, fragmentation_flags=("dont-fragment",)), blackhole(HOST)
            )
        )
    bird.wait_routes(HOST)


def test_routes_return_after_session_flap(backend: ExabgpBackend, bird: Bird) -> None:
    backend.announce(wanted(blackhole(HOST), rule()))
    bird.wait_routes(HOST, f"flow4 {{ dst {HOST}; }}")
    bird.close()
    bird.start()
    bird.wait_up()
    bird.wait_routes(HOST, f"flow4 {{ dst {HOST}; }}")


def test_route_withdrawn_during_down_session_does_not_return(
    backend: ExabgpBackend, bird: Bird
) -> None:
    backend.announce(wanted(blackhole(HOST), rule(), blackhole(HOST6)))
    wait_until(lambda: bird.count() == 3, 10, "three routes")
    bird.birdc("disable exa")
    wait_until(lambda: not backend.neighbor or not backend.neighbor.up, 10, "down")
    # ExaBGP could send the announcement after its withdrawal.
    with pytest.raises(BackendError, match="is down") as caught:
        backend.announce(wanted(blackhole("10.9.9.9/32")))
    assert caught.value.retryable
    backend.withdraw([blackhole(HOST), rule()])
    assert [measure.key for measure in backend.active()] == [blackhole(HOST6).key]
    bird.birdc("enable exa")
    bird.wait_up()
    bird.wait_routes(HOST6)
    wait_until(lambda: bool(backend.neighbor and backend.neighbor.up), 10, "up")


def test_killed_process_restarts_and_lists_active_measures(
    backend: ExabgpBackend, exabgp: Exabgp, bird: Bird
) -> None:
    backend.announce(wanted(blackhole(HOST), rule()))
    bird.wait_routes(HOST, f"flow4 {{ dst {HOST}; }}")
    killed = exabgp.enforcer
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: exabgp.enforcer != killed, 20, "another process")
    with pytest.raises(ExabgpExited):
        backend.active()
    active = exabgp.connect().active()
    assert {measure.key for measure in active} == {blackhole(HOST).key, rule().key}
    assert bird.count() == 2


def test_killed_watchdog_restarts(exabgp: Exabgp) -> None:
    killed = exabgp.watchdog
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: exabgp.watchdog != killed, 20, "another watchdog")


def test_neighbor_withdraws_all_routes_after_kill_of_exabgp(
    backend: ExabgpBackend, exabgp: Exabgp, bird: Bird
) -> None:
    backend.announce(wanted(blackhole(HOST), rule()))
    bird.wait_routes(HOST, f"flow4 {{ dst {HOST}; }}")
    enforcer = exabgp.enforcer
    os.kill(exabgp.pid, signal.SIGKILL)
    bird.wait_routes(seconds=10)
    with pytest.raises(ExabgpExited):
        backend.active()
    assert backend.exited.is_set()
    exabgp.close()
    exabgp.start()
    assert exabgp.enforcer != enforcer
