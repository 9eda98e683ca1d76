"""The programs of consumers/samples, copied and run as a newcomer does."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bird import Bird, running_bird
from support.consumer_processes import ConsumerProcesses, policy
from support.process import Server, free_port, wait_until
from support.receiver import Answer, Receiver
from support.relay_processes import RelayProcesses

from consumers.enforcers.exabgp import conf_files, config

ROOT = Path(__file__).parents[3]
SAMPLES = sorted((ROOT / "consumers" / "samples").glob("[a-z]*.py"))
HOST, HOST6 = "203.0.113.7", "2001:db8:1::7"
OUTSIDE = "198.51.100.7"
SECONDS = 900.0
"""Seconds for which the sample announces a route."""
MAX_ROUTES = 100


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_short_enough_to_copy(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_names_the_better_program(path: Path) -> None:
    opening = path.read_text().split('"""')[1]
    assert re.search(r"`(jsonlines|exabgp|notifier)`.* do(es)? it better", opening)


def test_without_a_chat_address_the_program_ends_at_once() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "consumers/samples/post_bans.py"],
        env={name: text for name, text in os.environ.items() if "CHAT" not in name},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert b"KeyError: 'CHAT_WEBHOOK_URL'" in done.stderr


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


@pytest.fixture
def poster(
    kafka_relays: RelayProcesses, receiver: Receiver
) -> Iterator[ConsumerProcesses]:
    """Consumers beside a running copy of post_bans."""
    services = ConsumerProcesses(kafka_relays, policy())
    server = start(kafka_relays, "post_bans", CHAT_WEBHOOK_URL=receiver.url)
    yield services
    server.kill()


def start(relays: RelayProcesses, sample: str, **environment: str) -> Server:
    """Start a copy of a sample, away from the checkout."""
    server = Server(
        [sys.executable, str(copy(relays, sample))],
        relays.root / f"{sample}.log",
        {"FNM_BUS_CONFIG": str(relays.config), **environment},
    )
    server.start()
    return server


def copy(relays: RelayProcesses, sample: str) -> Path:
    path = relays.root / f"my_{sample}.py"
    path.write_text((ROOT / f"consumers/samples/{sample}.py").read_text())
    return path


def test_a_message_is_posted_for_each_ban(
    poster: ConsumerProcesses, receiver: Receiver
) -> None:
    poster.tell("ban", HOST, total_incoming_pps=123456)
    poster.tell("unban", HOST)
    poster.tell("ban", HOST, total_incoming_pps=5)
    assert [json.loads(request.body) for request in receiver.wait_for(2)] == [
        {"text": f"FastNetMon banned {HOST} (123,456 packets/s)"},
        {"text": f"FastNetMon banned {HOST} (5 packets/s)"},
    ]


def test_a_message_is_posted_again_when_the_chat_was_busy(
    poster: ConsumerProcesses, receiver: Receiver
) -> None:
    receiver.answers += [Answer(503), Answer(429)]
    poster.tell("ban", HOST)
    assert len({request.body for request in receiver.wait_for(3)}) == 1


def test_an_old_ban_is_not_posted(
    poster: ConsumerProcesses, receiver: Receiver
) -> None:
    poster.tell("ban", HOST, age=7200, total_incoming_pps=1)
    poster.tell("ban", HOST, total_incoming_pps=2)
    (request,) = receiver.wait_for(1)
    assert b"(2 packets/s)" in request.body


def test_a_refused_message_is_a_dead_letter_without_the_address(
    poster: ConsumerProcesses, receiver: Receiver
) -> None:
    receiver.answers += [Answer(403)] * 5
    poster.tell("ban", HOST)
    letters: list[object] = []

    def buried() -> bool:
        letters[:] = poster.records("deadletter")
        return bool(letters)

    poster.until(buried, 60, "a dead letter")
    assert "chat: status 403" in repr(letters)
    assert "s3cr3t-path" not in repr(letters) + poster.said()


