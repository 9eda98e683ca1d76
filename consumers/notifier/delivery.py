"""Delivery: notices that wait for one sink, sent in order until each is accepted.

A thread sends, so that reading Kafka never waits for a receiver.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from random import uniform
from typing import Final, NamedTuple

from prometheus_client import Counter

from consumers.notifier.sink import (
    NoticeRefused,
    NoticeSink,
    OutgoingNotice,
    SinkUnavailable,
)
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

_SENT: Final = "sent"
_DROPPED: Final = "dropped"
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
"""Seconds between attempts, at first and at most; each is shortened by chance."""
_LONGEST_REQUESTED: Final = 300.0
"""Seconds that a receiver may request."""
_MAX_WAITING: Final = 1000
_MAX_BYTES: Final = 64 << 20
"""Bounds of the waiting notices; from then on the queue is full."""


class _Item(NamedTuple):
    outgoing: OutgoingNotice
    done: Callable[[], None]
    since: float


class DeliveryQueue:
    """The notices for one sink, and the thread that sends them.

    Args:
        retry_timeout: seconds after which a notice is dropped with an error in the log.

    Attributes:
        is_retrying: whether the last attempt failed.
    """

    def __init__(
        self, sink: NoticeSink, retry_timeout: float, notices: Counter
    ) -> None:
        self.sink = sink
        self._retry_timeout = retry_timeout
        self._notices = notices
        self._waiting: SimpleQueue[_Item | None] = SimpleQueue()
        self._finished: deque[_Item] = deque()
        self._count = self._bytes = 0  # changed by the caller's thread only
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._fault: Exception | None = None
        self.is_retrying = False

    def put(self, outgoing: OutgoingNotice, done: Callable[[], None]) -> None:
        """Add a notice; `settle` calls *done* after it was sent or dropped."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="notices", daemon=True
            )
            self._thread.start()
        self._count += 1
        self._bytes += len(outgoing.body)
        self._waiting.put(_Item(outgoing, done, time.monotonic()))

    def settle(self) -> None:
        """Call `done` of each notice that was sent or dropped.

        Raises:
            Exception: the fault that ended the thread.
        """
        if self._fault is not None:
            raise self._fault
        for _ in range(len(self._finished)):
            item = self._finished.popleft()
            self._count -= 1
            self._bytes -= len(item.outgoing.body)
            item.done()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be sent or settled."""
        return not self._count

    @property
    def is_full(self) -> bool:
        """Whether no further notice should be added now."""
        return self._count >= _MAX_WAITING or self._bytes >= _MAX_BYTES

    def stop(self) -> None:
        """Start no other attempt."""
        self._stopping.set()
        self._waiting.put(None)

    def join(self, timeout: float) -> None:
        """Wait up to *timeout* seconds for the current attempt."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while (item := self._waiting.get()) and not self._stopping.is_set():
                result = self._deliver(item.outgoing, item.since + self._retry_timeout)
                self.is_retrying = False
                if result:
                    self._notices.labels(self.sink.name, result).inc()
                    self._finished.append(item)
        except Exception as exc:  # noqa: BLE001 - `settle` raises it
            self._fault = exc

    def _deliver(self, outgoing: OutgoingNotice, deadline: float) -> str:
        """Try until it is sent or dropped; return the result, "" after `stop`."""
        notice = outgoing.notice
        fields = {"sink": self.sink.name, "notice": notice.key, "title": notice.title}
        pause = _FIRST_PAUSE
        while True:
            try:
                self.sink.send(outgoing)
            except NoticeRefused as exc:
                log.error("notice_dropped", **fields, error=exc)  # noqa: TRY400
                return _DROPPED
            except MemoryError:
                raise
            except SinkUnavailable as exc:
                rest = deadline - time.monotonic()
                if rest <= 0:
                    log.error(  # noqa: TRY400
                        "notice_dropped",
                        **fields,
                        error=exc,
                        seconds_tried=self._retry_timeout,
                    )
                    return _DROPPED
                log.warning("notice_retried", **fields, error=exc)
                wait = pause * uniform(0.5, 1.0)  # noqa: S311 - no secret
                if exc.retry_after is not None:
                    wait = min(max(wait, exc.retry_after), _LONGEST_REQUESTED)
                self.is_retrying = True
                if self._stopping.wait(min(wait, rest)):
                    return ""
                pause = min(pause * 2, _LONGEST_PAUSE)
            except Exception:
                # A fault of one sink must not end the program for all of them.
                log.exception("notice_dropped", **fields)
                return _DROPPED
            else:
                log.info("notice_sent", **fields)
                return _SENT
