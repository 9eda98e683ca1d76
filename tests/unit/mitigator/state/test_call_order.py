"""Which of two events FastNetMon meant to be later."""

import pytest
from support.mitigator_harness import KEY, MitigatorHarness

from consumers.mitigator.state.call_order import LastEvent, is_overtaken, is_swapped
from fnm_bus.spool.sequence import PID_BITS

SECOND = 100 << PID_BITS
BAN = LastEvent(90 * SECOND, "a2")


def unban(seconds: int, attack: str = "a1") -> LastEvent:
    return LastEvent(seconds * SECOND, attack, closes=True)


def status(seconds: int, attack: str = "a1") -> LastEvent:
    return LastEvent(seconds * SECOND, attack, is_status=True)


def test_unban_of_another_attack_just_after_a_ban_is_earlier() -> None:
    assert is_swapped(BAN, unban(91))
    assert is_swapped(BAN, unban(90))


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        (BAN, unban(96)),  # too far apart
        (BAN, unban(89)),  # in order by itself
        (BAN, unban(91, "a2")),  # of the same attack
        (BAN, unban(91, "")),  # of an attack without a name
        (LastEvent(90 * SECOND), unban(91)),
        (unban(90), unban(91)),
        (BAN, LastEvent(91 * SECOND, "a1")),  # two bans
    ],
)
def test_sequences_decide_otherwise(opening: LastEvent, closing: LastEvent) -> None:
    assert not is_swapped(opening, closing)


def test_status_of_the_same_attack_overtakes_its_unban() -> None:
    assert is_overtaken(unban(90), status(91))
    assert is_overtaken(unban(90), status(90))


@pytest.mark.parametrize(
    ("closing", "last"),
    [
        (unban(90), status(96)),
        (unban(92), status(91)),
        (unban(90), status(91, "a2")),
        (unban(90, ""), status(91, "")),
        (unban(90), LastEvent(91 * SECOND, "a1")),  # a ban
        (status(90), status(91)),
    ],
)
def test_only_a_status_update_is_overtaken(closing: LastEvent, last: LastEvent) -> None:
    assert not is_overtaken(closing, last)


@pytest.mark.parametrize("unban_first", [True, False])
@pytest.mark.parametrize(
    ("attack", "apart"), [("a1", 1), ("a2", 6), (None, 1)], ids=str
)
def test_unban_ends_the_ban_before_by_sequence(
    attack: str | None, apart: int, *, unban_first: bool
) -> None:
    harness = MitigatorHarness()
    ban = harness.event("ban", sequence=90 * SECOND)
    sequence = (90 + apart) * SECOND
    closing = harness.event("unban", sequence=sequence, attack_uuid=attack)
    for event in (closing, ban) if unban_first else (ban, closing):
        harness.apply(event)
    assert harness.wanted() == []
    assert KEY not in harness.mitigations or harness.mitigation().state == "ended"
