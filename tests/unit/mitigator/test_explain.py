"""Replays: one event, or many leases at one instant, never stop the others."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from support.fuzz_records import Fuzz
from support.mitigator_harness import policy, rule

from consumers.mitigator import explain as explain_module
from consumers.mitigator.context import DecisionContext
from consumers.mitigator.explain import explanation_lines, replay_events
from fnm_bus.avro.codec import Codec
from fnm_bus.event import AttackDetails, Event, HostEvent, Receipt

START = datetime(2026, 5, 1, tzinfo=UTC)
CONTEXT = DecisionContext(policy(rule("all")), dry_run=False)


def ban(
    number: int, after: timedelta = timedelta(0), sensor: str = "fra1"
) -> HostEvent:
    receipt = Receipt(
        event_id=f"{sensor}-{number}",
        received_at=START + after,
        sequence=number,
        sensor=sensor,
    )
    ip = f"203.0.113.{number}"
    details = AttackDetails(attack_uuid=ip, total_incoming_pps=1_000_000)
    return HostEvent(receipt=receipt, action="ban", ip=ip, attack_details=details)


def events(seed: int) -> Sequence[Event]:
    """Return events of all kinds; some are valid by their types only."""
    fuzz, codec = Fuzz(seed, ["203.0.113.7", "203.0.113.8", "203.0.113.9"]), Codec()
    records = [codec.decode(fuzz.draw().value) for _ in range(200)]
    return [event for event in records if isinstance(event, Event)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", range(2))
def test_every_event_of_a_replay_is_explained(seed: int) -> None:
    sample = events(seed)
    explanations = list(replay_events(sample, CONTEXT))
    assert len(explanations) == len(sample)
    assert all(list(explanation_lines(explanation)) for explanation in explanations)


def test_leases_that_end_at_one_instant_all_end() -> None:
    events = [ban(1, sensor=sensor) for sensor in ("fra1", "fra2", "ams1")]
    explanations = list(replay_events([*events, ban(2, timedelta(days=1))], CONTEXT))
    assert explanations[-1].event.receipt.event_id == "fra1-2"
    assert [explanation.started for explanation in explanations] == [1, 0, 0, 1]


def test_an_event_that_no_decision_expects_has_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = explain_module.apply_event

    def fail(transition: object, event: HostEvent) -> None:
        if event.ip == "203.0.113.1":
            raise KeyError("planted")
        original(transition, event)  # type: ignore[arg-type]

    monkeypatch.setattr(explain_module, "apply_event", fail)
    first, second = replay_events([ban(1), ban(2)], CONTEXT)
    assert "unexpected KeyError" in first.error
    assert second.started
