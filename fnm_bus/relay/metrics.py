"""Every figure the relay shows: one counter for each way an event can suffer."""

from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram

from fnm_bus.ops.metrics import MetricSet, counter, gauge

_DELAYS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600)


@dataclass(frozen=True)
class RelayMetrics(MetricSet):
    """The relay's figures; `registry` collects them for an exposition."""

    published: Counter = field(
        default_factory=lambda: counter(
            "published", "Records acknowledged by Kafka", "topic"
        )
    )
    delay: Histogram = field(
        default_factory=lambda: Histogram(
            "fnm_bus_delay_seconds",
            "From a notification on disk to its record acknowledged",
            buckets=_DELAYS,
            registry=None,
        )
    )
    retried: Counter = field(
        default_factory=lambda: counter(
            "retried",
            "Records Kafka did not take and that are tried again; each may turn out"
            " a duplicate with an equal event_id",
            "topic",
            "error",
        )
    )
    drifted: Counter = field(
        default_factory=lambda: counter(
            "drifted",
            "Secondary fields of a wrong type or range; events keep what was sent",
        )
    )
    quarantined: Counter = field(
        default_factory=lambda: counter(
            "quarantined", "Documents put into the quarantine", "reason"
        )
    )
    held: Gauge = field(
        default_factory=lambda: gauge(
            "held", "Documents that wait because the quarantine is full"
        )
    )
    disk_refused: Gauge = field(
        default_factory=lambda: gauge(
            "disk_refused", "Entries that can now be neither read nor removed"
        )
    )
    disk_errors: Counter = field(
        default_factory=lambda: counter(
            "disk_errors", "Failures of the disk, each of which is retried", "task"
        )
    )
    truncated: Counter = field(
        default_factory=lambda: counter(
            "truncated", "Events published without their packet samples", "topic"
        )
    )
    status_skipped: Counter = field(
        default_factory=lambda: counter(
            "status_skipped",
            "Status updates dropped for a newer one of the same attack",
        )
    )
    from_fallback: Counter = field(
        default_factory=lambda: counter(
            "from_fallback", "Documents that the hook could store in the fallback only"
        )
    )
    checks: Counter = field(
        default_factory=lambda: counter(
            "checks", "Documents of `hook check`, removed and not published"
        )
    )
    left: Counter = field(
        default_factory=lambda: counter(
            "dead_hooks", "Hooks that died before they had stored; FastNetMon saw that"
        )
    )
    odd_files: Counter = field(
        default_factory=lambda: counter(
            "odd_files", "Things in the spool that are no entries, set aside"
        )
    )
    spool_files: Gauge = field(
        default_factory=lambda: gauge("spool_files", "Documents on disk", "spool")
    )
    spool_bytes: Gauge = field(
        default_factory=lambda: gauge("spool_bytes", "Their size in bytes", "spool")
    )
    oldest_age: Gauge = field(
        default_factory=lambda: gauge(
            "spool_oldest_age_seconds", "Age of the oldest document on disk", "spool"
        )
    )
    refusing: Gauge = field(
        default_factory=lambda: gauge(
            "spool_refusing",
            "What the spool refuses: 0 nothing, 1 status updates, 2 everything",
        )
    )
    quarantine_files: Gauge = field(
        default_factory=lambda: gauge("quarantine_files", "Documents in the quarantine")
    )
    in_flight: Gauge = field(
        default_factory=lambda: gauge(
            "in_flight", "Records handed to Kafka without an answer yet", "topic"
        )
    )
    topic_blocked: Gauge = field(
        default_factory=lambda: gauge(
            "topic_blocked", "1 while a topic is not tried after a failure", "topic"
        )
    )
