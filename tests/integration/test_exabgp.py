"""A real ExaBGP and a real BIRD: what is in BIRD's tables counts."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from support.bird import Bird, Route
from support.exabgp import Exabgp
from support.fetch import Unavailable
from support.process import wait_until

from consumers.enforcers.backend import BackendError, DesiredMeasure
from consumers.enforcers.exabgp.backend import ExabgpBackend
from consumers.enforcers.exabgp.session import ExabgpExited
from consumers.mitigation.measure import BLACKHOLE, FLOWSPEC, Measure
from fnm_bus.event import FlowMatch, FlowThen

CI = os.environ.get("CI", "").lower() in {"1", "true"}
HOST, HOST6 = "198.51.100.1/32", "2001:db8::1/128"
OURS = ("65535:65281", "65535:666")
DISCARD = FlowThen(action="discard")
LIMIT = FlowThen(action="rate-limit", rate=125_000)
REDIRECT = FlowThen(action="redirect", redirect_as=65500, redirect_value=12345)
NOTHING = "(generic, 0x80060000, 0x0)"
"""Traffic-rate 0, as BIRD shows it."""


@pytest.fixture(scope="module")
def bird() -> Iterator[Bird]:
    """A BIRD, started once."""
    # Not pytest's own directory: a socket's path has to be short.
    with TemporaryDirectory(prefix="fnm-") as root:
        it = Bird(Path(root))
        try:
            it.open()
        except Unavailable as exc:
            (pytest.fail if CI else pytest.skip)(str(exc))
        else:
            yield it
        finally:
            it.close()


@pytest.fixture(scope="module")
def started(bird: Bird) -> Iterator[Exabgp]:
    """An ExaBGP whose watchdog waits long, for tests of the backend."""
    with TemporaryDirectory(prefix="fnm-") as root:
        it = Exabgp(Path(root), bird, grace=3600.0)
        it.start()
        yield it
        it.close()


@pytest.fixture
def exabgp(started: Exabgp, bird: Bird) -> Iterator[Exabgp]:
    """The ExaBGP, with a session, and nothing announced before and after."""
    assert started.alive, started.said()
    bird.wait_up()
    yield started
    started.disconnect()
    assert started.alive, started.said()
    bird.wait_up()
    backend = started.connect()
    backend.withdraw(list(backend.active()))
    started.disconnect()
    bird.wait_routes()


@pytest.fixture
def backend(exabgp: Exabgp) -> ExabgpBackend:
    """The enforcer's side."""
    return exabgp.connect()


def wanted(*measures: Measure) -> list[DesiredMeasure]:
    return [DesiredMeasure(it, 300.0) for it in measures]


def blackhole(prefix: str, *communities: str) -> Measure:
    return Measure(kind=BLACKHOLE, prefix=prefix, communities=communities)


def hosts(count: int) -> list[str]:
    return [f"10.0.{it // 250}.{it % 250}/32" for it in range(count)]


def hosts6(count: int) -> list[str]:
    """Prefixes that keep ExaBGP busy: it sends each in an UPDATE of its own."""
    return [f"2001:db8:1::{it:x}/128" for it in range(1, count + 1)]


def rule(
    then: FlowThen = DISCARD, *communities: str, to: str | None = HOST, **match: Any
) -> Measure:
    flow = FlowMatch(destination_prefix=to, **match)
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
    found = bird.wait_routes(HOST, HOST6, "203.0.113.0/24", "2001:db8:7::/48")
    communities = ("64500:1", "64500:1:2", *OURS)
    assert found[HOST] == Route(HOST, "192.0.2.1", communities, "")
    assert found[HOST6] == Route(HOST6, "100::1", OURS, "")
    assert found["203.0.113.0/24"].next_hop == "192.0.2.1"
    assert found["2001:db8:7::/48"].next_hop == "100::1"


