"""The stack in containers, as a project of its own beside one that may run."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from consumers import reading
from consumers.mitigation.measure import BLACKHOLE
from consumers.mitigation.states import WANTED
from consumers.settings import FullSettings
from fnm_bus.event import Event
from support.process import free_port, wait_until

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = "fnm-bus-proof"
LABEL: Final = f"label=com.docker.compose.project={PROJECT}"
HOOK: Final = "/usr/local/bin/fnm-bus-hook"
_STORED: Final = re.compile(r"(\d+) notifications are in the spool")
_ROUTES: Final = """
for table in master4 master6
do birdc -s /run/bird/bird.ctl show route table "$table"
done
"""
_ROUTE: Final = re.compile(r"^(\S+/\d+)\s", re.MULTILINE)
_START: Final = 300.0
"""Seconds until everything is healthy, on a small machine."""


class Stack:
    """docker compose, for one project.

    Attributes:
        version: tag of the images.
        accepted: notifications that the hook took, in all attacks together.
    """

    def __init__(self) -> None:
        self.version = "proof"
        self.accepted = 0
        names = ("KAFKA_PORT", "REGISTRY_PORT", "RELAY_PORT", "PROMETHEUS_PORT")
        self._ports = {name: str(free_port()) for name in names}

    @property
    def environment(self) -> Mapping[str, str]:
        """The knobs: everything acts, and notices are sent after a second."""
        return {
            **os.environ,
            **self._ports,
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_ENV_FILES": "/dev/null",
            "FNM_BUS_VERSION": self.version,
            "FNM_BUS_DRY_RUN": "false",
            "FNM_BUS_NOTIFIER_GROUP_WAIT": "1",
        }

    @cached_property
    def prometheus(self) -> str:
        """Prometheus' address."""
        return f"http://127.0.0.1:{self._ports['PROMETHEUS_PORT']}"

    def compose(self, *words: str, given: str | None = None, check: bool = True) -> str:
        """Run docker compose; return what it prints on stdout.

        Raises:
            RuntimeError: it failed; with what it says on stderr.
        """
        done = self._compose(words, given)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}:\n{done.stderr[-3000:]}")
        return done.stdout

    def _compose(
        self, words: Sequence[str], given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return _run(["docker", "compose", *words], self.environment, given)

    def docker(self, *words: str) -> str:
        """Run docker; return what it prints.

        Raises:
            RuntimeError: it failed.
        """
        done = _run(["docker", *words])
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(words)}:\n{done.stderr}")
        return done.stdout

    def up(self, *words: str) -> float:
        """Start changed services; return the seconds until all are healthy."""
        began = time.monotonic()
        self.compose(*words, "up", "--detach", "--build", "--wait")
        return time.monotonic() - began

    def down(self) -> None:
        """Remove everything, data as well."""
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans")

    def left(self) -> list[str]:
        """Return the project's containers, volumes and networks."""
        return [
            f"{kind} {name}"
            for kind, words in (
                ("container", ("ps", "--all", "--format", "{{.Names}}")),
                ("volume", ("volume", "ls", "--format", "{{.Name}}")),
                ("network", ("network", "ls", "--format", "{{.Name}}")),
            )
            for name in self.docker(*words, "--filter", LABEL).split()
        ]

    def unused(self) -> set[str]:
        """Return the engine's volumes that no container uses."""
        return set(
            self.docker("volume", "ls", "-q", "--filter", "dangling=true").split()
        )

    def facts(self, service: str) -> dict[str, Any]:
        """Return the engine's facts of a service's container."""
        name = self.compose("ps", "--all", "--quiet", service).strip()
        return dict(json.loads(self.docker("inspect", name))[0])

    def inside(self, service: str, *command: str, given: str | None = None) -> str:
        """Run a command in a service's container; return what it prints."""
        return self.compose("exec", "-T", service, *command, given=given)

    def logs(self, *services: str, since: datetime | None = None) -> list[str]:
        """Return the lines of services' logs."""
        when = () if since is None else ("--since", since.isoformat())
        return self.compose("logs", "--no-log-prefix", *when, *services).splitlines()

    # -- topics, wanted mitigations, and the neighbor's table

    @cached_property
    def settings(self) -> FullSettings:
        """Settings with which a program of this machine reads the topics."""
        api = f"http://127.0.0.1:{self._ports['REGISTRY_PORT']}/apis/ccompat/v7"
        return FullSettings.model_validate(
            {
                "kafka": {
                    "bootstrap.servers": f"localhost:{self._ports['KAFKA_PORT']}"
                },
                "registry": {"url": api, "schema_ids_file": "/nonexistent"},
            }
        )

    def events(self) -> list[Event]:
        """Return all events on the event topics."""
        return list(reading.read_events(self.settings))

    def published(self) -> set[str]:
        """Return the event ids on the event topics."""
        return {event.receipt.event_id for event in self.events()}

    def wanted(self) -> set[str]:
        """Return the prefixes whose blackhole is wanted."""
        stored = reading.read_wanted_state(self.settings)
        if stored.unreadable:
            raise RuntimeError(f"cannot be decoded: {stored.unreadable}")
        return {
            record.prefix
            for record in stored.records()
            if record.kind == BLACKHOLE and record.state == WANTED and record.prefix
        }

    def routes(self) -> set[str]:
        """Return the prefixes in the neighbor's tables."""
        command = ("exec", "-T", "bird", "sh", "-c", _ROUTES)
        return set(_ROUTE.findall(self.compose(*command, check=False)))

    def settle(self, seconds: float, what: str) -> float:
        """Wait until the neighbor has the wanted routes; return the seconds."""
        began = time.monotonic()
        wait_until(lambda: self.routes() == self.wanted(), seconds, what)
        return time.monotonic() - began

    def changes(self, prefix: str) -> list[tuple[datetime, str]]:
        """Return the times of the neighbor's route from its log."""
        events = []
        for line in self.logs("bird"):
            if f" {prefix} " in line and "<TRACE>" in line:
                at = datetime.fromisoformat(line[:23]).replace(tzinfo=UTC)
                events.append((at, "added" if " > added " in line else "removed"))
        return events

    # -- attacks

    @contextmanager
    def attack(
        self, seed: int, hosts: int = 20, updates: int = 8, rate: int = 20
    ) -> Iterator[None]:
        """Play a made-up attack through the hook meanwhile, to its end.

        Raises:
            RuntimeError: a call of the hook failed.
        """
        words = ("--profile", "demo", "run", "--rm", "--no-deps", "-T", "simulate")
        command = ("fnm-bus", "simulate", "--yes-publish", "--hook", HOOK)
        plan = (
            f"--seed={seed}",
            f"--hosts={hosts}",
            f"--updates={updates}",
            f"--rate={rate}",
        )
        with subprocess.Popen(
            ["docker", "compose", *words, *command, *plan],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield
            finally:
                said, _ = process.communicate(timeout=_START)
                match = _STORED.search(said)
                self.accepted += int(match[1]) if match else 0
        if match is None or process.returncode:
            raise RuntimeError(f"simulate: {said}")

    # -- deaths

    def die(self, service: str, words: str) -> None:
        """Kill a program inside its container; what comes back does so by itself.

        Args:
            service: whose container.
            words: what the program's command line has in it.
        """
        command = ("exec", "-T", service, "python", "-c", _KILL, words)
        done = self._compose(command)
        # With a service's first program its container ends, and this call in it.
        if done.returncode not in {0, 128 + signal.SIGKILL}:
            raise RuntimeError(done.stderr)

    def kill(self, service: str) -> None:
        """Kill a container, and start it again."""
        self.compose("kill", "--signal", "KILL", service)
        self.compose("start", service)

    def healthy(self, service: str) -> bool:
        """Ask a service itself, or the engine where it has no /healthz."""
        if service in {"kafka", "registry", "bird"}:
            state = self.facts(service)["State"]
            return bool(state["Running"] and state["Health"]["Status"] == "healthy")
        check = ("python", "-IS", "/usr/local/lib/fnm-bus/healthy.py")
        return '"ok": true' in self.compose("exec", "-T", service, *check, check=False)


_KILL: Final = """
import os, signal, sys
me = os.getpid()
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) not in (1, me):
        with open(f"/proc/{name}/cmdline") as file:
            if sys.argv[1] in file.read().replace("\\0", " "):
                os.kill(int(name), signal.SIGKILL)
                break
else:
    sys.exit(f"nothing runs with {sys.argv[1]}")
"""


def _run(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    given: str | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        check=False,
        timeout=_START * 2,
    )
