"""What a consumer of a group shows at /metrics."""

from dataclasses import dataclass, field, fields

from prometheus_client import CollectorRegistry, Counter, Gauge

_ABOUT = ("topic", "partition")


def _counter(name: str, text: str) -> Counter:
    return Counter(f"fnm_bus_consumer_{name}", text, ("topic",), registry=None)


@dataclass(frozen=True)
class ConsumeMetrics:
    """A consumer's figures."""

    handled: Counter = field(
        default_factory=lambda: _counter("handled", "Records that were dealt with")
    )
    errors: Counter = field(
        default_factory=lambda: _counter("errors", "Times a handler failed")
    )
    retries: Counter = field(
        default_factory=lambda: _counter("retries", "Records that are tried again")
    )
    dead_letters: Counter = field(
        default_factory=lambda: _counter(
            "dead_letters", "Records that became dead letters"
        )
    )
    lag: Gauge = field(
        default_factory=lambda: Gauge(
            "fnm_bus_consumer_lag",
            "Records that stand on the topic and were not taken yet",
            _ABOUT,
            registry=None,
        )
    )
    held: Gauge = field(
        default_factory=lambda: Gauge(
            "fnm_bus_consumer_held",
            "Records that were taken and are not done",
            _ABOUT,
            registry=None,
        )
    )
    age: Gauge = field(
        default_factory=lambda: Gauge(
            "fnm_bus_consumer_newest_age_seconds",
            "Age of the newest record when it was taken",
            ("topic",),
            registry=None,
        )
    )

    def registry(self) -> CollectorRegistry:
        """Return a registry that collects all of them."""
        found = CollectorRegistry()
        for one in fields(self):
            found.register(getattr(self, one.name))
        return found
