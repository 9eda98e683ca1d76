"""An enforcer for each test, and a clock that the test advances."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.enforcer_harness import EnforcerHarness

from consumers.mitigation import clock


@pytest.fixture
def harness(tmp_path: Path) -> EnforcerHarness:
    return EnforcerHarness(tmp_path / "snapshot.json")


@pytest.fixture
def advance(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that advances the clock of the leases."""
    start, passed = clock.now(), [0.0]
    monkeypatch.setattr(clock, "now", lambda: start + passed[0])

    def add(seconds: float) -> None:
        passed[0] += seconds

    return add
