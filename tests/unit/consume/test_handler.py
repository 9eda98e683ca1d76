"""Deferred records."""

from fnm_bus.consume.handler import Deferred


def test_a_callback_after_the_release_runs_at_once() -> None:
    done: list[int] = []
    deferred = Deferred()
    deferred.release()
    deferred.on_release(lambda: done.append(1))
    deferred.release()
    assert done == [1]
