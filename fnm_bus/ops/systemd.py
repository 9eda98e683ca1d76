"""Tell systemd how the service is: ready, alive, stopping (sd_notify(3))."""

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
    """Speaks to the service manager, or to nobody when there is none.

    Args:
        environment: where NOTIFY_SOCKET and WATCHDOG_USEC are looked up.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the abstract namespace's NUL byte (sd_notify(3)).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = environment.get("WATCHDOG_USEC", "")
        self.watchdog: float | None = int(usec) / 1e6 if usec.isdigit() else None
        """Seconds after which silence counts as a hang, or None."""
        self._alive_at = 0.0

    def tell(self, *states: str) -> None:
        """Send *states*, for instance READY or "STATUS=draining".

        A manager that does not listen costs a line in the log, and not the service.
        """
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.sendto("\n".join(states).encode(), self._address)
        except OSError as exc:
            log.warning("systemd_notification_failed", error=exc)

    def alive(self) -> None:
        """Say that the service turns, as often as the manager wants to hear it."""
        # A third of the time, so that one late message is no alarm (sd_notify(3)
        # asks for half).
        now = monotonic()
        if self.watchdog is not None and now >= self._alive_at:
            self.tell("WATCHDOG=1")
            self._alive_at = now + self.watchdog / 3
