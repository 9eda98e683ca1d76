"""What the mitigator and the enforcers show at /metrics."""

from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram

from fnm_bus.ops.metrics import MetricSet, counter, gauge

_DELAYS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300)


@dataclass(frozen=True)
class MitigatorMetrics(MetricSet):
    """The mitigator's figures."""

    active: Gauge = field(
        default_factory=lambda: gauge(
            "mitigator_active", "1 in the mitigator that decides, 0 in one that waits"
        )
    )
    paused: Gauge = field(
        default_factory=lambda: gauge(
            "mitigator_paused", "1 while everything is paused"
        )
    )
    events: Counter = field(
        default_factory=lambda: counter(
            "mitigator_events", "Events and commands that were dealt with", "topic"
        )
    )
    decisions: Counter = field(
        default_factory=lambda: counter(
            "mitigator_decisions",
            "Decisions by what was decided; refused and ignored ones as well",
            "what",
        )
    )
    mitigations: Gauge = field(
        default_factory=lambda: gauge(
            "mitigations", "Mitigations that have not ended", "kind", "state"
        )
    )
    reasons: Gauge = field(
        default_factory=lambda: gauge(
            "mitigator_reasons", "Reasons in memory, closed and expired ones included"
        )
    )
    dead_letters: Counter = field(
        default_factory=lambda: counter(
            "mitigator_dead_letters", "Messages that became dead letters"
        )
    )
    unexpected_errors: Counter = field(
        default_factory=lambda: counter(
            "mitigator_unexpected_errors",
            "Unexpected exceptions about one message, which became a dead letter",
        )
    )
    held_partitions: Gauge = field(
        default_factory=lambda: gauge(
            "mitigator_held_partitions",
            "Partitions that are not read for a minute: too many unexpected errors",
        )
    )
    unreadable_records: Counter = field(
        default_factory=lambda: counter(
            "mitigator_unreadable_records",
            "Reasons and mitigations that were left out at a takeover",
        )
    )
    state_reloads: Counter = field(
        default_factory=lambda: counter(
            "mitigator_state_reloads", "Times the state was read again after a failure"
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
class EnforcerMetrics(MetricSet):
    """An enforcer's figures."""

    wanted: Gauge = field(
        default_factory=lambda: gauge(
            "enforcer_wanted", "Measures that are to stand", "enforcer"
        )
    )
    active: Gauge = field(
        default_factory=lambda: gauge(
            "enforcer_active_measures",
            "Measures that stand, as the system lists",
            "enforcer",
        )
    )
    announced: Counter = field(
        default_factory=lambda: counter(
            "enforcer_announced", "Measures that the system was asked for", "enforcer"
        )
    )
    withdrawn: Counter = field(
        default_factory=lambda: counter(
            "enforcer_withdrawn", "Measures that were asked to be gone", "enforcer"
        )
    )
    failures: Counter = field(
        default_factory=lambda: counter(
            "enforcer_failures",
            "Times the system refused or did not answer",
            "enforcer",
        )
    )
    broken: Counter = field(
        default_factory=lambda: counter(
            "enforcer_broken_records",
            "Records of the wanted state that could not be decoded; what stands stays",
            "enforcer",
        )
    )
    synced: Gauge = field(
        default_factory=lambda: gauge(
            "enforcer_synced", "1 once the whole wanted state was read", "enforcer"
        )
    )
    last_reconcile: Gauge = field(
        default_factory=lambda: gauge(
            "enforcer_last_reconcile_timestamp_seconds",
            "When wanted and actual were compared last, seconds since 1970",
            "enforcer",
        )
    )
    refused: Counter = field(
        default_factory=lambda: counter(
            "enforcer_refused_records",
            "Records of the wanted state that the enforcer's own checks refused, by"
            " code",
            "enforcer",
            "code",
        )
    )
    broken_commands: Counter = field(
        default_factory=lambda: counter(
            "enforcer_broken_commands",
            "Records of the command topic that could not be decoded",
            "enforcer",
        )
    )
    lost_audit: Counter = field(
        default_factory=lambda: counter(
            "enforcer_lost_audit_records",
            "Audit records that Kafka did not take; only the log has them",
            "enforcer",
        )
    )
    reader_restarts: Counter = field(
        default_factory=lambda: counter(
            "enforcer_reader_restarts",
            "Times a thread that reads a topic ended and was started again",
            "enforcer",
        )
    )
    paused: Gauge = field(
        default_factory=lambda: gauge(
            "enforcer_paused",
            "1 while everything is withdrawn because a person paused",
            "enforcer",
        )
    )
    skew: Gauge = field(
        default_factory=lambda: gauge(
            "enforcer_clock_skew_seconds",
            "By how much this clock is ahead of the broker's",
            "enforcer",
        )
    )
