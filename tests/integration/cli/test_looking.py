"""Commands that only read change no topic, no offset, no file and no producer."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.consumer_processes import ConsumerProcesses, policy
from support.fetch import Unavailable
from support.kafka import Cluster
from support.process import Server, wait_until
from support.registry import subjects
from support.relay_processes import RelayProcesses, ban
from support.state_snapshot import file_state, kafka_state
from typer.main import get_command

from fnm_bus.cli import app
from fnm_bus.spool.limits import AdmissionLevel

CI = os.environ.get("CI", "").lower() in {"1", "true"}
HOST = "203.0.113.7"
KEY = f"blackhole|{HOST}/32"
BAN = ban(HOST, total_incoming_pps=5_000_000)
INVALID = b'{"action":"ban","ip":7}'

LOOKING = {
    "fnm-bus parse": ["parse"],
    "fnm-bus tail": ["tail", "--from-beginning", "--until-end"],
    "fnm-bus topics acls": ["topics", "acls", "--principal", "relay=User:relay"],
    "fnm-bus topics list": ["topics", "list"],
    "fnm-bus schemas check": ["schemas", "check"],
    "fnm-bus schemas ddl": ["schemas", "ddl", "flink"],
    "fnm-bus schemas list": ["schemas", "list"],
    "fnm-bus schemas show": ["schemas", "show", "HostEvent"],
    "fnm-bus spool status": ["spool", "status", "--entries"],
    "fnm-bus spool show": ["spool", "show", "WAITING"],
    "fnm-bus quarantine list": ["quarantine", "list"],
    "fnm-bus quarantine show": ["quarantine", "show", "NAME"],
    "fnm-bus config show": ["config", "show"],
    "fnm-bus check": ["check"],
    "fnm-bus mitigations list": ["mitigations", "list", "--all"],
    "fnm-bus mitigations show": [
        "mitigations",
        "show",
        KEY,
    ],
    "fnm-bus explain": ["explain"],
    "fnm-bus-consumer check": ["check"],
    "fnm-bus policy check": ["policy", "check"],
    "fnm-bus policy example": ["policy", "example"],
    "fnm-bus-consumer demo": ["demo"],
}
"""Commands that are described as looking, with arguments."""

FURTHER = {
    "fnm-bus simulate": ["simulate", "--print"],
    "fnm-bus tail": ["tail", "no-such-topic", "--until-end"],
    "fnm-bus explain": ["explain", "--since", "1h"],
}
"""Other ways to look with these commands."""

STATUSES = {
    "schemas check": 78,  # no registry is configured
    "check": 1,  # no relay runs
    "demo": 78,
    "tail no-such-topic --until-end": 69,
}
"""Exit statuses of those that do not end with 0: the others must have looked."""

OWN_BROKER = {"fnm-bus demo", "fnm-bus demo-bgp"}
"""Commands that act on a broker and a spool of their own (`test_demo.py`)."""

ACTING = {
    "fnm-bus hook check",
    "fnm-bus hook install",
    "fnm-bus notify",
    "fnm-bus relay",
    "fnm-bus drain",
    "fnm-bus init",
    "fnm-bus schemas register",
    "fnm-bus simulate",
    "fnm-bus quarantine delete",
    "fnm-bus quarantine release",
    "fnm-bus topics create",
    "fnm-bus-consumer exabgp",
    "fnm-bus-consumer jsonlines",
    "fnm-bus mitigations add",
    "fnm-bus mitigations approve",
    "fnm-bus mitigations reject",
    "fnm-bus mitigations withdraw",
    "fnm-bus mitigations pause",
    "fnm-bus mitigations resume",
    "fnm-bus-consumer mitigator",
    "fnm-bus-consumer nftables",
    "fnm-bus-consumer notifier",
}

HOSTILE = {
    "allow.auto.create.topics": "true",
    "enable.auto.commit": "true",
    "auto.commit.interval.ms": "50",
    "group.id": "somebody-elses-group",
    "transactional.id": "somebody-elses-id",
}
"""Settings of [kafka] with which librdkafka would change something by itself."""


class Creating(Cluster):
    """A Kafka that makes a topic when a client asks for it, as is its default."""

    def _properties(self, number: int) -> str:
        return super()._properties(number) + "auto.create.topics.enable=true\n"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka of its own, so that no other test changes its state."""
    cluster = Creating(tmp_path_factory.mktemp("untouched"), nodes=1)
    try:
        cluster.open()
        yield cluster.bootstrap
    except Unavailable as exc:
        (pytest.fail if CI else pytest.skip)(str(exc))
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def looked_at(
    tmp_path_factory: pytest.TempPathFactory, untouched: str
) -> tuple[RelayProcesses, str]:
    """Relays with events, a mitigation and a quarantined document; its name."""
    relays = RelayProcesses(tmp_path_factory.mktemp("looked-at"), untouched)
    services = ConsumerProcesses(relays, policy())
    relays.succeed("topics", "create")
    mitigator = services.start("mitigator")
    services.tell("ban", HOST)
    relays.until(lambda: KEY in services.state())
    leave(mitigator)
    name = relays.call(INVALID)
    relays.succeed("drain")
    relays.call(BAN)
    table = f'[consumers.mitigator]\npolicy = "{services.policy}"'
    relays.configure(table, **HOSTILE)
    return relays, name


