"""The notifier's metrics."""

from dataclasses import dataclass, field

from prometheus_client import Counter

from fnm_bus.consume.metrics import ConsumeMetrics
from fnm_bus.ops.metrics import counter


def _skipped() -> Counter:
    text = "Invalid records, and updates without a notice, that were skipped"
    return counter("notifier_skipped", text, "reason")


def _notices() -> Counter:
    text = "Notices by sink and result: sent or dropped"
    return counter("notifier_notices", text, "sink", "result")


@dataclass(frozen=True)
class NotifierMetrics(ConsumeMetrics):
    """The metrics of the loop, of skipped records and of notices."""

    skipped: Counter = field(default_factory=_skipped)
    notices: Counter = field(default_factory=_notices)
