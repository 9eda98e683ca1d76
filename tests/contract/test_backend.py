"""The contract of every backend."""

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
    return {measure.key: active for measure, active in backend.active().items()}


def settled(
    backend: Backend, measures: Sequence[Measure]
) -> Mapping[str, ActiveMeasure]:
    """Wait until exactly *measures* are active."""
    keys = {measure.key for measure in measures}
    wait_until(lambda: listed(backend).keys() == keys, 30, f"{len(keys)} measures")
    return listed(backend)


def wanted(measures: Sequence[Measure]) -> Sequence[DesiredMeasure]:
    return [DesiredMeasure(measure, LEFT) for measure in measures]


def test_a_backend_has_a_name_and_kinds(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    assert backend.name
    assert backend.kinds <= set(KINDS)
    assert {measure.kind for measure in measures} <= backend.kinds


def test_without_an_announcement_no_measure_is_active(backend: Backend) -> None:
    assert backend.active() == {}


def test_an_announced_measure_is_listed_in_its_form(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    active = settled(backend, measures[:5])
    for measure in measures[:5]:
        assert active[measure.key].form == backend.form(measure)


def test_a_measure_expires_no_later_than_its_lease(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    for active in settled(backend, measures[:5]).values():
        assert active.seconds_left is None or 0 < active.seconds_left <= LEFT


def test_a_measure_announced_twice_is_active_once(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:3]))
    backend.announce(wanted(measures[:3]))
    backend.announce(wanted([measures[0], measures[0]]))
    settled(backend, measures[:3])


def test_an_announcement_keeps_the_other_measures(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:2]))
    backend.announce(wanted(measures[2:4]))
    settled(backend, measures[:4])


def test_a_withdrawal_keeps_the_other_measures(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    settled(backend, measures[:5])
    backend.withdraw(measures[1:3])
    settled(backend, [measures[0], *measures[3:5]])


def test_a_listed_measure_can_be_withdrawn(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    settled(backend, measures[:5])
    backend.withdraw(list(backend.active()))
    settled(backend, [])


def test_a_withdrawn_measure_can_be_announced_again(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:3]))
    backend.withdraw(measures[:3])
    backend.announce(wanted(measures[:2]))
    settled(backend, measures[:2])


def test_withdrawing_an_inactive_measure_is_not_an_error(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.withdraw(measures[:3])
    backend.announce(wanted(measures[:1]))
    backend.withdraw([*measures[1:3], measures[1]])
    settled(backend, measures[:1])


def test_empty_calls_change_nothing(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:2]))
    backend.announce([])
    backend.withdraw([])
    settled(backend, measures[:2])


def test_a_thousand_measures_fit_in_one_call(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    assert len({measure.key for measure in measures}) == 1000
    backend.announce(wanted(measures))
    settled(backend, measures)
    backend.withdraw(measures)
    settled(backend, [])


def test_a_new_backend_lists_the_active_measures(
    open_backend: Callable[[], Backend], measures: Sequence[Measure], *, lives_on: bool
) -> None:
    first = open_backend()
    first.announce(wanted(measures[:5]))
    settled(first, measures[:5])
    first.close()
    settled(open_backend(), measures[:5] if lives_on else [])


def test_closing_twice_is_not_an_error(backend: Backend) -> None:
    backend.close()
    backend.close()


def test_an_unsupported_measure_is_refused_for_good(
    backend: Backend, impossible: Sequence[Measure]
) -> None:
    for measure in impossible:
        with pytest.raises(BackendError) as caught:
            backend.form(measure)
        assert not caught.value.retryable
        assert measure.key in str(caught.value)


def test_an_unsupported_measure_does_not_prevent_others(
    backend: Backend, impossible: Sequence[Measure], measures: Sequence[Measure]
) -> None:
    for measure in impossible:
        with pytest.raises(BackendError) as caught:
            backend.announce(wanted([measures[0], measure, measures[1]]))
        assert measure.key in str(caught.value)
        settled(backend, measures[:2])
        backend.withdraw([*measures[:2], measure])
        settled(backend, [])