class Speaker:
    """ExaBGP with the sample as its process, and BIRD as its neighbor."""

    def __init__(self, relays: RelayProcesses, bird: Bird) -> None:
        self.bird = bird
        self.services = ConsumerProcesses(relays, policy())
        self._log = relays.root / "exabgp.log"
        self._pid = relays.root / "pid"
        conf = relays.root / "exabgp.conf"
        env = relays.root / "exabgp.env"
        env.write_text(conf_files.env_text(config._current_user()))
        # The shell leaves its number and becomes the sample.
        run = relays.root / "run.sh"
        run.write_text(
            f"#!/bin/sh\necho $$ > {self._pid}\n"
            f"exec {sys.executable} {copy(relays, 'blackhole_bans')}\n"
        )
        run.chmod(0o755)
        text = readme_conf()
        for old, new in {
            "/usr/bin/env FNM_BUS_CONFIG=/etc/fnm-bus/fnm-bus.toml"
            " /opt/fnm-bus/bin/python /etc/exabgp/blackhole_bans.py": str(run),
            "192.0.2.254": bird.address,
            "192.0.2.253": "127.0.0.1",
            "peer-as 64500;": f"peer-as 64500; connect {bird.port};",
        }.items():
            assert old in text
            text = text.replace(old, new)
        conf.write_text(text)
        program = Path(sys.executable).with_name("exabgp")
        self._server = Server(
            [str(program), "--env-file", str(env), "server", str(conf)],
            self._log,
            {
                "FNM_BUS_CONFIG": str(relays.config),
                "exabgp.tcp.port": str(free_port()),
            },
        )

    def start(self) -> None:
        self._server.start()
        self.bird.wait_up()
        self._server.wait(lambda: "serving address" in self.said(), 60)

    @property
    def pid(self) -> int:
        return int(self._pid.read_text())

    @property
    def process_id(self) -> int:
        return self._server.pid

    def said(self) -> str:
        return self._server.output()

    def wait_routes(self, *nets: str, seconds: float = 30) -> None:
        try:
            self.bird.wait_routes(*nets, seconds=seconds)
        except TimeoutError as exc:
            raise AssertionError(f"{exc}\n{self.said()}") from exc

    def close(self) -> None:
        self._server.kill()


@pytest.fixture
def bird() -> Iterator[Bird]:
    with running_bird() as bird:
        yield bird


@pytest.fixture
def speaker(kafka_relays: RelayProcesses, bird: Bird) -> Iterator[Speaker]:
    pytest.importorskip("exabgp")
    started = Speaker(kafka_relays, bird)
    try:
        started.start()
        yield started
    finally:
        started.close()


def readme_conf() -> str:
    text = (ROOT / "consumers" / "README.md").read_text()
    [block] = re.findall(r"```exabgp\n(.*?)```", text, re.DOTALL)
    return str(block)


def test_a_blackhole_is_announced_until_the_unban(speaker: Speaker) -> None:
    speaker.services.tell("ban", HOST, HOST6)
    speaker.wait_routes(f"{HOST}/32", f"{HOST6}/128")
    routes = speaker.bird.routes()
    assert routes[f"{HOST}/32"].next_hop == "192.0.2.1"
    assert routes[f"{HOST6}/128"].next_hop == "100::1"
    assert routes[f"{HOST}/32"].communities == ("65535:65281", "65535:666")
    speaker.services.tell("unban", HOST)
    speaker.wait_routes(f"{HOST6}/128")


def test_a_blackhole_without_an_unban_ends(speaker: Speaker) -> None:
    speaker.services.tell("ban", HOST, age=SECONDS - 8)
    speaker.wait_routes(f"{HOST}/32")
    speaker.wait_routes(seconds=20)


def test_an_old_or_foreign_ban_is_not_announced(speaker: Speaker) -> None:
    speaker.services.tell("ban", HOST, age=SECONDS + 1)
    speaker.services.tell("ban", OUTSIDE)
    wait_until(lambda: f"{OUTSIDE}: not announced" in speaker.said(), 30, "a warning")
    speaker.services.tell("ban", HOST6)
    speaker.wait_routes(f"{HOST6}/128")


def test_no_more_routes_than_the_maximum_are_announced(speaker: Speaker) -> None:
    speaker.services.tell("ban", *(f"203.0.113.{number}" for number in range(1, 121)))
    wait_until(lambda: speaker.said().count(": not announced") == 20, 60, "20 warnings")
    wait_until(lambda: speaker.bird.count() == MAX_ROUTES, 30, "routes")


def test_a_killed_process_comes_back_without_its_routes(speaker: Speaker) -> None:
    speaker.services.tell("ban", HOST)
    speaker.wait_routes(f"{HOST}/32")
    before = speaker.pid
    os.kill(before, 9)
    wait_until(lambda: speaker.pid != before, 20, "another process")
    speaker.wait_routes()


def test_the_process_ends_with_exabgp(speaker: Speaker) -> None:
    pid = speaker.pid
    os.kill(speaker.process_id, 9)
    wait_until(lambda: not runs(pid), 30, "the end of the sample")


def runs(pid: int) -> bool:
    try:
        return f"{pid} (" in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
