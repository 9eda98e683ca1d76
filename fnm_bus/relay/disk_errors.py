"""Errors of the disk while the spool is drained: logged once, counted, never the end.

The relay exists to empty the spool, so no error of one directory, file or marker may
end it: it would start again, meet the same error, and publish nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import Counter

from fnm_bus.errors import SpoolError
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)


class DiskErrors:
    """Keeps the tasks that failed the last time, each with its error.

    Args:
        counter: counts each failure by the label `task`.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._current: dict[str, str] = {}

    @property
    def current(self) -> Mapping[str, str]:
        """The tasks whose last attempt failed, with the error."""
        return self._current

    def failing(self, task: str, where: object = "") -> bool:
        """Return whether the last attempt of a task failed."""
        return _key(task, where) in self._current

    @contextmanager
    def caught(self, task: str, where: object = "") -> Iterator[None]:
        """Run the body; a SpoolError in it is noted and goes no further.

        Args:
            task: the kind of work, in words: the metric's label.
            where: tells apart places where the same work is done.
        """
        try:
            yield
        except SpoolError as exc:
            self.failed(task, str(exc), where)
        else:
            self.succeeded(task, where)

    def failed(self, task: str, error: str, where: object = "") -> None:
        """Count a failure; log it unless the last attempt failed in the same way."""
        self._counter.labels(task).inc()
        key = _key(task, where)
        if self._current.get(key) != error:
            self._current[key] = error
            log.warning("disk_error", task=key, error=error, retried=True)

    def succeeded(self, task: str, where: object = "") -> None:
        """Forget the last failure of a task; log that it works again."""
        key = _key(task, where)
        if self._current.pop(key, None) is not None:
            log.info("disk_error_ended", task=key)


def _key(task: str, where: object) -> str:
    return f"{task} {where}".rstrip()
