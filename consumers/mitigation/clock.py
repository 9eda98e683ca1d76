"""Two clocks: seconds since boot, and the broker's time counted on them.

Leases are counted on `now`, which nobody can set. What a lease is counted *from* is the
broker's time of a record, so that neither the mitigator's nor the enforcer's wall clock
decides when a mitigation ends.
"""

import time
from datetime import UTC, datetime
from typing import Final

_EARLIEST: Final = 1_577_836_800.0
"""2020. A broker that shows an earlier time has no clock: librdkafka's embedded one
always answers 1234 ms after 1970. It runs on this machine, so this clock counts."""
_LATEST: Final = 221_845_392_000.0
"""The year 9000; Python has no date after 9999."""
_PRECISE: Final = 1.0
"""Seconds; a slower answer counts only until a faster one is known."""


def now() -> float:
    """Return seconds since this machine started.

    CLOCK_BOOTTIME: nobody can set it, and it continues while the machine sleeps.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class BrokerClock:
    """What time the broker's clock shows, counted on `now` between two answers.

    Two sources: the answer to a record of our own (`learn`, precise to half of the
    round trip), and records that were read (`witness`, a lower bound). Brokers whose
    clocks differ make it wrong by their difference.
    """

    def __init__(self) -> None:
        self._learned: float | None = None
        self._round_trip = 0.0
        self._lower_bound: float | None = None

    @property
    def known(self) -> bool:
        """Whether the broker answered a record with its time."""
        return self._learned is not None

    def learn(self, asked: float, answered: float, stamp: float) -> None:
        """Take the time of a record that the broker stamped between two moments.

        Args:
            asked: when the record was handed over, on `now`.
            answered: when the answer came, on `now`.
            stamp: the broker's time of the record, seconds since 1970.
        """
        if stamp < _EARLIEST:
            stamp = time.time() - (now() - (asked + answered) / 2)
        round_trip = answered - asked
        if self._learned is None or round_trip <= max(_PRECISE, self._round_trip):
            self._learned = stamp - (asked + answered) / 2
            self._round_trip = round_trip

    def witness(self, stamp: float) -> None:
        """Take the broker's time of a record that was read: it is at least so late."""
        bound = stamp - now()
        if self._lower_bound is None or bound > self._lower_bound:
            self._lower_bound = bound

    def time(self) -> float | None:
        """Return the broker's time, seconds since 1970, or None if nothing is known."""
        offset = self._lower_bound if self._learned is None else self._learned
        return None if offset is None else offset + now()

    def datetime(self) -> datetime:
        """Return the broker's time, UTC; this machine's while nothing is known.

        A topic whose records have the times of their writers may show any time; this
        one stays where dates can be calculated.
        """
        seconds = self.time()
        if seconds is None:
            seconds = time.time()
        return datetime.fromtimestamp(min(max(seconds, 0.0), _LATEST), UTC)

    def skew(self) -> float | None:
        """Return by how many seconds this machine's clock is ahead of the broker's."""
        return None if self._learned is None else time.time() - now() - self._learned
