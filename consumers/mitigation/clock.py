"""Two clocks: seconds since boot, and the broker's time derived from them.

Leases are counted on `now`, which cannot be set, from the broker's time of a record.
So neither the mitigator's nor the enforcer's wall clock decides when a mitigation ends.
"""

import time
from datetime import UTC, datetime
from typing import Final

_EARLIEST: Final = 1_577_836_800.0
"""2020. librdkafka's embedded broker has no clock: its time is always 1234 ms after
1970. It runs on this machine, so this machine's clock replaces any earlier time."""
_LATEST: Final = 221_845_392_000.0
"""The year 9000; Python has no date after 9999."""
_PRECISE: Final = 1.0
"""Seconds; a slower answer counts only until a faster one arrives."""


def now() -> float:
    """Return seconds since this machine started.

    CLOCK_BOOTTIME cannot be set, and continues while the machine sleeps.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class BrokerClock:
    """The broker's time, counted on `now` between two answers.

    Two sources: the answer to a record of our own (`learn`, precise to half of the
    round trip), and records that were read (`witness`, a lower bound). If the brokers'
    clocks differ, the error is their difference.
    """

    def __init__(self) -> None:
        self._learned: float | None = None
        self._round_trip = 0.0
        self._lower_bound: float | None = None

    @property
    def has_time(self) -> bool:
        """Whether the broker answered a record with its time."""
        return self._learned is not None

    def learn(self, sent: float, answered: float, stamp: float) -> None:
        """Take the broker's time from the answer to a record.

        Args:
            sent: when the record was sent, on `now`.
            answered: when the answer arrived, on `now`.
            stamp: the broker's time of the record, seconds since 1970.
        """
        if stamp < _EARLIEST:
            stamp = time.time() - (now() - (sent + answered) / 2)
        round_trip = answered - sent
        if self._learned is None or round_trip <= max(_PRECISE, self._round_trip):
            self._learned = stamp - (sent + answered) / 2
            self._round_trip = round_trip

    def witness(self, stamp: float) -> None:
        """Take the broker's time of a record that was read, as a lower bound."""
        bound = stamp - now()
        if self._lower_bound is None or bound > self._lower_bound:
            self._lower_bound = bound

    def time(self) -> float | None:
        """Return the broker's time, seconds since 1970, or None before any record."""
        offset = self._lower_bound if self._learned is None else self._learned
        return None if offset is None else offset + now()

    def datetime(self) -> datetime:
        """Return the broker's time, UTC; this machine's time before any record.

        Records with the times of their writers may have any time. The result is always
        within the range of Python's dates.
        """
        seconds = self.time()
        if seconds is None:
            seconds = time.time()
        return datetime.fromtimestamp(min(max(seconds, 0.0), _LATEST), UTC)

    def skew(self) -> float | None:
        """Return the seconds that this machine's clock is ahead of the broker's."""
        return None if self._learned is None else time.time() - now() - self._learned
