"""Metrics of a consumer group's member."""

from contextlib import suppress

from prometheus_client import Counter, Gauge

from fnm_bus.ops.metrics import MetricSet, counter, gauge


def _counter(name: str, text: str) -> Counter:
    return counter(f"consumer_{name}", text, "topic")


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return gauge(f"consumer_{name}", text, "topic", *labels)


class ConsumeMetrics(MetricSet):
    """A consumer's metrics; `registry` collects them for an exposition."""

    def __init__(self) -> None:
        self.handled = _counter("handled", "Records handled successfully")
        self.errors = _counter("errors", "Failures of the handler")
        self.retries = _counter(
            "retries", "Records postponed after a failure or at the handler's request"
        )
        self.dead_letters = _counter("dead_letters", "Records that became dead letters")
        self.lag = _gauge(
            "lag", "Records of an assigned partition not received yet", "partition"
        )
        self.uncommitted = _gauge(
            "uncommitted_records",
            "Records received whose offset cannot be committed yet",
            "partition",
        )
        self.age = _gauge(
            "newest_age_seconds", "Age of the newest record when it was handled"
        )

    def remove_partition(self, topic: str, partition: int) -> None:
        """Remove the gauges of a partition that left this member."""
        for metric in (self.lag, self.uncommitted):
            with suppress(KeyError):
                metric.remove(topic, str(partition))
