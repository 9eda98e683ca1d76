"""A real Alertmanager as a process: Debian's prometheus-alertmanager."""

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from support.fetch import Unavailable
from support.process import Server, accepts, free_port
from support.receiver import Receiver

_CONFIG = """
route:
  receiver: receiver
  group_by: [alertname]
  group_wait: 1s
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: receiver
    webhook_configs: [{{url: "{url}", send_resolved: true}}]
"""


class Alertmanager:
    """Groups by alert name, and sends each group to *receiver*.

    Raises:
        Unavailable: it is not installed.
    """

    def __init__(self, root: Path, receiver: Receiver) -> None:
        program = shutil.which("prometheus-alertmanager")
        if program is None:
            raise Unavailable("prometheus-alertmanager is not installed")
        (root / "alertmanager.yml").write_text(_CONFIG.format(url=receiver.url))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = Server(
            [
                program,
                f"--config.file={root}/alertmanager.yml",
                f"--storage.path={root}/alertmanager",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--cluster.listen-address=",
            ],
            root / "alertmanager.log",
        )

    def start(self) -> None:
        self._server.start()
        self._server.wait(lambda: accepts(self.port))

    def kill(self) -> None:
        self._server.kill()

    def groups(self) -> list[dict[str, Any]]:
        """Return the groups of active alerts."""
        with urlopen(f"{self.url}/api/v2/alerts/groups", timeout=10) as answer:
            groups: list[dict[str, Any]] = json.load(answer)
            return groups
