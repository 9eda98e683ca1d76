"""The notifier's metrics."""

from fnm_bus.consume.metrics import ConsumeMetrics
from fnm_bus.ops.metrics import counter


class NotifierMetrics(ConsumeMetrics):
    """The metrics of the loop, of skipped records and of notices."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = counter(
            "notifier_skipped",
            "Invalid records, and updates without a notice, that were skipped",
            "reason",
        )
        self.notices = counter(
            "notifier_notices",
            "Notices by sink and result: sent or dropped",
            "sink",
            "result",
        )
