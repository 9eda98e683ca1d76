"""The union of several effects, and the effects that an approval covers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.mitigation.effects import covers, describe, strength, unite
from fnm_bus.event import Effect, FlowThen

DISCARD = FlowThen(action="discard")
SLOW = FlowThen(action="rate-limit", rate=1_000)
FAST = FlowThen(action="rate-limit", rate=9_000)
REDIRECT = FlowThen(action="redirect", redirect_as=64500, redirect_value=1)
OTHER = FlowThen(action="redirect", redirect_as=64500, redirect_value=2)
FROM_STRONG = (DISCARD, SLOW, FAST, REDIRECT)

THENS = st.sampled_from([*FROM_STRONG, OTHER])
EFFECTS = st.builds(
    Effect,
    then=THENS,
    communities=st.lists(st.sampled_from(["1:1", "1:2", "1:3"]), unique=True).map(
        lambda names: tuple(sorted(names))
    ),
)


def test_discard_is_stronger_than_rates_and_redirects() -> None:
    ordered = sorted(FROM_STRONG, key=strength, reverse=True)
    assert ordered == list(FROM_STRONG)


def test_unknown_action_is_the_weakest() -> None:
    assert strength(FlowThen(action="mirror")) < strength(REDIRECT)


def test_blackhole_has_a_strength() -> None:
    assert strength(None) > strength(DISCARD)


def test_union_takes_the_strongest_and_all_communities() -> None:
    united = unite(
        [
            Effect(then=FAST, communities=("1:2",)),
            Effect(then=SLOW, communities=("1:1",)),
            Effect(then=REDIRECT, communities=("1:3", "1:1")),
        ]
    )
    assert united == Effect(then=SLOW, communities=("1:1", "1:2", "1:3"))


def test_union_has_at_most_32_communities() -> None:
    names = [f"64500:{number:05}" for number in range(100)]
    united = unite(Effect(communities=(name,)) for name in names)
    assert united.communities == tuple(names[:32])


@given(st.lists(EFFECTS, min_size=1, max_size=5), st.randoms())
def test_union_does_not_depend_on_the_order(
    effects: list[Effect],
    random: "st.Random",  # type: ignore[name-defined]
) -> None:
    shuffled = [*effects]
    random.shuffle(shuffled)
    assert unite(shuffled) == unite(effects)


@pytest.mark.parametrize(
    ("approved", "wanted"),
    [
        (DISCARD, DISCARD),
        (DISCARD, SLOW),
        (SLOW, FAST),
        (REDIRECT, REDIRECT),
        (None, None),
    ],
)
def test_approval_covers_the_same_and_weaker(
    approved: FlowThen | None, wanted: FlowThen | None
) -> None:
    assert covers(Effect(then=approved), Effect(then=wanted))


@pytest.mark.parametrize(
    ("approved", "wanted"),
    [
        (SLOW, DISCARD),
        (FAST, SLOW),
        (REDIRECT, OTHER),
        (REDIRECT, DISCARD),
        (REDIRECT, FAST),
        (DISCARD, REDIRECT),
        (None, DISCARD),
        (DISCARD, None),
    ],
)
def test_approval_covers_no_stronger_action_or_other_redirect(
    approved: FlowThen | None, wanted: FlowThen | None
) -> None:
    assert not covers(Effect(then=approved), Effect(then=wanted))


def test_approval_covers_no_other_communities() -> None:
    approved = Effect(then=DISCARD, communities=("1:1", "1:2"))
    assert covers(approved, Effect(then=DISCARD, communities=("1:2",)))
    assert not covers(approved, Effect(then=SLOW, communities=("1:3",)))


@given(EFFECTS, EFFECTS)
def test_approval_of_a_union_covers_its_strongest_part(
    first: Effect, second: Effect
) -> None:
    united = unite([first, second])
    assert covers(united, Effect(then=united.then, communities=first.communities))


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (None, "block"),
        (DISCARD, "discard"),
        (SLOW, "rate-limit 1000 bytes/s"),
        (REDIRECT, "redirect 64500:1"),
    ],
)
def test_action_is_described(then: FlowThen | None, text: str) -> None:
    assert describe(then) == text
