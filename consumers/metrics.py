"""Metrics of the mitigator and the enforcers."""

from prometheus_client import Histogram

from fnm_bus.ops.metrics import MetricSet, counter, gauge

_DELAYS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300)


class MitigatorMetrics(MetricSet):
    """The mitigator's metrics."""

    def __init__(self) -> None:
        self.active = gauge(
            "mitigator_active", "1 in the active mitigator, 0 in a standby"
        )
        self.paused = gauge("mitigator_paused", "1 while all mitigations are paused")
        self.events = counter(
            "mitigator_events", "Processed events and commands", "topic"
        )
        self.decisions = counter(
            "mitigator_decisions",
            "Decisions by action, including refused and ignored",
            "action",
        )
        self.mitigations = gauge(
            "mitigations", "Mitigations that have not ended", "kind", "state"
        )
        self.reasons = gauge(
            "mitigator_reasons", "Reasons in memory, including closed and expired ones"
        )
        self.dead_letters = counter(
            "mitigator_dead_letters", "Messages that became dead letters"
        )
        self.unexpected_errors = counter(
            "mitigator_unexpected_errors",
            "Unexpected exceptions about one message, which became a dead letter",
        )
        self.suspended_partitions = gauge(
            "mitigator_suspended_partitions",
            "Partitions suspended for a minute after too many unexpected errors",
        )
        self.unreadable_records = counter(
            "mitigator_unreadable_records",
            "Reasons and mitigations that were left out at a takeover",
        )
        self.state_reloads = counter(
            "mitigator_state_reloads", "Times the state was read again after a failure"
        )
        self.delay = Histogram(
            "fnm_bus_mitigator_delay_seconds",
            "From an event on its sensor's disk to the decision in the wanted state",
            buckets=_DELAYS,
            registry=None,
        )


class EnforcerMetrics(MetricSet):
    """An enforcer's metrics."""

    def __init__(self) -> None:
        self.wanted = gauge(
            "enforcer_wanted_measures", "Measures of the wanted state", "enforcer"
        )
        self.active = gauge(
            "enforcer_active_measures",
            "Measures in force, as listed by the system",
            "enforcer",
        )
        self.announced = counter(
            "enforcer_announced_measures",
            "Measures that the enforcer requested from its system",
            "enforcer",
        )
        self.withdrawn = counter(
            "enforcer_withdrawn_measures",
            "Measures whose removal the enforcer requested from its system",
            "enforcer",
        )
        self.failures = counter(
            "enforcer_failures",
            "Requests that the system refused or timed out",
            "enforcer",
        )
        self.unreadable_records = counter(
            "enforcer_unreadable_records",
            "Undecodable records of the wanted state; active measures stay",
            "enforcer",
        )
        self.synced = gauge(
            "enforcer_synced", "1 after the whole wanted state was read", "enforcer"
        )
        self.last_reconcile = gauge(
            "enforcer_last_reconcile_timestamp_seconds",
            "Time of the last comparison of wanted and in force, seconds since 1970",
            "enforcer",
        )
        self.refused = counter(
            "enforcer_refused_records",
            "Records of the wanted state that the enforcer's checks refused, by code",
            "enforcer",
            "code",
        )
        self.unreadable_commands = counter(
            "enforcer_unreadable_commands",
            "Records of the command topic that could not be decoded",
            "enforcer",
        )
        self.lost_audit_records = counter(
            "enforcer_lost_audit_records",
            "Audit records that Kafka did not store; only the log has them",
            "enforcer",
        )
        self.reader_restarts = counter(
            "enforcer_reader_restarts",
            "Restarts of a thread that reads a topic",
            "enforcer",
        )
        self.paused = gauge(
            "enforcer_paused", "1 while a pause withdraws every measure", "enforcer"
        )
        self.clock_skew = gauge(
            "enforcer_clock_skew_seconds",
            "This clock's lead over the broker's clock",
            "enforcer",
        )
