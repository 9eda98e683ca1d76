"""Requests for the broker's time: audit records whose answers tell it."""

from typing import Final

from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock

_FIRST_PAUSE: Final = 1.0
_MAX_PAUSE: Final = 60.0
_KNOWN_PAUSE: Final = 3600.0
"""Seconds between two requests once the time is known: two clocks drift apart."""
_MISSING: Final = 30.0
"""Seconds without the broker's time after which that is reported as a failure."""


class TimeRequests:
    """Requests the broker's time, more and more rarely.

    Args:
        audit: publishes the records.
        broker_clock: learns from the answers.
    """

    def __init__(self, audit: AuditPublisher, broker_clock: BrokerClock) -> None:
        self._audit = audit
        self._broker_clock = broker_clock
        self._started_at = clock.now()
        self._due = self._started_at + _FIRST_PAUSE
        self._pause = _FIRST_PAUSE
        self._reported = False

    def poll(self) -> None:
        """Publish a request when one is due."""
        now = clock.now()
        if now < self._due:
            return
        if self._broker_clock.has_time:
            self._reported = False
            self._due = now + _KNOWN_PAUSE
        else:
            self._pause = min(self._pause * 2, _MAX_PAUSE)
            self._due = now + self._pause
            self._report(now - self._started_at)
        self._audit.publish("started", "requests the broker's time", code="broker_time")

    def _report(self, missing: float) -> None:
        if missing < _MISSING or self._reported:
            return
        self._reported = True
        text = (
            f"the broker's time is unknown for {missing:.0f} s: this enforcer needs"
            " Write on the audit topic, and that topic needs"
            " message.timestamp.type=LogAppendTime. Until the first new record of the"
            " mitigation topic, older records wait for it"
        )
        self._audit.publish("failed", text, code="broker_time")
