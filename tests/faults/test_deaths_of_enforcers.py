"""Deaths of the enforcer, its watchdog, ExaBGP and the neighbor.

Each test is a cell of the table in docs/mitigation.md. The other half is in
test_deaths_in_the_chain.py, the firewall in test_deaths_of_nftables.py.
"""

import os
import signal
from time import monotonic

import pytest
from support.bgp_lab import (
    ENFORCER,
    HOLD,
    LEASE,
    LONG,
    NEW,
    RECOVERY,
    SHORT,
    WATCHDOG,
    BgpLab,
    is_running,
    kill_or_stop,
)
from support.process import wait_until

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_e1_e2_enforcer(lab: BgpLab, how: str) -> None:
    enforcer = lab.process_id("--api")
    kill_or_stop(enforcer, how)
    if how == "killed":
        # ExaBGP restarts the enforcer, which reads its snapshot.
        lab.wait_short_end(ENFORCER)
    else:
        lab.wait_short_end(WATCHDOG)
        lab.ban(NEW)
        lab.assert_announced()
        os.kill(enforcer, signal.SIGCONT)
    lab.assert_announced()
    lab.ban(NEW)
    lab.wait_routes(LONG, NEW)


def test_e3_an_enforcer_that_is_cut_off_misses_renewals(lab: BgpLab) -> None:
    lab.kafka.proxies["enforcer"].cut()
    lab.renew(SHORT)

    def withdrawn() -> bool:
        lab.renew(SHORT)  # FastNetMon continues, so it stays wanted
        return SHORT not in lab.bird.routes()

    lab.services.until(withdrawn, LEASE + ENFORCER + 3, "its end")
    assert monotonic() - lab.banned_at > LEASE - 0.5, "withdrawn before its end"
    lab.assert_announced()
    assert f"blackhole|{SHORT}" in lab.services.wanted()
    lab.kafka.proxies["enforcer"].mend()

    def announced() -> bool:
        lab.renew(SHORT)
        return lab.bird.routes().keys() == {LONG, SHORT}

    lab.services.until(announced, 20, "announced again")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_w1_w2_watchdog(lab: BgpLab, how: str) -> None:
    watchdog = lab.process_id("--watchdog")
    kill_or_stop(watchdog, how)
    lab.wait_short_end(ENFORCER)
    lab.assert_announced()
    if how == "stopped":
        os.kill(watchdog, signal.SIGCONT)
    lab.ban(NEW)
    lab.wait_routes(LONG, NEW)


def test_x1_exabgp_killed(lab: BgpLab) -> None:
    children = [lab.process_id(word) for word in ("--api", "--watchdog")]
    lab.exabgp.kill()
    lab.wait_routes(seconds=1)  # BIRD withdraws all routes with the session
    lab.services.until(lambda: not any(map(is_running, children)), what="orphans")
    lab.exabgp = lab.start_exabgp()
    lab.bird.wait_up()
    lab.wait_routes(LONG)


def test_x2_exabgp_stopped(lab: BgpLab) -> None:
    os.kill(lab.exabgp.pid, signal.SIGSTOP)
    lab.wait_short_end(HOLD)
    lab.wait_routes(seconds=HOLD)
    os.kill(lab.exabgp.pid, signal.SIGCONT)
    lab.bird.wait_up()
    lab.wait_routes(LONG)


def test_x3_exabgp_cut_off_from_everything(lab: BgpLab) -> None:
    lab.bgp.cut()
    lab.kafka.proxies["enforcer"].cut()
    lab.wait_routes(seconds=HOLD + LEASE)
    lab.ban(NEW)
    lab.bgp.mend()
    lab.kafka.proxies["enforcer"].mend()
    lab.bird.wait_up()
    lab.wait_routes(LONG, NEW, seconds=20)
    assert SHORT not in lab.bird.routes()


def test_n1_neighbor_killed(lab: BgpLab) -> None:
    lab.bird.close()
    lab.bird.start()
    lab.bird.wait_up()
    lab.wait_routes(LONG, seconds=RECOVERY + LEASE)


def test_n3_neighbor_cut_off_shortly(lab: BgpLab) -> None:
    lab.bgp.cut()
    until = monotonic() + HOLD / 3
    wait_until(lambda: monotonic() > until, 30, "a short outage")
    lab.assert_announced()
    lab.bgp.mend()
    lab.wait_short_end(ENFORCER + HOLD / 3)
    lab.assert_announced()


def test_n3_neighbor_cut_off(lab: BgpLab) -> None:
    lab.bgp.cut()
    lab.wait_routes(seconds=HOLD + LEASE)
    lab.bgp.mend()
    lab.bird.wait_up()
    lab.wait_routes(LONG)
