"""Disk errors during a drain: each is logged once, counted, and retried.

One directory, file or marker must not end the relay. A restarted relay would meet the
same error, and publish nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import Counter

from fnm_bus.errors import SpoolError
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)


class DiskErrors:
    """Tracks the tasks whose last attempt failed, each with its error.

    Args:
        counter: counts each failure by the label `task`.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._current: dict[str, str] = {}

    @property
    def current(self) -> Mapping[str, str]:
        """Task → error, for tasks whose last attempt failed."""
        return self._current

    def is_failing(self, task: str, location: object = "") -> bool:
        """Return whether the last attempt of a task failed."""
        return _key(task, location) in self._current

    @contextmanager
    def catch(self, task: str, location: object = "") -> Iterator[None]:
        """Run the body; catch and count a SpoolError.

        Args:
            task: the kind of work, in words: the metric's label.
            location: distinguishes directories with the same task.
        """
        try:
            yield
        except SpoolError as exc:
            self.add(task, str(exc), location)
        else:
            self.clear(task, location)

    def add(self, task: str, error: str, location: object = "") -> None:
        """Count a failure; log it unless the last attempt failed in the same way."""
        self._counter.labels(task).inc()
        key = _key(task, location)
        if self._current.get(key) != error:
            self._current[key] = error
            log.warning("disk_error", task=key, error=error, retried=True)

    def clear(self, task: str, location: object = "") -> None:
        """Drop a task's failure, and log the success after it."""
        key = _key(task, location)
        if self._current.pop(key, None) is not None:
            log.info("disk_error_ended", task=key)


def _key(task: str, location: object) -> str:
    return f"{task} {location}".rstrip()
