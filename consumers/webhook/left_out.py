"""Left out: what cannot be used is counted and logged, and stops nothing."""

import logging
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from prometheus_client import Counter

from fnm_bus.consume.metrics import ConsumeMetrics
from fnm_bus.ops.metrics import counter

log = logging.getLogger(__name__)

_QUIET: Final = 60.0
"""Seconds until the next line in the log for the same reason."""


def _counter() -> Counter:
    text = "Records and notices that cannot be used and were left out"
    return counter("webhook_left_out", text, "reason")


@dataclass(frozen=True)
class WebhookMetrics(ConsumeMetrics):
    """The webhook's metrics."""

    left_out: Counter = field(default_factory=_counter)


@dataclass
class LeftOut:
    """Counts what is left out; one line in the log for each reason and minute.

    Attributes:
        counter: has the label reason, a stable word.
    """

    counter: Counter = field(default_factory=_counter)
    _logged_at: dict[str, float] = field(default_factory=dict)

    def add(self, reason: str, name: str, text: str, count: int = 1) -> None:
        """Count *count* of one reason.

        Args:
            reason: a stable word, one of a few.
            name: what was left out, such as topic[partition]@offset.
            text: why, for the log.
            count: how many.
        """
        self.counter.labels(reason).inc(count)
        now = monotonic()
        if now - self._logged_at.get(reason, -_QUIET) >= _QUIET:
            self._logged_at[reason] = now
            log.warning("%s: left out: %s: %s", name, reason, text)
