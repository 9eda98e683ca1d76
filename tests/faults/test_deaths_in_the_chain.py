"""Deaths of FastNetMon, the relay, Kafka and the mitigator.

Each test is a cell of the table in docs/mitigation.md. The other half is in
test_deaths_of_enforcers.py.
"""

import os
import signal
from pathlib import Path

import pytest
from support.bgp_lab import ENFORCER, LONG, NEW, NEXT, SHORT, BgpLab, host, kill_or_stop
from support.relay_processes import ban

pytestmark = pytest.mark.kafka
RECONNECTED = 15.0
"""Seconds until a program behind a mended cable works: requests time out first."""


def test_f1_fastnetmon_reports_nothing_more(lab: BgpLab) -> None:
    lab.wait_short_end(ENFORCER)
    lab.assert_announced()
    lab.services.until(
        lambda: lab.services.state()[f"blackhole|{SHORT}"].ended_because == "lease"
    )


def test_f2_fastnetmon_continues_after_the_lease_ran_out(lab: BgpLab) -> None:
    lab.wait_short_end(ENFORCER)
    lab.assert_announced()
    lab.renew(SHORT)
    lab.wait_routes(LONG, SHORT)


@pytest.mark.parametrize("how", ["cut off", "stopped", "stopped and killed"])
def test_f3_r2_r3_the_relay_publishes_nothing(lab: BgpLab, how: str) -> None:
    relay = lab.relays.start(config=Path(lab.kafka.config(lab.relays, "relay")))
    lab.relays.call(ban(host(NEW)))
    lab.wait_routes(LONG, SHORT, NEW)
    if how == "cut off":
        lab.kafka.proxies["relay"].cut()
    else:
        os.kill(relay.pid, signal.SIGSTOP)
    lab.relays.call(ban(host(NEW), "unban"))
    lab.relays.call(ban(host(NEXT)))
    lab.relays.call(ban(host(LONG)))  # a second reason of the long one
    lab.relays.call(ban(host(LONG), "unban"))
    lab.wait_short_end(ENFORCER)
    lab.assert_announced(NEW)
    assert lab.relays.spool.scan(), "the documents are not on disk"
    if how == "cut off":
        lab.kafka.proxies["relay"].mend()
    elif how == "stopped":
        os.kill(relay.pid, signal.SIGCONT)
    else:
        relay.kill()
        relay.wait()
        relay = lab.relays.start()
    lab.wait_routes(LONG, NEXT, seconds=RECONNECTED)
    lab.relays.until(lab.relays.empty)
    lab.relays.call(ban(host(NEXT), "unban"))
    lab.wait_routes(LONG)
    relay.terminate()
    assert relay.wait(30) == 0


@pytest.mark.parametrize("how", ["killed", "stopped", "cut off"])
def test_k1_k2_k3_kafka(lab: BgpLab, how: str) -> None:
    repair = lab.kafka.fail(how)
    lab.wait_short_end(ENFORCER)
    lab.assert_announced()
    repair()
    lab.services.until(lambda: lab.services.wanted() != [], 60, "Kafka")
    lab.ban(NEW)
    lab.wait_routes(LONG, NEW, seconds=RECONNECTED)


def test_k3_an_enforcer_that_starts_without_kafka_continues_from_its_snapshot(
    lab: BgpLab,
) -> None:
    repair = lab.kafka.fail("cut off")
    os.kill(lab.process_id("--api"), signal.SIGKILL)
    lab.wait_short_end(ENFORCER)
    lab.assert_announced()
    repair()
    lab.ban(NEW)
    lab.wait_routes(LONG, NEW, seconds=RECONNECTED)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_m1_m2_the_only_mitigator(lab: BgpLab, how: str) -> None:
    kill_or_stop(lab.mitigator.pid, how)
    lab.wait_short_end(ENFORCER)
    lab.assert_announced()
    if how == "stopped":
        os.kill(lab.mitigator.pid, signal.SIGCONT)
    else:
        lab.mitigator.kill()
        lab.mitigator = lab.start_mitigator()
    lab.ban(NEW)
    lab.wait_routes(LONG, NEW, seconds=RECONNECTED)


@pytest.mark.parametrize("how", ["stopped", "cut off"])
def test_m2_m3_a_mitigator_that_was_overtaken_stands_by(lab: BgpLab, how: str) -> None:
    first, proxy = lab.mitigator, lab.kafka.proxies["mitigator"]
    if how == "cut off":
        proxy.cut()
    else:
        os.kill(first.pid, signal.SIGSTOP)
    second = lab.services.start("mitigator")  # elected after the first one's session
    lab.ban(NEW)
    lab.wait_short_end(ENFORCER)
    lab.wait_routes(LONG, NEW)
    if how == "cut off":
        proxy.mend()
    else:
        os.kill(first.pid, signal.SIGCONT)
    lab.services.until(lambda: lab.services.members() == 2, 60, "two mitigators")
    lab.ban(NEXT)
    lab.wait_routes(LONG, NEW, NEXT)
    decided = [
        audit for audit in lab.services.audits("wanted") if NEXT in (audit.key or "")
    ]
    assert len(decided) == len({audit.event_id for audit in decided})
    assert first.alive
    # The next test needs the mitigator that is behind the proxy.
    second.kill()
