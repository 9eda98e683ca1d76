"""What the mitigator and the enforcers show at /metrics."""

from dataclasses import dataclass, field, fields

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_DELAYS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"fnm_bus_{name}", text, labels, registry=None)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"fnm_bus_{name}", text, labels, registry=None)


class _Collected:
    """Metrics that are the fields of a dataclass."""

    def registry(self) -> CollectorRegistry:
        """Return a registry that collects all of them."""
        found = CollectorRegistry()
        for one in fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            found.register(getattr(self, one.name))
        return found


@dataclass(frozen=True)
class MitigatorMetrics(_Collected):
    """The mitigator's figures."""

    active: Gauge = field(
        default_factory=lambda: _gauge(
            "mitigator_active", "1 in the mitigator that decides, 0 in one that waits"
        )
    )
    paused: Gauge = field(
        default_factory=lambda: _gauge(
            "mitigator_paused", "1 while everything is paused"
        )
    )
    events: Counter = field(
        default_factory=lambda: _counter(
            "mitigator_events", "Events and commands that were dealt with", "topic"
        )
    )
    decisions: Counter = field(
        default_factory=lambda: _counter(
            "mitigator_decisions",
            "Decisions by what was decided; refused and ignored ones as well",
            "what",
        )
    )
    standing: Gauge = field(
        default_factory=lambda: _gauge(
            "mitigations", "Mitigations that are not ended", "kind", "state"
        )
    )
    dead_letters: Counter = field(
        default_factory=lambda: _counter(
            "mitigator_dead_letters", "Records that could not be decoded"
        )
    )
    begun_anew: Counter = field(
        default_factory=lambda: _counter(
            "mitigator_begun_anew", "Times the state was read anew after a failure"
        )
    )
    delay: Histogram = field(
        default_factory=lambda: Histogram(
            "fnm_bus_mitigator_delay_seconds",
            "From an event on its sensor's disk to the decision in the wanted state",
            buckets=_DELAYS,
            registry=None,
        )
    )


@dataclass(frozen=True)
class EnforcerMetrics(_Collected):
    """An enforcer's figures."""

    wanted: Gauge = field(
        default_factory=lambda: _gauge(
            "enforcer_wanted", "Measures that are to stand", "enforcer"
        )
    )
    standing: Gauge = field(
        default_factory=lambda: _gauge(
            "enforcer_standing", "Measures that stand, as the system lists", "enforcer"
        )
    )
    announced: Counter = field(
        default_factory=lambda: _counter(
            "enforcer_announced", "Measures that the system was asked for", "enforcer"
        )
    )
    withdrawn: Counter = field(
        default_factory=lambda: _counter(
            "enforcer_withdrawn", "Measures that were asked to be gone", "enforcer"
        )
    )
    failures: Counter = field(
        default_factory=lambda: _counter(
            "enforcer_failures",
            "Times the system refused or did not answer",
            "enforcer",
        )
    )
    broken: Counter = field(
        default_factory=lambda: _counter(
            "enforcer_broken_records",
            "Records of the wanted state that could not be decoded; what stands stays",
            "enforcer",
        )
    )
    complete: Gauge = field(
        default_factory=lambda: _gauge(
            "enforcer_complete", "1 once the whole wanted state was read", "enforcer"
        )
    )
    compared: Gauge = field(
        default_factory=lambda: _gauge(
            "enforcer_compared_timestamp_seconds",
            "When wanted and actual were compared last, seconds since 1970",
            "enforcer",
        )
    )
    skew: Gauge = field(
        default_factory=lambda: _gauge(
            "enforcer_clock_skew_seconds",
            "By how much this clock is ahead of the broker's",
            "enforcer",
        )
    )