def leave(server: Server) -> None:
    """End a consumer so that it leaves its group: nothing changes later."""
    os.kill(server.pid, signal.SIGTERM)
    wait_until(lambda: not server.alive, 30, "the consumer's end")


def leaves(name: str, command: Any) -> Iterator[str]:
    """Yield the full names of all commands below one."""
    if not hasattr(command, "commands"):
        yield name
        return
    for word in command.list_commands(None):
        below = f"{name} {word}".replace("fnm-bus consumer", "fnm-bus-consumer")
        yield from leaves(below, command.commands[word])


def run(
    relays: RelayProcesses, program: str, *arguments: str, stdin: bytes = BAN
) -> subprocess.CompletedProcess[bytes]:
    """Run a command; everything that it could write to is in the relays' directory."""
    module = {"fnm-bus": "fnm_bus", "fnm-bus-consumer": "consumers"}[program]
    places = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME")
    environment = {
        **os.environ,
        **dict.fromkeys(places, str(relays.root)),
        "FNM_BUS_CONFIG": str(relays.config),
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), *sys.path]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=stdin,
        env=environment,
        cwd=relays.root,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_every_command_either_looks_or_acts() -> None:
    assert set(leaves("fnm-bus", get_command(app))) == {*LOOKING, *OWN_BROKER, *ACTING}
    assert not {*LOOKING, *OWN_BROKER} & ACTING


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("name", "arguments"),
    [*LOOKING.items(), *FURTHER.items()],
    ids=lambda value: "" if isinstance(value, list) else value,
)
def test_a_looking_command_changes_nothing(
    looked_at: tuple[RelayProcesses, str], name: str, arguments: list[str]
) -> None:
    relays, entry = looked_at
    [waiting] = relays.spool.scan()
    names = {"NAME": entry, "WAITING": waiting}
    words = [names.get(word, word) for word in arguments]
    kafka, files = kafka_state(relays.bootstrap), file_state(relays.root)
    done = run(relays, name.split(maxsplit=1)[0], *words)
    assert b"Traceback" not in done.stderr
    assert done.returncode == STATUSES.get(" ".join(arguments), 0), done.stderr
    assert kafka_state(relays.bootstrap) == kafka
    assert file_state(relays.root) == files


@pytest.mark.kafka
def test_looking_commands_make_no_topic(tmp_path: Path, untouched: str) -> None:
    relays = RelayProcesses(tmp_path, untouched)
    relays.configure(**HOSTILE)
    kafka, files = kafka_state(untouched), file_state(tmp_path)
    commands = [*LOOKING.items(), *FURTHER.items()]
    with ThreadPoolExecutor(4) as pool:  # most of them wait for the absent topics
        ended = pool.map(
            lambda item: run(relays, item[0].split()[0], *item[1]), commands
        )
        for (name, _arguments), done in zip(commands, ended, strict=True):
            assert b"Traceback" not in done.stderr, name
    assert kafka_state(untouched) == kafka
    assert file_state(tmp_path) == files


@pytest.mark.kafka
def test_the_demo_does_not_replace_the_active_mitigator(
    tmp_path: Path, untouched: str
) -> None:
    relays = RelayProcesses(tmp_path, untouched)
    services = ConsumerProcesses(relays, policy())
    relays.succeed("topics", "create")
    try:
        mitigator = services.start("mitigator")
        services.tell("ban", HOST)
        relays.until(lambda: KEY in services.state())
        done = run(relays, "fnm-bus-consumer", "demo")
        assert done.returncode == 78, done.stdout
        assert b"not made by a demo" in done.stderr
        [mitigation] = services.state().values()
        assert mitigation.state == "wanted"
        services.tell("ban", "203.0.113.8")  # the mitigator still decides
        relays.until(lambda: "blackhole|203.0.113.8/32" in services.state())
        leave(mitigator)
    finally:
        services.stop()


@pytest.mark.registry
def test_looking_at_a_registry_changes_nothing(tmp_path: Path, registry: str) -> None:
    relays = RelayProcesses(tmp_path, "127.0.0.1:1")
    pins = tmp_path / "schema-ids.json"
    relays.configure("[registry]", f'url = "{registry}"', f'schema_ids_file = "{pins}"')
    for registered in (False, True):
        if registered:
            relays.succeed("schemas", "register")
        before, files = subjects(registry), file_state(tmp_path)
        for words in (["schemas", "check"], ["schemas", "list"], ["check"]):
            done = run(relays, "fnm-bus", *words)
            assert b"Traceback" not in done.stderr
            assert done.returncode == (1 if words == ["check"] else 0), done.stderr
        assert subjects(registry) == before
        assert file_state(tmp_path) == files
        assert bool(before) >= registered


def test_a_check_of_the_hook_leaves_nothing_behind(tmp_path: Path) -> None:
    relays = RelayProcesses(tmp_path, "127.0.0.1:1")
    hook = tmp_path / "hook"
    done = relays.run("hook", "install", str(hook), "--no-drain")
    assert done.returncode == 0, done.stderr
    for refusal in (AdmissionLevel.NOTHING, AdmissionLevel.ALL):
        relays.spool.refuse(refusal)
        files = set(file_state(tmp_path))
        done = run(relays, "fnm-bus", "hook", "check", str(hook))
        assert b"Traceback" not in done.stderr
        assert set(file_state(tmp_path)) == files
        assert relays.empty()
