"""The output of each command on a terminal, with hostile text in every value."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from confluent_kafka import Producer
from support.relay_processes import RelayProcesses

from fnm_bus.event import HostEvent, Receipt

EVIL = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eforged\u2066\u200e"
    "\x85line\u2028line\r\nfnm-bus:"
)
COLORS = re.compile(r"\x1b\[\d+(;\d+)*m")
"""The program's own, on a terminal."""
DOCUMENT = json.dumps(
    {
        "ip": "192.0.2.1",
        "action": "ban\u202e",
        "alert_scope": "host",
        "attack_details": {
            "attack_uuid": EVIL,
            "attack_severity": EVIL,
            "host_group": EVIL,
            "total_incoming_pps": EVIL,
        },
        EVIL: {EVIL: EVIL},
    },
    ensure_ascii=False,
).encode()
INVALID = b'{"action": "ban", "ip": "' + EVIL.encode() + b'"}\n{"two": "\x9b"}\n'


def on_terminal(relays: RelayProcesses, *arguments: str, stdin: bytes = b"") -> str:
    """Return the output of a command on a terminal, with line feeds as line ends."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "fnm_bus", *arguments],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "FNM_BUS_CONFIG": str(relays.config)},
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        with process.stdin as pipe, suppress(BrokenPipeError):
            pipe.write(stdin)
        parts = []
        with suppress(OSError):  # EIO: the other side is closed
            while part := os.read(ours, 65536):
                parts.append(part)
        os.close(ours)
    return b"".join(parts).decode().replace("\r\n", "\n")


def check(printed: str, *, shown: str = "forged") -> None:
    """Make sure that nothing but our own colours steers the terminal."""
    lines = COLORS.sub("", printed).split("\n")
    assert [line for line in lines if not line.isprintable()] == []
    assert shown in printed  # the words were printed at all
    assert not any(line.startswith("fnm-bus:\\") for line in lines)


@pytest.fixture
def evil(relays: RelayProcesses) -> RelayProcesses:
    """Relays and a spool with hostile records on its topics and in its quarantine."""
    receipt = Receipt(event_id=EVIL, received_at=datetime.now(UTC), sensor=EVIL)
    event = HostEvent(receipt=receipt, action=EVIL, ip=EVIL)
    topic = relays.topic("host")
    producer = Producer({"bootstrap.servers": relays.bootstrap})
    for value in (relays.codec.encode(event, topic), EVIL.encode()):
        headers = [("ce_id", EVIL.encode())]
        producer.produce(topic, value, EVIL.encode(), headers=headers)
    for kind in ("deadletter", "hostgroup", "status"):
        producer.produce(relays.topic(kind), None)  # creates it
    assert producer.flush(10) == 0
    return relays


@pytest.mark.parametrize("options", [(), ("--json",)], ids=str)
@pytest.mark.parametrize("document", [DOCUMENT, INVALID], ids=["valid", "invalid"])
def test_parse(relays: RelayProcesses, document: bytes, options: Sequence[str]) -> None:
    arguments = ("parse", *options, EVIL)
    check(on_terminal(relays, *arguments, stdin=document), shown="owned")


@pytest.mark.parametrize("options", [(), ("--json",)], ids=str)
def test_tail(evil: RelayProcesses, options: Sequence[str]) -> None:
    arguments = (
        "tail",
        evil.topic("host"),
        "--from-beginning",
        "--until-end",
        *options,
    )
    check(on_terminal(evil, *arguments))


@pytest.mark.parametrize("command", ["list", "show"])
@pytest.mark.parametrize("options", [(), ("--json",)], ids=str)
def test_quarantine(evil: RelayProcesses, command: str, options: Sequence[str]) -> None:
    name = evil.call(INVALID, (EVIL,))
    assert evil.run("drain").returncode == 0
    named = [name] if command == "show" else []
    arguments = ("quarantine", command, *named, *options)
    check(on_terminal(evil, *arguments), shown="ip" if command == "list" else "forged")


def test_a_document_is_raw_in_a_pipe(evil: RelayProcesses) -> None:
    name = evil.call(INVALID)
    assert evil.run("drain").returncode == 0
    assert evil.run("quarantine", "show", name).stdout == INVALID


def test_the_log_of_the_relay(evil: RelayProcesses) -> None:
    evil.call(INVALID, (EVIL,))
    evil.call(DOCUMENT, (EVIL,))
    printed = on_terminal(evil, "drain")
    check(printed, shown="quarantine")


@pytest.mark.parametrize(
    "arguments",
    [
        ("quarantine", "show", EVIL),
        ("quarantine", "release", EVIL),
        ("tail", EVIL, "--until-end"),
        ("parse", "--config", EVIL),
        (EVIL,),
        ("tail", f"--{EVIL}"),
    ],
    ids=lambda words: words[0][:5] + str(len(words)),
)
def test_errors(evil: RelayProcesses, arguments: Sequence[str]) -> None:
    printed = on_terminal(evil, *arguments)
    lines = COLORS.sub("", printed).split("\n")
    assert [line for line in lines if not line.isprintable()] == []
    assert "forged" in printed


def test_a_traceback() -> None:
    program = (
        "from fnm_bus import cli; import fnm_bus.config.load as config\n"
        f"def load(_file): raise RuntimeError({EVIL!r})\n"
        "config.load = load; cli.main()"
    )
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", program, "config", "show"],
        stderr=theirs,
        stdout=theirs,
        check=False,
    )
    os.close(theirs)
    printed = os.read(ours, 65536).decode().replace("\r\n", "\n")
    os.close(ours)
    assert [line for line in printed.split("\n") if not line.isprintable()] == []
    assert "forged" in printed


def test_explain(relays: RelayProcesses) -> None:
    (relays.root / "policy.toml").write_text(
        'own_networks = ["192.0.2.0/24"]\n[[rule]]\nname = "all"\n'
        'then = { action = "blackhole" }\n'
    )
    relays.configure("[consumers.mitigator]", f'policy = "{relays.root}/policy.toml"')
    document = DOCUMENT.replace("ban\u202e".encode(), b"ban")
    for options in ((), ("--json",)):
        arguments = ("explain", "--offline", *options)
        printed = on_terminal(relays, *arguments, stdin=document)
        check(printed, shown="192.0.2.1" if not options else "decisions")


def test_colors_are_for_terminals(relays: RelayProcesses) -> None:
    relays.call(DOCUMENT.replace("ban\u202e".encode(), b"ban"))
    relays.succeed("drain")
    arguments = ("tail", relays.topic("host"), "--from-beginning", "--until-end")
    assert "\x1b[31mban\x1b[0m" in on_terminal(relays, *arguments)
    assert b"\x1b" not in relays.run(*arguments).stdout
