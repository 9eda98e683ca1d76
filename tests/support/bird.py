"""BIRD as the BGP neighbor: without privileges, on loopback."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

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
_CI = os.environ.get("CI", "").lower() in {"1", "true"}
_TABLES = ("master4", "master6", "flowtab4", "flowtab6")
# 198.51.100.1/32      unreachable [exa 03:42:35.924 from 127.0.0.1] * (100) [AS64999i]
_ROUTE = re.compile(r"^(\S.*?) +(?:\w+ )?\[exa .*\]$")
_FIELD = re.compile(r"^\tBGP\.(\w+): (.*)$")


class Route(NamedTuple):
    """One route, as BIRD lists it.

    Attributes:
        net: a prefix, or the match of a rule: `flow4 { dst 192.0.2.1/32; }`.
        next_hop: "" for a rule.
        communities: standard and large ones, as `64500:666` or `64500:1:2`, sorted.
        extended: extended communities, as BIRD's text.
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
        address: its address for BGP.
        port: its port for BGP.
        control: the socket of birdc.
    """

    def __init__(self, root: Path) -> None:
        self.address = "127.0.0.2"
        self.port = free_port()
        self.control = root / "bird.ctl"
        self._conf = root / "bird.conf"
        self._root = root
        self._server: Server | None = None

    def open(self) -> None:
        """Configure and start BIRD.

        Raises:
            Unavailable: BIRD is not installed.
            RuntimeError: BIRD did not start; with the end of its log.
        """
        if shutil.which("birdc") is None:
            raise Unavailable("BIRD 2 (bird, birdc) is not installed")
        self._conf.write_text(_CONF.format(port=self.port))
        self.start()

    def start(self) -> None:
        """Start or restart BIRD, and wait until birdc answers."""
        program = shutil.which("bird") or "bird"
        files = ("-c", str(self._conf), "-s", str(self.control))
        # In the foreground, so that it ends with the tests.
        self._server = Server([program, "-f", *files], self._root / "bird.log")
        self._server.start()
        self._server.wait(self.control.exists)
        self._server.wait(lambda: "exa" in self.birdc("show protocols"))

    def close(self) -> None:
        """Kill BIRD; the neighbor only notices the closed connection."""
        if self._server is not None:
            self._server.kill()

    def birdc(self, command: str) -> str:
        result = subprocess.run(
            ["birdc", "-s", str(self.control), *command.split()],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return result.stdout

    @property
    def up(self) -> bool:
        return "Established" in self.birdc("show protocols exa")

    def wait_up(self, seconds: float = 60) -> None:
        wait_until(lambda: self.up, seconds, "the BGP session")

    def routes(self) -> dict[str, Route]:
        routes = [route for table in _TABLES for route in self._table(table)]
        return {route.net: route for route in routes}

    def wait_routes(self, *nets: str, seconds: float = 30) -> dict[str, Route]:
        """Wait until the tables have exactly the routes *nets*; return the routes."""
        wanted = set(nets)
        routes: dict[str, Route] = {}

        def has_routes() -> bool:
            routes.clear()
            routes.update(self.routes())
            return routes.keys() == wanted

        try:
            wait_until(has_routes, seconds, "routes")
        except TimeoutError as exc:
            exc.add_note(f"expected {sorted(wanted)[:9]}, got {sorted(routes)[:9]}")
            raise
        return routes

    def count(self) -> int:
        (total,) = re.findall(r"Total: (\d+) of", self.birdc("show route count"))
        return int(total)

    def _table(self, name: str) -> list[Route]:
        rows: list[tuple[str, dict[str, str]]] = []
        for line in self.birdc(f"show route table {name} all").splitlines():
            if route := _ROUTE.match(line):
                rows.append((route[1], {}))
            elif field := _FIELD.match(line):
                rows[-1][1][field[1]] = field[2]
        return [_route(net, fields) for net, fields in rows]


def _route(net: str, fields: dict[str, str]) -> Route:
    text = f"{fields.get('community', '')} {fields.get('large_community', '')}"
    tuples = re.findall(r"\(([\d, ]+)\)", text)
    communities = sorted(re.sub(r", ?", ":", values) for values in tuples)
    return Route(
        net,
        fields.get("next_hop", "").split(" ")[0],
        tuple(communities),
        fields.get("ext_community", ""),
    )


@contextmanager
def running_bird() -> Iterator[Bird]:
    """Run a BIRD; without one the test is skipped, and fails in CI."""
    # Not pytest's own directory: a socket's path has to be short.
    with TemporaryDirectory(prefix="fnm-") as root:
        bird = Bird(Path(root))
        try:
            bird.open()
        except Unavailable as exc:
            (pytest.fail if _CI else pytest.skip)(str(exc))
        else:
            yield bird
        finally:
            bird.close()