RULES = [
    (rule(), f"flow4 {{ dst {HOST}; }}", NOTHING),
    (
        rule(to=None, source_prefix="203.0.113.0/24", protocols=("udp", "tcp", "253")),
        "flow4 { src 203.0.113.0/24; proto 253,6,17; }",
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


def test_rules_match_and_do_what_was_wanted(backend: ExabgpBackend, bird: Bird) -> None:
    backend.announce(wanted(*(measure for measure, _, _ in RULES)))
    found = bird.wait_routes(*(net for _, net, _ in RULES))
    for _, net, extended in RULES:
        assert found[net].extended == extended
        assert found[net].communities == ()


def test_what_stands_is_listed_by_its_key_and_its_form(backend: ExabgpBackend) -> None:
    measures = [
        *(measure for measure, _, _ in RULES),
        rule(LIMIT, "64500:7", "64500:1:2", destination_ports=(7,)),
        blackhole(HOST, "64500:1", "65535:666", "4200000000:1:2"),
        blackhole("2001:db8::/32"),
    ]
    backend.announce(wanted(*measures))
    found = {it.key: standing.form for it, standing in backend.active().items()}
    assert found == {it.key: backend.form(it) for it in measures}
    backend.withdraw(list(backend.active()))
    assert backend.active() == {}


def test_a_rule_has_its_own_communities(backend: ExabgpBackend, bird: Bird) -> None:
    backend.announce(wanted(rule(DISCARD, "64500:7", "64500:1:2")))
    (route,) = bird.wait_routes(f"flow4 {{ dst {HOST}; }}").values()
    assert route.communities == ("64500:1:2", "64500:7")


def test_another_action_replaces_the_one_that_stands(
    backend: ExabgpBackend, bird: Bird
) -> None:
    # While ExaBGP sends these it would mix up what else it is asked for.
    backend.announce(wanted(*map(blackhole, hosts6(2000))))
    for then in (DISCARD, LIMIT, DISCARD, LIMIT):
        backend.announce(wanted(rule(then)))
    net = f"flow4 {{ dst {HOST}; }}"
    found = bird.wait_routes(net, *hosts6(2000))
    assert found[net].extended == "(generic, 0x80060000, 0x47f42400)"
    (form,) = (
        standing.form
        for measure, standing in backend.active().items()
        if measure.kind == FLOWSPEC
    )
    assert form == backend.form(rule(LIMIT))


def test_other_communities_replace_those_that_stand(
    backend: ExabgpBackend, bird: Bird
) -> None:
    backend.announce(wanted(blackhole(HOST, "64500:1")))
    bird.wait_routes(HOST)
    backend.announce(wanted(blackhole(HOST)))
    wait_until(lambda: bird.routes()[HOST].communities == OURS, 10, "communities")


def test_what_is_withdrawn_is_gone(backend: ExabgpBackend, bird: Bird) -> None:
    rules = (rule(), rule(to=HOST6, protocols=("udp",)))
    backend.announce(wanted(blackhole(HOST), blackhole(HOST6), *rules))
    wait_until(lambda: bird.count() == 4, 10, "four routes")
    backend.withdraw([blackhole(HOST), rules[1]])
    bird.wait_routes(HOST6, f"flow4 {{ dst {HOST}; }}")


def test_in_and_out_at_once_ends_as_asked_last(
    backend: ExabgpBackend, bird: Bird
) -> None:
    first, second, *others = hosts6(2000)
    backend.announce(wanted(*map(blackhole, hosts6(2000))))
    backend.withdraw([blackhole(first), blackhole(second)])
    backend.announce(wanted(blackhole(first), rule()))
    backend.withdraw([rule(), *map(blackhole, others)])
    bird.wait_routes(first)


def test_a_thousand_in_one_call(backend: ExabgpBackend, bird: Bird) -> None:
    backend.announce(wanted(*map(blackhole, hosts(1000))))
    bird.wait_routes(*hosts(1000))
    assert len(backend.active()) == 1000
    backend.withdraw(list(map(blackhole, hosts(1000))))
    bird.wait_routes()


def test_what_cannot_be_said_keeps_nothing_else_out(
    backend: ExabgpBackend, bird: Bird
) -> None:
    with pytest.raises(BackendError, match="dont-fragment"):
        backend.announce(
            wanted(
                rule(to=HOST6, fragmentation_flags=("dont-fragment",)),
                blackhole(HOST),
            )
        )
    bird.wait_routes(HOST)


def test_a_flap_brings_routes_back(backend: ExabgpBackend, bird: Bird) -> None:
    backend.announce(wanted(blackhole(HOST), rule()))
    bird.wait_routes(HOST, f"flow4 {{ dst {HOST}; }}")
    bird.close()
    bird.start()
    bird.wait_up()
    bird.wait_routes(HOST, f"flow4 {{ dst {HOST}; }}")


def test_what_ended_while_the_session_was_down_does_not_come_back(
    backend: ExabgpBackend, bird: Bird
) -> None:
    backend.announce(wanted(blackhole(HOST), rule(), blackhole(HOST6)))
    wait_until(lambda: bird.count() == 3, 10, "three routes")
    bird.birdc("disable exa")
    wait_until(lambda: not backend.neighbor or not backend.neighbor.up, 10, "down")
    # Nothing is announced now: ExaBGP might send it when it is withdrawn already.
    with pytest.raises(BackendError, match="is down") as caught:
        backend.announce(wanted(blackhole("10.9.9.9/32")))
    assert caught.value.retryable
    backend.withdraw([blackhole(HOST), rule()])
    assert [it.key for it in backend.active()] == [blackhole(HOST6).key]
    bird.birdc("enable exa")
    bird.wait_up()
    bird.wait_routes(HOST6)
    wait_until(lambda: bool(backend.neighbor and backend.neighbor.up), 10, "up")


def test_a_killed_process_comes_back_and_sees_what_stands(
    backend: ExabgpBackend, exabgp: Exabgp, bird: Bird
) -> None:
    backend.announce(wanted(blackhole(HOST), rule()))
    bird.wait_routes(HOST, f"flow4 {{ dst {HOST}; }}")
    before = exabgp.enforcer
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: exabgp.enforcer != before, 20, "another process")
    with pytest.raises(ExabgpExited):
        backend.active()
    found = exabgp.connect().active()
    assert {it.key for it in found} == {blackhole(HOST).key, rule().key}
    assert bird.count() == 2


def test_the_watchdog_comes_back_as_well(exabgp: Exabgp) -> None:
    before = exabgp.watchdog
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: exabgp.watchdog != before, 20, "another watchdog")


def test_when_exabgp_is_killed_the_neighbor_has_nothing(
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
