"""Deaths of the enforcer, its watchdog, ExaBGP and the neighbor.

Each test is a cell of the table in docs/mitigation.md. The other half is in
test_deaths.py, the firewall in test_deaths_of_nftables.py.
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
    die,
    runs,
)
from support.process import wait_until

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_e1_e2_enforcer(lab: BgpLab, how: str) -> None:
    enforcer = lab.child("--api")
    die(enforcer, how)
    if how == "killed":
        lab.ended(ENFORCER)  # ExaBGP starts it again, and its snapshot tells it
    else:
        lab.ended(WATCHDOG)
        lab.ban(NEW)
        lab.stands()
        os.kill(enforcer, signal.SIGCONT)
    lab.stands()
    lab.ban(NEW)
    lab.same(LONG, NEW)


def test_e3_an_enforcer_that_is_cut_off_misses_renewals(lab: BgpLab) -> None:
    lab.kafka.proxies["enforcer"].cut()
    lab.renew(SHORT)

    def withdrawn() -> bool:
        lab.renew(SHORT)  # FastNetMon continues, so it stays wanted
        return SHORT not in lab.bird.routes()

    lab.services.until(withdrawn, LEASE + ENFORCER + 3, "its end")
    assert monotonic() - lab.banned > LEASE - 0.5, "withdrawn before its lease was over"
    lab.stands()
    assert f"blackhole|{SHORT}" in lab.services.wanted()
    lab.kafka.proxies["enforcer"].mend()

    def announced() -> bool:
        lab.renew(SHORT)
        return lab.bird.routes().keys() == {LONG, SHORT}

    lab.services.until(announced, 20, "announced again")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_w1_w2_watchdog(lab: BgpLab, how: str) -> None:
    watchdog = lab.child("--watchdog")
    die(watchdog, how)
    lab.ended(ENFORCER)
    lab.stands()
    if how == "stopped":
        os.kill(watchdog, signal.SIGCONT)
    lab.ban(NEW)
    lab.same(LONG, NEW)


def test_x1_exabgp_killed(lab: BgpLab) -> None:
    children = [lab.child(word) for word in ("--api", "--watchdog")]
    lab.exabgp.kill()
    lab.same(seconds=1)  # the session is gone, and all routes with it
    lab.services.until(lambda: not any(runs(it) for it in children), what="orphans")
    lab.exabgp = lab.start_exabgp()
    lab.bird.wait_up()
    lab.same(LONG)


def test_x2_exabgp_stopped(lab: BgpLab) -> None:
    os.kill(lab.exabgp.pid, signal.SIGSTOP)
    lab.ended(HOLD)
    lab.same(seconds=HOLD)
    os.kill(lab.exabgp.pid, signal.SIGCONT)
    lab.bird.wait_up()
    lab.same(LONG)


def test_x3_exabgp_cut_off_from_everything(lab: BgpLab) -> None:
    lab.bgp.cut()
    lab.kafka.proxies["enforcer"].cut()
    lab.same(seconds=HOLD + LEASE)
    lab.ban(NEW)
    lab.bgp.mend()
    lab.kafka.proxies["enforcer"].mend()
    lab.bird.wait_up()
    lab.same(LONG, NEW, seconds=20)
    assert SHORT not in lab.bird.routes()


def test_n1_neighbor_killed(lab: BgpLab) -> None:
    lab.bird.close()
    lab.bird.start()
    lab.bird.wait_up()
    lab.same(LONG, seconds=RECOVERY + LEASE)


def test_n3_neighbor_cut_off_shortly(lab: BgpLab) -> None:
    lab.bgp.cut()
    until = monotonic() + HOLD / 3
    wait_until(lambda: monotonic() > until, 30, "a short outage")
    lab.stands()
    lab.bgp.mend()
    lab.ended(ENFORCER + HOLD / 3)
    lab.stands()


def test_n3_neighbor_cut_off(lab: BgpLab) -> None:
    lab.bgp.cut()
    lab.same(seconds=HOLD + LEASE)
    lab.bgp.mend()
    lab.bird.wait_up()
    lab.same(LONG)
