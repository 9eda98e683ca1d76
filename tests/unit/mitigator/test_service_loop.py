"""The mitigator's loop, without Kafka."""

from collections.abc import Iterator
from typing import Any

import pytest

from consumers.metrics import MitigatorMetrics
from consumers.mitigator import service
from consumers.mitigator.service import Mitigator
from fnm_bus.kafka.route import Topics
from tests.support.mitigator_harness import MitigatorHarness

LOOPS = 50


class Journal:
    """Nothing arrives, and everything is committed."""

    pending = False

    def __init__(self) -> None:
        self.released = 0
        self.commits = 0

    def read(self, *_about: Any) -> list[Any]:
        return []

    def commit(self, records: Any) -> None:
        self.commits += 1
        list(records)

    def release(self) -> None:
        self.released += 1


class Election:
    def __init__(self) -> None:
        self.left = LOOPS

    def poll(self, _timeout: float) -> bool:
        self.left -= 1
        return self.left >= 0


def test_leases_that_never_stop_ending_hold_nothing_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = MitigatorHarness()
    clock = iter(range(10_000))
    monkeypatch.setattr(service, "monotonic", lambda: next(clock) / 10)

    def always_due(*_about: Any) -> Iterator[Any]:
        yield harness.begin()

    monkeypatch.setattr(service, "expire", always_due)
    started: list[bool] = []

    def starting(*_about: Any) -> Iterator[Any]:
        started.append(True)
        yield from ()

    monkeypatch.setattr(service, "start_waiting", starting)
    mitigator: Any = Mitigator(
        {},
        "m",
        Topics(),
        None,
        harness.context,
        MitigatorMetrics(),  # type: ignore[arg-type]
    )
    journal = Journal()
    mitigator._decide(journal, harness.state, Election())
    assert len(started) > 5
    assert journal.released == len(started)
    assert len(started) < LOOPS / 2
