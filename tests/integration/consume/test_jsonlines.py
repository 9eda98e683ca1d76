"""The program jsonlines, on a real Kafka."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.consumer_processes import ConsumerProcesses
from support.process import Server

pytestmark = pytest.mark.kafka


def configure(services: ConsumerProcesses, *lines: str) -> None:
    services.relays.configure(
        "[consumers.jsonlines]", f'group = "{services.relays.prefix}"', *lines
    )


def ids(text: str) -> list[str]:
    events = [json.loads(line)["event"] for line in text.splitlines()]
    return [event["receipt"]["event_id"] for event in events if "receipt" in event]


def bans(services: ConsumerProcesses, count: int) -> list[str]:
    return services.tell("ban", *(f"203.0.113.{number}" for number in range(count)))


def start_with_lines(services: ConsumerProcesses) -> tuple[Server, Path, list[str]]:
    """Start jsonlines; wait for 20 lines, and return its file and the events' ids."""
    path = services.relays.root / "events.jsonl"
    configure(services, f'path = "{path}"')
    server = services.start("jsonlines", ready="serving")
    sent = bans(services, 20)
    services.until(lambda: path.exists() and len(path.read_text().splitlines()) == 20)
    return server, path, sent


def test_after_a_kill_nothing_is_missing(services: ConsumerProcesses) -> None:
    first, path, sent = start_with_lines(services)
    first.kill()
    services.start("jsonlines", ready="serving")
    sent += bans(services, 20)
    services.until(lambda: set(sent) <= set(ids(path.read_text())))


def test_after_a_sigterm_each_event_is_stored_once(services: ConsumerProcesses) -> None:
    first, path, sent = start_with_lines(services)
    os.kill(first.pid, signal.SIGTERM)
    services.until(lambda: not first.alive)
    rotated = path.rename(path.with_suffix(".1"))
    services.start("jsonlines", ready="serving")
    more = bans(services, 20)
    services.until(lambda: path.exists() and len(path.read_text().splitlines()) == 20)
    assert sorted(ids(rotated.read_text())) == sorted(sent)
    assert sorted(ids(path.read_text())) == sorted(more)


@pytest.mark.parametrize(
    ("arguments", "start"), [((), "CEF:0|fnm-bus|"), (("--format", "ecs"), "{")]
)
def test_option_overrides_the_format_of_the_settings(
    services: ConsumerProcesses, arguments: tuple[str, ...], start: str
) -> None:
    path = services.relays.root / "events.log"
    configure(services, f'path = "{path}"', 'format = "cef"')
    services.start("jsonlines", *arguments, ready="serving")
    [event_id] = bans(services, 1)
    services.until(lambda: path.exists() and path.read_text().endswith("\n"))
    line = path.read_text()
    assert line.startswith(start)
    assert event_id in line


def test_a_full_disk_makes_lines_wait_and_no_dead_letters(
    services: ConsumerProcesses, small_disk: Path
) -> None:
    path, filler = small_disk / "events.jsonl", small_disk / "filler"
    configure(services, f'path = "{path}"')
    server = services.start("jsonlines", ready="serving")
    sent = bans(services, 1)
    services.until(lambda: path.exists() and ids(path.read_text()) == sent)
    filler.write_bytes(bytes(396 * 1024))
    sent += bans(services, 5)
    services.until(lambda: "No space left on device" in server.tail())
    complete, _, _partial = path.read_text().rpartition("\n")
    assert ids(complete) == sent[:1]
    filler.unlink()
    services.until(lambda: len(path.read_text().splitlines()) == len(sent))
    assert sorted(ids(path.read_text())) == sorted(sent)
    assert services.records("deadletter") == []


def test_stdout_gets_lines_and_without_a_reader_the_program_ends(
    services: ConsumerProcesses,
) -> None:
    configure(services)
    with subprocess.Popen(
        [sys.executable, "-m", "consumers", "jsonlines"],
        env={**os.environ, "FNM_BUS_CONFIG": str(services.relays.config)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            sent = bans(services, 1)
            assert ids(process.stdout.readline().decode()) == sent
            process.stdout.close()
            bans(services, 1)
            stderr = process.stderr.read().decode()
            assert process.wait(30) == 75
        finally:
            process.kill()
    assert "stdout: no reader" in stderr
    assert "dry run" not in stderr
