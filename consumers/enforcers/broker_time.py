"""Request the broker's time: audit records whose acknowledgements carry it."""

from typing import Final

from consumers.enforcers.audit_publisher import AuditPublisher
from consumers.mitigation import clock
from consumers.mitigation.clock import BrokerClock

_FIRST_PAUSE: Final = 1.0
_MAX_PAUSE: Final = 60.0
_REFRESH_PAUSE: Final = 3600.0
"""Seconds between two requests once the time is known: two clocks drift apart."""
_REPORT_AFTER: Final = 30.0
"""Seconds without the broker's time after which a failure is reported."""


class TimeRequests:
    """Requests the broker's time, with growing pauses."""

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
            self._due = now + _REFRESH_PAUSE
        else:
            self._pause = min(self._pause * 2, _MAX_PAUSE)
            self._due = now + self._pause
            self._report(now - self._started_at)
        self._audit.publish(
            "started", "requesting the broker's time", code="broker_time"
        )

    def _report(self, missing: float) -> None:
        if missing < _REPORT_AFTER or self._reported:
            return
        self._reported = True
        text = (
            f"the broker's time has been unknown for {missing:.0f} s; allow this"
            " enforcer to Write to the audit topic, and set the topic's"
            " message.timestamp.type=LogAppendTime. Records older than the enforcer's"
            " start are not applied until the first new record of the mitigation topic"
        )
        self._audit.publish("failed", text, code="broker_time")
