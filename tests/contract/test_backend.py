"""What every backend promises, whatever its system is."""

from collections.abc import Callable, Mapping, Sequence

import pytest
from support.process import wait_until

from consumers.enforcers.backend import (
    ActiveMeasure,
    Backend,
    BackendError,
    DesiredMeasure,
)
from consumers.mitigation.measure import KINDS, Measure

LEFT = 300.0


def listed(backend: Backend) -> Mapping[str, ActiveMeasure]:
    return {measure.key: it for measure, it in backend.active().items()}


def settled(
    backend: Backend, measures: Sequence[Measure]
) -> Mapping[str, ActiveMeasure]:
    """Wait until exactly *measures* stand; a system may take a moment."""
    keys = {it.key for it in measures}
    wait_until(lambda: listed(backend).keys() == keys, 30, f"{len(keys)} measures")
    return listed(backend)


def wanted(measures: Sequence[Measure]) -> Sequence[DesiredMeasure]:
    return [DesiredMeasure(it, LEFT) for it in measures]


def test_it_has_a_name_and_known_kinds(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    assert backend.name
    assert backend.kinds <= set(KINDS)
    assert {it.kind for it in measures} <= backend.kinds


def test_nothing_stands_where_nothing_was_announced(backend: Backend) -> None:
    assert backend.active() == {}


def test_what_is_announced_is_listed_in_the_form_that_was_foretold(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    found = settled(backend, measures[:5])
    for it in measures[:5]:
        assert found[it.key].form == backend.form(it)


def test_what_ends_by_itself_ends_no_later_than_wanted(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    for it in settled(backend, measures[:5]).values():
        assert it.seconds_left is None or 0 < it.seconds_left <= LEFT


def test_announced_twice_is_one(backend: Backend, measures: Sequence[Measure]) -> None:
    backend.announce(wanted(measures[:3]))
    backend.announce(wanted(measures[:3]))
    backend.announce(wanted([measures[0], measures[0]]))
    settled(backend, measures[:3])


def test_an_announcement_leaves_alone_what_it_does_not_name(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:2]))
    backend.announce(wanted(measures[2:4]))
    settled(backend, measures[:4])


def test_what_is_withdrawn_is_gone_and_nothing_else(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    settled(backend, measures[:5])
    backend.withdraw(measures[1:3])
    settled(backend, [measures[0], *measures[3:5]])


def test_what_is_listed_is_enough_to_withdraw_it_by(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    settled(backend, measures[:5])
    backend.withdraw(list(backend.active()))
    settled(backend, [])


def test_what_was_withdrawn_can_be_announced_again(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:3]))
    backend.withdraw(measures[:3])
    backend.announce(wanted(measures[:2]))
    settled(backend, measures[:2])


def test_withdrawing_what_does_not_stand_is_no_error(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.withdraw(measures[:3])
    backend.announce(wanted(measures[:1]))
    backend.withdraw([*measures[1:3], measures[1]])
    settled(backend, measures[:1])


def test_asking_for_nothing_does_nothing(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:2]))
    backend.announce([])
    backend.withdraw([])
    settled(backend, measures[:2])


def test_a_thousand_go_in_and_out_in_one_call(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    assert len({it.key for it in measures}) == 1000
    backend.announce(wanted(measures))
    settled(backend, measures)
    backend.withdraw(measures)
    settled(backend, [])


def test_one_that_starts_sees_what_stands(
    open_backend: Callable[[], Backend], measures: Sequence[Measure], *, lives_on: bool
) -> None:
    first = open_backend()
    first.announce(wanted(measures[:5]))
    settled(first, measures[:5])
    first.close()
    settled(open_backend(), measures[:5] if lives_on else [])


def test_closing_twice_is_no_error(backend: Backend) -> None:
    backend.close()
    backend.close()


def test_what_it_can_never_do_is_refused_for_good(
    backend: Backend, impossible: Sequence[Measure]
) -> None:
    for it in impossible:
        with pytest.raises(BackendError) as caught:
            backend.form(it)
        assert not caught.value.retryable
        assert it.key in str(caught.value)


def test_what_it_can_never_do_keeps_nothing_else_out(
    backend: Backend, impossible: Sequence[Measure], measures: Sequence[Measure]
) -> None:
    for it in impossible:
        with pytest.raises(BackendError) as caught:
            backend.announce(wanted([measures[0], it, measures[1]]))
        assert it.key in str(caught.value)
        settled(backend, measures[:2])
        backend.withdraw([*measures[:2], it])
        settled(backend, [])
