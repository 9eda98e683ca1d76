"""The contract of every backend, for each system."""

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

SECONDS_LEFT = 300.0


def active_by_key(backend: Backend) -> Mapping[str, ActiveMeasure]:
    return {measure.key: listed for measure, listed in backend.active().items()}


def wait_active(
    backend: Backend, measures: Sequence[Measure]
) -> Mapping[str, ActiveMeasure]:
    """Wait until exactly *measures* are active; a system may need some time."""
    keys = {measure.key for measure in measures}
    wait_until(
        lambda: active_by_key(backend).keys() == keys, 30, f"{len(keys)} measures"
    )
    return active_by_key(backend)


def wanted(measures: Sequence[Measure]) -> Sequence[DesiredMeasure]:
    return [DesiredMeasure(measure, SECONDS_LEFT) for measure in measures]


def test_it_has_a_name_and_known_kinds(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    assert backend.name
    assert backend.kinds <= set(KINDS)
    assert {measure.kind for measure in measures} <= backend.kinds


def test_no_measure_is_active_before_announcement(backend: Backend) -> None:
    assert backend.active() == {}


def test_announced_measures_are_listed_in_their_form(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    active = wait_active(backend, measures[:5])
    for measure in measures[:5]:
        assert active[measure.key].form == backend.form(measure)


def test_listed_end_is_not_later_than_wanted(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    for measure in wait_active(backend, measures[:5]).values():
        assert measure.seconds_left is None or 0 < measure.seconds_left <= SECONDS_LEFT


def test_measure_announced_twice_is_listed_once(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:3]))
    backend.announce(wanted(measures[:3]))
    backend.announce(wanted([measures[0], measures[0]]))
    wait_active(backend, measures[:3])


def test_announcement_keeps_other_measures(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:2]))
    backend.announce(wanted(measures[2:4]))
    wait_active(backend, measures[:4])


def test_only_withdrawn_measures_disappear(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    wait_active(backend, measures[:5])
    backend.withdraw(measures[1:3])
    wait_active(backend, [measures[0], *measures[3:5]])


def test_listed_measures_can_be_withdrawn(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:5]))
    wait_active(backend, measures[:5])
    backend.withdraw(list(backend.active()))
    wait_active(backend, [])


def test_withdrawn_measure_can_be_announced_again(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:3]))
    backend.withdraw(measures[:3])
    backend.announce(wanted(measures[:2]))
    wait_active(backend, measures[:2])


def test_withdrawal_of_inactive_measure_is_not_an_error(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.withdraw(measures[:3])
    backend.announce(wanted(measures[:1]))
    backend.withdraw([*measures[1:3], measures[1]])
    wait_active(backend, measures[:1])


def test_empty_requests_have_no_effect(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    backend.announce(wanted(measures[:2]))
    backend.announce([])
    backend.withdraw([])
    wait_active(backend, measures[:2])


def test_thousand_measures_in_one_call(
    backend: Backend, measures: Sequence[Measure]
) -> None:
    assert len({measure.key for measure in measures}) == 1000
    backend.announce(wanted(measures))
    wait_active(backend, measures)
    backend.withdraw(measures)
    wait_active(backend, [])


def test_new_backend_lists_active_measures(
    open_backend: Callable[[], Backend],
    measures: Sequence[Measure],
    *,
    outlives_backend: bool,
) -> None:
    first = open_backend()
    first.announce(wanted(measures[:5]))
    wait_active(first, measures[:5])
    first.close()
    wait_active(open_backend(), measures[:5] if outlives_backend else [])


def test_second_close_has_no_effect(backend: Backend) -> None:
    backend.close()
    backend.close()


def test_unsupported_measure_is_not_retryable(
    backend: Backend, unsupported: Sequence[Measure]
) -> None:
    for measure in unsupported:
        with pytest.raises(BackendError) as caught:
            backend.form(measure)
        assert not caught.value.retryable
        assert measure.key in str(caught.value)


def test_unsupported_measure_prevents_no_other(
    backend: Backend, unsupported: Sequence[Measure], measures: Sequence[Measure]
) -> None:
    for measure in unsupported:
        with pytest.raises(BackendError) as caught:
            backend.announce(wanted([measures[0], measure, measures[1]]))
        assert measure.key in str(caught.value)
        wait_active(backend, measures[:2])
        backend.withdraw([*measures[:2], measure])
        wait_active(backend, [])
