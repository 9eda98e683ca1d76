"""What a consumer of a group shows at /metrics."""

from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge

from fnm_bus.ops.metrics import MetricSet, counter, gauge


def _counter(name: str, text: str) -> Counter:
    return counter(f"consumer_{name}", text, "topic")


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return gauge(f"consumer_{name}", text, "topic", *labels)


@dataclass(frozen=True)
class ConsumeMetrics(MetricSet):
    """A consumer's figures; `registry` collects them for an exposition."""

    handled: Counter = field(
        default_factory=lambda: _counter("handled", "Records that were dealt with")
    )
    errors: Counter = field(
        default_factory=lambda: _counter("errors", "Times a handler failed")
    )
    retries: Counter = field(
        default_factory=lambda: _counter(
            "retries", "Times a record was put off, after a failure or for its time"
        )
    )
    dead_letters: Counter = field(
        default_factory=lambda: _counter(
            "dead_letters", "Records that became dead letters"
        )
    )
    lag: Gauge = field(
        default_factory=lambda: _gauge(
            "lag",
            "Records that stand in a partition of this member's and were not taken yet",
            "partition",
        )
    )
    held: Gauge = field(
        default_factory=lambda: _gauge(
            "held",
            "Records that were taken and are not done, or wait behind such a one",
            "partition",
        )
    )
    age: Gauge = field(
        default_factory=lambda: _gauge(
            "newest_age_seconds", "Age of the newest record when it was dealt with"
        )
    )

    def forget(self, topic: str, partition: int) -> None:
        """Show nothing more of a partition that another member has now."""
        for one in (self.lag, self.held):
            with suppress(KeyError):
                one.remove(topic, str(partition))
