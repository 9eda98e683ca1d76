"""The relay's metrics: one counter for each way an event can be delayed or lost."""

from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram

from fnm_bus.ops.metrics import MetricSet, counter, gauge

_DELAYS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600)


@dataclass(frozen=True)
class RelayMetrics(MetricSet):
    """The relay's metrics; `registry` collects them for an exposition."""

    published: Counter = field(
        default_factory=lambda: counter(
            "published", "Records acknowledged by Kafka", "topic"
        )
    )
    delay: Histogram = field(
        default_factory=lambda: Histogram(
            "fnm_bus_delay_seconds",
            "Time from a notification on disk to Kafka's acknowledgement",
            buckets=_DELAYS,
            registry=None,
        )
    )
    retried: Counter = field(
        default_factory=lambda: counter(
            "retried",
            "Failed publications that are retried; a retry can create a duplicate"
            " with the same event_id",
            "topic",
            "error",
        )
    )
    field_mismatches: Counter = field(
        default_factory=lambda: counter(
            "field_mismatches",
            "Secondary fields of a wrong type or range; their values are in `extra`",
        )
    )
    quarantined: Counter = field(
        default_factory=lambda: counter(
            "quarantined", "Entries moved to the quarantine", "reason"
        )
    )
    quarantine_full: Gauge = field(
        default_factory=lambda: gauge(
            "quarantine_full_entries",
            "Entries that wait because the quarantine is full",
        )
    )
    io_blocked: Gauge = field(
        default_factory=lambda: gauge(
            "spool_io_blocked_entries",
            "Entries that cannot be read or removed because of a disk error",
        )
    )
    disk_errors: Counter = field(
        default_factory=lambda: counter(
            "disk_errors", "Failed disk operations; each is retried", "task"
        )
    )
    truncated: Counter = field(
        default_factory=lambda: counter(
            "truncated", "Events published without their packet samples", "topic"
        )
    )
    status_updates_coalesced: Counter = field(
        default_factory=lambda: counter(
            "status_updates_coalesced",
            "Status updates replaced by a newer one of the same attack",
        )
    )
    fallback_entries: Counter = field(
        default_factory=lambda: counter(
            "fallback_entries", "Entries that the hook stored in the fallback spool"
        )
    )
    checks: Counter = field(
        default_factory=lambda: counter(
            "checks", "Entries of `hook check`, removed and not published"
        )
    )
    orphaned_entries: Counter = field(
        default_factory=lambda: counter(
            "orphaned_entries",
            "Temporary files of hooks that died before they stored an entry",
        )
    )
    foreign_files: Counter = field(
        default_factory=lambda: counter(
            "foreign_files", "Files in the spool that are not entries, moved away"
        )
    )
    spool_files: Gauge = field(
        default_factory=lambda: gauge("spool_files", "Entries on disk", "spool")
    )
    spool_bytes: Gauge = field(
        default_factory=lambda: gauge("spool_bytes", "Size of the entries", "spool")
    )
    oldest_age: Gauge = field(
        default_factory=lambda: gauge(
            "spool_oldest_age_seconds", "Age of the oldest entry on disk", "spool"
        )
    )
    admission_level: Gauge = field(
        default_factory=lambda: gauge(
            "spool_admission_level",
            "Entries that the spool refuses: 0 none, 1 status updates, 2 all",
        )
    )
    quarantine_files: Gauge = field(
        default_factory=lambda: gauge("quarantine_files", "Entries in the quarantine")
    )
    in_flight: Gauge = field(
        default_factory=lambda: gauge(
            "in_flight", "Records that Kafka has not acknowledged yet", "topic"
        )
    )
    topic_blocked: Gauge = field(
        default_factory=lambda: gauge(
            "topic_blocked", "1 while publishing pauses after a failure", "topic"
        )
    )
