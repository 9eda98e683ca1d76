"""The BGP demo: a route appears in a neighbor's table, and goes.

Real parts: the installed hook, a relay, the mitigator, ExaBGP with its enforcer, and
BIRD as the neighbor. Only the broker is librdkafka's mock cluster. Everything listens
on loopback, needs no root, and ends with this program.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from consumers.demo import POLICY
from fnm_bus.demo import Stage, stage
from fnm_bus.errors import FnmBusError

_BIRD: Final = """\
router id 127.0.0.2;
flow4 table flowtab4;
protocol device {{}}
protocol bgp fnm_bus {{
  local 127.0.0.2 port {port} as 64500; neighbor 127.0.0.1 as 64999;
  multihop; passive on; hold time 9; error wait time 1, 5;
  ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }};
  flow4 {{ table flowtab4; import all; export none; }};
}}
"""
_HOST: Final = "203.0.113.25"
_DETAILS: Final = (
    '"attack_details": {"attack_uuid": "demo", "total_incoming_pps": 3000000}'
)
_WITHIN: Final = 60.0


def show() -> Iterator[str]:
    """Start everything, attack a host, end the attack; yield lines for a terminal.

    Raises:
        FnmBusError: BIRD or ExaBGP is missing, or a route did not come or go in time.
    """
    if shutil.which("bird") is None or shutil.which("birdc") is None:
        raise FnmBusError("BIRD 2 is missing: apt-get install bird2")
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fnm-")))
        it = stack.enter_context(stage(root))
        port = _free_port()
        (root / "bird.conf").write_text(_BIRD.format(port=port))
        control = root / "bird.ctl"
        bird = ["bird", "-f", "-c", str(root / "bird.conf"), "-s", str(control)]
        stack.enter_context(_running(bird, root / "bird.log", {}))
        environment = {
            "FNM_BUS_CONFIG": str(it.config),
            "FNM_BUS_DRY_RUN": "false",
            "FNM_BUS_CONSUMERS__MITIGATOR__POLICY": str(POLICY),
            "FNM_BUS_CONSUMERS__ENFORCER__OWN_NETWORKS": _HOST,
            "FNM_BUS_CONSUMERS__EXABGP__PORT": str(port),
            "FNM_BUS_CONSUMERS__EXABGP__SNAPSHOT": str(root / "exabgp.json"),
        }
        for name, ready in (("mitigator", "active:"), ("exabgp", "session")):
            command = [sys.executable, "-m", "consumers", name]
            log = root / f"{name}.log"
            stack.enter_context(_running(command, log, environment))
            _await(partial(_says, log, ready), name, log)
            yield f"{name:<10} runs"
        yield from _attack(it, control)


def _attack(it: Stage, control: Path) -> Iterator[str]:
    log = it.directory / "mitigator.log"
    for action, stands in (("ban", True), ("unban", False)):
        yield ""
        yield f"FastNetMon says: {action} {_HOST}"
        began = time.monotonic()
        document = f'{{"ip": "{_HOST}", "action": "{action}", {_DETAILS}}}'
        command = [str(it.hook), action, _HOST]
        subprocess.run(command, input=document.encode(), check=True)  # noqa: S603 - ours
        stored = time.monotonic()
        _await(partial(_stands, control, stands), "BIRD", log)
        ended = time.monotonic()
        yield f"  stored by the hook after  {(stored - began) * 1000:6.0f} ms"
        word = "stands" if stands else "is gone"
        yield f"  the route {word:<8} after  {(ended - began) * 1000:6.0f} ms"
        shown = _routes(control)
        yield "  birdc show route:"
        yield from (f"    {line}" for line in shown.splitlines()[1:8] or ["(none)"])


def _says(log: Path, text: str) -> bool:
    return text in log.read_text(errors="replace")


def _stands(control: Path, wanted: bool) -> bool:  # noqa: FBT001 - used by `partial`
    return (_HOST in _routes(control)) is wanted


def _routes(control: Path) -> str:
    command = ["birdc", "-s", str(control), "show", "route", "table", "master4", "all"]
    done = subprocess.run(  # noqa: S603 - BIRD's own client
        command, capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout


@contextmanager
def _running(
    command: list[str], log: Path, environment: Mapping[str, str]
) -> Iterator[None]:
    with log.open("wb") as said:
        process = subprocess.Popen(  # noqa: S603 - ours, and BIRD
            command,
            cwd=log.parent,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(true: Callable[[], bool], what: str, log: Path) -> None:
    end = time.monotonic() + _WITHIN
    while not true():
        if time.monotonic() > end:
            tail = log.read_text(errors="replace")[-2000:]
            raise FnmBusError(f"{what}: nothing within {_WITHIN:.0f} s\n{tail}")
        time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        return int(probe.getsockname()[1])
