"""A real FastNetMon, which gets attacks by IPFIX on loopback."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from support.fetch import Unavailable
from support.process import Server, free_port

_STACK: Final = Path(__file__).parents[2] / "docker/fastnetmon"
_CALL: Final = re.compile(
    r"Call script for (ban|unban|notify about attack details)(?: client| for)?: (\S+)"
)
_WORDS: Final = {"notify about attack details": "attack_details"}


class Called(NamedTuple):
    """A call in FastNetMon's log."""

    action: str
    address: str


class Detector:
    """FastNetMon Community, configured as in the stack but for what is said here.

    Args:
        root: a directory for everything.
        hook: what it is to call.
        ban_time: seconds of a ban.
    """

    def __init__(self, root: Path, hook: Path, ban_time: int = 4) -> None:
        self._log = root / "fastnetmon.log"
        self._port = free_port()
        self._conf = root / "fastnetmon.conf"
        networks = root / "networks_list"
        networks.write_text("203.0.113.0/24\n10.8.0.0/16\n2001:db8::/32\n")
        (root / "whitelist").touch()
        said = {
            "notify_script_path": hook,
            "netflow_host": "127.0.0.1",
            "netflow_port": self._port,
            "ban_time": ban_time,
            "networks_list_path": networks,
            "white_list_path": root / "whitelist",
            "cli_stats_file_path": root / "stats",
            "cli_stats_ipv6_file_path": root / "stats6",
            "prometheus": "off",
        }
        text = (_STACK / "fastnetmon.conf").read_text()
        kept = [line for line in text.splitlines() if line.split(" = ")[0] not in said]
        lines = [*kept, *(f"{name} = {value}" for name, value in said.items())]
        self._conf.write_text("\n".join([*lines, ""]))
        self._root = root

    def start(self) -> None:
        """Start it, and wait until it listens.

        Raises:
            Unavailable: it is not installed.
            RuntimeError: it ended, or does not listen.
        """
        program = shutil.which("fastnetmon")
        if program is None:
            raise Unavailable("FastNetMon is missing: apt-get install fastnetmon")
        command = [program, "--configuration_file", str(self._conf)]
        command += ["--log_file", str(self._log), "--disable_pid_logic"]
        self._server = Server(command, self._root / "fastnetmon.out")
        self._server.start()
        self._server.wait(lambda: "will listen on" in self.log())

    def stop(self) -> None:
        """Kill it."""
        self._server.kill()

    def log(self) -> str:
        """Return its log."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def calls(self) -> list[Called]:
        """Return the calls in its log."""
        return [
            Called(_WORDS.get(action, action), address)
            for action, address in _CALL.findall(self.log())
        ]

    def flood(self, first: Sequence[str], hosts: int, seconds: float) -> None:
        """Report an attack on hosts, from each of the addresses *first* on."""
        command = [sys.executable, str(_STACK / "flood.py")]
        command += [f"--to=127.0.0.1:{self._port}", f"--seconds={seconds}"]
        command += [f"--hosts={hosts}", *(f"--first={packet}" for packet in first)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
