"""Wall clocks of the mitigator's and the enforcer's machines that are days wrong.

Leases are counted from the broker's time, on a clock that cannot be set.
"""

import os
from pathlib import Path

import pytest
from support import wrong_clock
from support.bgp_lab import ENFORCER, LEASE, LONG, NEW, SHORT, BgpLab

pytestmark = pytest.mark.kafka
DAYS = [3, -3]


def wrong(offset: int) -> dict[str, str]:
    """Return the environment of a process whose clock is wrong."""
    paths = (str(Path(wrong_clock.__file__).parent), os.environ.get("PYTHONPATH", ""))
    return {
        "WRONG_CLOCK_SECONDS": str(offset * 86_400),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


@pytest.mark.parametrize("offset", DAYS)
def test_takeover_by_a_mitigator_with_a_wrong_clock(lab: BgpLab, offset: int) -> None:
    before = {
        key: mitigation.lease_ms for key, mitigation in lab.services.state().items()
    }
    lab.mitigator.kill()
    lab.mitigator = lab.start_mitigator(**wrong(offset))
    lab.wait_short_end(ENFORCER)
    lab.assert_announced()
    long = f"blackhole|{LONG}"
    after = lab.services.state()[long]
    assert after.state == "wanted"
    assert 90_000 < after.lease_ms <= before[long]
    short = f"blackhole|{SHORT}"
    lab.services.until(lambda: lab.services.state()[short].ended_because == "lease")
    # A new mitigation gets the lease of its rule, and expires with it.
    lab.ban(NEW)
    lab.wait_routes(LONG, NEW)
    new = lab.services.state()[f"blackhole|{NEW}"]
    assert new.lease_ms == 120_000
    lab.announce_short()
    lab.wait_short_end(ENFORCER)
    # The next mitigator has the right clock.
    lab.mitigator.kill()
    lab.mitigator = lab.start_mitigator()
    lab.assert_announced(NEW)
    state = lab.services.state()
    assert all(
        90_000 < state[f"blackhole|{prefix}"].lease_ms <= 120_000
        for prefix in (LONG, NEW)
    )
    lab.renew(LONG)
    lab.assert_announced(NEW)


@pytest.mark.parametrize("offset", DAYS)
def test_an_enforcer_with_a_wrong_clock(lab: BgpLab, offset: int) -> None:
    lab.exabgp.kill()
    lab.wait_routes(seconds=1)
    lab.exabgp = lab.start_exabgp(**wrong(offset))
    lab.bird.wait_up()
    lab.wait_routes(LONG)
    lab.announce_short()
    lab.assert_announced(SHORT)
    lab.wait_short_end(ENFORCER)
    assert lab.duration >= LEASE - 0.5
    lab.assert_announced()
    faults = [
        audit for audit in lab.services.audits("failed") if audit.code == "clock_skew"
    ]
    assert faults, "nobody is told that the clock is wrong"
    lab.exabgp.kill()
    lab.exabgp = lab.start_exabgp()
    lab.bird.wait_up()
    lab.wait_routes(LONG)
