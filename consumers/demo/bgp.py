"""The BGP demo: a route appears in a neighbor's table, and is withdrawn.

Hook, relay, mitigator, ExaBGP with its enforcer, and BIRD as the neighbor are real.
Only the broker is librdkafka's mock cluster. Everything listens on loopback, needs no
root, and ends with this program. No child process gets the caller's configuration.
"""

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

from consumers.demo.policy_preview import POLICY
from consumers.settings import FullSettings
from fnm_bus.config import load
from fnm_bus.demo import environment, marker
from fnm_bus.demo.environment import DemoEnvironment, child_environment
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
_NETWORK: Final = "203.0.113.0/24"
_HOST: Final = "203.0.113.25"
_DETAILS: Final = (
    '"attack_details": {"attack_uuid": "demo", "total_incoming_pps": 3000000}'
)
_STEP_TIMEOUT: Final = 60.0


def show() -> Iterator[str]:
    """Start all programs, attack a host, end the attack; yield lines for a terminal.

    Raises:
        FnmBusError: BIRD or ExaBGP is missing, or a step took too long.
    """
    if shutil.which("bird") is None or shutil.which("birdc") is None:
        raise FnmBusError("BIRD 2 is missing: apt-get install bird2")
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fnm-")))
        demo = stack.enter_context(environment.start(root))
        port = _free_port()
        (root / "bird.conf").write_text(_BIRD.format(port=port))
        control = root / "bird.ctl"
        bird = ["bird", "-f", "-c", str(root / "bird.conf"), "-s", str(control)]
        variables = _variables(demo, port)
        stack.enter_context(_run_process(bird, root / "bird.log", variables))
        for name, ready in (
            ("mitigator", "active mitigations="),
            ("exabgp", "neighbor_up"),
        ):
            command = [sys.executable, "-m", "consumers", name]
            log = root / f"{name}.log"
            stack.enter_context(_run_process(command, log, variables))
            _wait_until(partial(_has_logged, log, ready), name, log)
            yield f"{name:<10} is running"
        yield from _run_attack(demo, control)


def _variables(demo: DemoEnvironment, port: int) -> dict[str, str]:
    """Return the environment of the consumers.

    Raises:
        ConfigError: the environment selects another broker than the demo's.
    """
    variables = child_environment(
        {
            "FNM_BUS_CONFIG": str(demo.config),
            "FNM_BUS_DRY_RUN": "false",
            "FNM_BUS_CONSUMERS__MITIGATOR__POLICY": str(POLICY),
            "FNM_BUS_CONSUMERS__ENFORCER__OWN_NETWORKS": _NETWORK,
            "FNM_BUS_CONSUMERS__EXABGP__PORT": str(port),
            "FNM_BUS_CONSUMERS__EXABGP__SNAPSHOT": str(demo.directory / "exabgp.json"),
        }
    )
    settings = load.load_as(FullSettings, demo.config, variables).settings
    bootstrap = settings.kafka.get("bootstrap.servers")
    marker.require_broker(settings.spool.directory, bootstrap)
    return variables


def _run_attack(demo: DemoEnvironment, control: Path) -> Iterator[str]:
    log = demo.directory / "mitigator.log"
    for action, expected, text in (
        ("ban", True, "BIRD has the route"),
        ("unban", False, "BIRD has no route"),
    ):
        yield ""
        yield f"FastNetMon calls the hook: {action} {_HOST}"
        document = f'{{"ip": "{_HOST}", "action": "{action}", {_DETAILS}}}'
        command = [str(demo.hook), action, _HOST]
        called_at = time.monotonic()
        subprocess.run(  # noqa: S603 - ours
            command, input=document.encode(), env={}, cwd="/", check=True
        )
        stored_at = time.monotonic()
        _wait_until(partial(_has_route_state, control, expected), "BIRD", log)
        changed_at = time.monotonic()
        yield f"  {'the spool has the event':<24} {_ms(stored_at - called_at)}"
        yield f"  {text:<24} {_ms(changed_at - called_at)}"
        yield "  birdc show route:"
        lines = _list_routes(control).expandtabs().splitlines()[1:8]
        yield from (f"    {line}" for line in lines)


def _ms(seconds: float) -> str:
    return f"after {seconds * 1000:6.0f} ms"


def _has_logged(log: Path, text: str) -> bool:
    return text in log.read_text(errors="replace")


def _has_route_state(control: Path, expected: bool) -> bool:  # noqa: FBT001 - used by `partial`
    return (_HOST in _list_routes(control)) is expected


def _list_routes(control: Path) -> str:
    command = ["birdc", "-s", str(control), "show", "route", "table", "master4", "all"]
    done = subprocess.run(  # noqa: S603 - BIRD's own client
        command, capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout


@contextmanager
def _run_process(
    command: list[str], log: Path, variables: Mapping[str, str]
) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - ours, and BIRD
            command,
            cwd=log.parent,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
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


def _wait_until(condition: Callable[[], bool], program: str, log: Path) -> None:
    end = time.monotonic() + _STEP_TIMEOUT
    while not condition():
        if time.monotonic() > end:
            tail = log.read_text(errors="replace")[-2000:]
            raise FnmBusError(
                f"{program}: no result within {_STEP_TIMEOUT:.0f} s\n{tail}"
            )
        time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        return int(probe.getsockname()[1])
