"""BIRD: a BGP neighbor that is not ExaBGP, without privileges, on loopback."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from support.fetch import Unavailable
from support.process import Server, free_port, wait_until

_CONF = """\
router id 127.0.0.2;
flow4 table flowtab4; flow6 table flowtab6;
protocol device {{}}
protocol bgp exa {{
  local 127.0.0.2 port {port} as 64500; neighbor 127.0.0.1 as 64999;
  multihop; passive on; hold time 9; keepalive time 3; error wait time 1, 5;
  graceful restart off; long lived graceful restart off; interpret communities off;
  ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }};
  flow4 {{ table flowtab4; import all; export none; }};
  flow6 {{ table flowtab6; import all; export none; }};
}}
"""
_TABLES = ("master4", "master6", "flowtab4", "flowtab6")
# 198.51.100.1/32      unreachable [exa 03:42:35.924 from 127.0.0.1] * (100) [AS64999i]
_ROUTE = re.compile(r"^(\S.*?) +(?:\w+ )?\[exa .*\]$")
_FIELD = re.compile(r"^\tBGP\.(\w+): (.*)$")


class Route(NamedTuple):
    """One route, as BIRD shows it.

    Attributes:
        net: a prefix, or what a rule matches: `flow4 { dst 192.0.2.1/32; }`.
        next_hop: "" for a rule.
        communities: all but extended ones, as `64500:666` or `64500:1:2`, sorted.
        extended: extended communities, BIRD's text.
    """

    net: str
    next_hop: str
    communities: tuple[str, ...]
    extended: str


class Bird:
    """One BIRD with one neighbor.

    Args:
        root: a directory for its files, with a short path.

    Attributes:
        address: where it waits for the neighbor.
        port: likewise.
        control: the socket that birdc talks to.
    """

    def __init__(self, root: Path) -> None:
        self.address = "127.0.0.2"
        self.port = free_port()
        self.control = root / "bird.ctl"
        self._conf = root / "bird.conf"
        self._root = root
        self._server: Server | None = None

    def open(self) -> None:
        """Start it and wait until it answers.

        Raises:
            Unavailable: it is not installed.
            RuntimeError: it did not come up; with the end of its log.
        """
        if shutil.which("birdc") is None:
            raise Unavailable("BIRD 2 (bird, birdc) is not installed")
        self._conf.write_text(_CONF.format(port=self.port))
        self.start()

    def start(self) -> None:
        """Start it, again or for the first time."""
        program = shutil.which("bird") or "bird"
        files = ("-c", str(self._conf), "-s", str(self.control))
        # In the foreground, for it has to end with the tests.
        self._server = Server([program, "-f", *files], self._root / "bird.log")
        self._server.start()
        self._server.wait(self.control.exists)
        self._server.wait(lambda: "exa" in self.ask("show protocols"))

    def close(self) -> None:
        """End it at once; its neighbor only sees the connection break."""
        if self._server is not None:
            self._server.kill()

    def ask(self, command: str) -> str:
        """Return what birdc answers."""
        done = subprocess.run(
            ["birdc", "-s", str(self.control), *command.split()],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout

    @property
    def up(self) -> bool:
        """Whether the session is established."""
        return "Established" in self.ask("show protocols exa")

    def wait_up(self, seconds: float = 60) -> None:
        """Wait until the session is established."""
        wait_until(lambda: self.up, seconds, "the BGP session")

    def routes(self) -> dict[str, Route]:
        """Return all routes of all tables, by what they match."""
        found = [it for table in _TABLES for it in self._table(table)]
        return {it.net: it for it in found}

    def wait_routes(self, *nets: str, seconds: float = 30) -> dict[str, Route]:
        """Wait until exactly the routes *nets* stand, and return them."""
        wanted = set(nets)
        found: dict[str, Route] = {}

        def there() -> bool:
            found.clear()
            found.update(self.routes())
            return found.keys() == wanted

        try:
            wait_until(there, seconds, "routes")
        except TimeoutError as exc:
            exc.add_note(f"wanted {sorted(wanted)[:9]}, got {sorted(found)[:9]}")
            raise
        return found

    def count(self) -> int:
        """Return how many routes stand."""
        (found,) = re.findall(r"Total: (\d+) of", self.ask("show route count"))
        return int(found)

    def _table(self, name: str) -> list[Route]:
        found: list[tuple[str, dict[str, str]]] = []
        for line in self.ask(f"show route table {name} all").splitlines():
            if route := _ROUTE.match(line):
                found.append((route[1], {}))
            elif field := _FIELD.match(line):
                found[-1][1][field[1]] = field[2]
        return [_route(net, fields) for net, fields in found]


def _route(net: str, fields: dict[str, str]) -> Route:
    text = f"{fields.get('community', '')} {fields.get('large_community', '')}"
    communities = (re.sub(r", ?", ":", it) for it in re.findall(r"\(([\d, ]+)\)", text))
    return Route(
        net,
        fields.get("next_hop", "").split(" ")[0],
        tuple(sorted(communities)),
        fields.get("ext_community", ""),
    )
