"""The relay's metrics: one counter for each way an event can be delayed or lost."""

from prometheus_client import Histogram

from fnm_bus.ops.metrics import MetricSet, counter, gauge

_DELAYS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600)


class RelayMetrics(MetricSet):
    """The relay's metrics; `registry` collects them for an exposition."""

    def __init__(self) -> None:
        self.published = counter("published", "Records acknowledged by Kafka", "topic")
        self.delay = Histogram(
            "fnm_bus_delay_seconds",
            "Time from a notification on disk to Kafka's acknowledgement",
            buckets=_DELAYS,
            registry=None,
        )
        self.retried = counter(
            "retried",
            "Failed publications that are retried; a retry can create a duplicate"
            " with the same event_id",
            "topic",
            "error",
        )
        self.field_mismatches = counter(
            "field_mismatches",
            "Secondary fields of a wrong type or range; their values are in `extra`",
        )
        self.quarantined = counter(
            "quarantined", "Entries moved to the quarantine", "reason"
        )
        self.quarantine_full = gauge(
            "quarantine_full_entries",
            "Entries that wait because the quarantine is full",
        )
        self.io_blocked = gauge(
            "spool_io_blocked_entries",
            "Entries that cannot be read or removed because of a disk error",
        )
        self.disk_errors = counter(
            "disk_errors", "Failed disk operations; each is retried", "task"
        )
        self.truncated = counter(
            "truncated", "Events published without their packet samples", "topic"
        )
        self.status_updates_coalesced = counter(
            "status_updates_coalesced",
            "Status updates replaced by a newer one of the same attack",
        )
        self.fallback_entries = counter(
            "fallback_entries", "Entries that the hook stored in the fallback spool"
        )
        self.checks = counter(
            "checks", "Entries of `hook check`, removed and not published"
        )
        self.orphaned_entries = counter(
            "orphaned_entries",
            "Temporary files of hooks that died before they stored an entry",
        )
        self.foreign_files = counter(
            "foreign_files", "Files in the spool that are not entries, moved away"
        )
        self.spool_files = gauge("spool_files", "Entries on disk", "spool")
        self.spool_bytes = gauge("spool_bytes", "Size of the entries", "spool")
        self.oldest_age = gauge(
            "spool_oldest_age_seconds", "Age of the oldest entry on disk", "spool"
        )
        self.admission_level = gauge(
            "spool_admission_level",
            "Entries that the spool refuses: 0 none, 1 status updates, 2 all",
        )
        self.quarantine_files = gauge("quarantine_files", "Entries in the quarantine")
        self.in_flight = gauge(
            "in_flight", "Records that Kafka has not acknowledged yet", "topic"
        )
        self.topic_blocked = gauge(
            "topic_blocked", "1 while publishing pauses after a failure", "topic"
        )
