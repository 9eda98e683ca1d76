"""Sinks: where notices go. A sink sends one notice once, or raises."""

from typing import NamedTuple, Protocol

from consumers.notifier.document import Notice
from fnm_bus.errors import FnmBusError
from fnm_bus.ops.log import get_logger

log = get_logger(__name__)


class NoticeRefused(FnmBusError):
    """The receiver will never accept this notice."""

    exit_code = 65


class SinkUnavailable(FnmBusError):
    """The receiver did not accept a notice; it may accept it later.

    Attributes:
        retry_after: seconds that the receiver requests, or None.
    """

    exit_code = 69
    retryable = True

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(text)


class OutgoingNotice(NamedTuple):
    """A notice to send.

    Attributes:
        ends_at: end of the storm's last lease, in seconds since boot.
    """

    notice: Notice
    body: bytes
    ends_at: float


class NoticeSink(Protocol):
    """A receiver of notices.

    Attributes:
        name: for the log; contains no secret.
        renews: whether the receiver forgets a storm that is not renewed.
    """

    name: str
    renews: bool

    def send(self, outgoing: OutgoingNotice) -> None:
        """Send one notice, and wait for the answer.

        Raises:
            SinkUnavailable: it may be accepted later.
            NoticeRefused: it will never be accepted.
        """


class LogSink:
    """Logs notices instead of sending them: the dry run."""

    name = "log"
    renews = False

    def send(self, outgoing: OutgoingNotice) -> None:
        """Log one notice."""
        log.info("notice_not_sent", reason="dry run", body=outgoing.body.decode())
