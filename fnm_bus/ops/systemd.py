"""Report the state of the service to systemd: ready, alive, stopping (sd_notify(3))."""

import os
import socket
from collections.abc import Mapping
from time import monotonic
from typing import Final

from fnm_bus.ops.log import get_logger

log = get_logger(__name__)

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


class Systemd:
    """The service manager; without one, all calls do nothing.

    Args:
        environment: the source of NOTIFY_SOCKET and WATCHDOG_USEC.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ means the abstract namespace's NUL byte (sd_notify(3)).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = environment.get("WATCHDOG_USEC", "")
        self.watchdog: float | None = int(usec) / 1e6 if usec.isdigit() else None
        """Seconds without a report until the manager restarts the service, or None."""
        self._alive_at = 0.0

    def notify(self, *states: str) -> None:
        """Send *states*, for instance READY or "STATUS=draining".

        An unreachable manager is logged and does not stop the service.
        """
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.sendto("\n".join(states).encode(), self._address)
        except OSError as exc:
            log.warning("systemd_notification_failed", error=exc)

    def alive(self) -> None:
        """Report that the service is alive, at the rate that the manager requests."""
        # A third of the time, so that one late message is not an alarm; sd_notify(3)
        # recommends half.
        now = monotonic()
        if self.watchdog is not None and now >= self._alive_at:
            self.notify("WATCHDOG=1")
            self._alive_at = now + self.watchdog / 3
