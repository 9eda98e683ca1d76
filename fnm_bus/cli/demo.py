"""`fnm-bus demo`: a hook, a relay and a broker on this machine."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fnm_bus.cli.options import end, out, print_note

if TYPE_CHECKING:
    from fnm_bus.config.settings import Settings
    from fnm_bus.demo.attack import NotifyCall
    from fnm_bus.demo.environment import DemoEnvironment

FAILED = 1
_ARRIVAL_TIMEOUT = 20.0
_RATE = 25.0
"""Calls per second: slow enough to watch."""
_INVALID = b'{"action": "ban", "ip": 7}'


def demo(
    *,
    hosts: Annotated[int, typer.Option(min=1, max=10_000, help="Attacked hosts.")] = 8,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep everything running until Ctrl-C.")
    ] = False,
) -> None:
    """Show how FastNetMon's documents become events on Kafka's topics.

    Starts a small Kafka inside this process, a relay and an installed hook, and calls
    the hook with example documents and a simulated attack. Needs no Docker, Java or
    root. Uses its own spool and broker only, and ignores the environment. Exits with
    status 1 if the events on Kafka differ from the calls.

    Examples:
        fnm-bus demo

        fnm-bus demo --hosts 200 --keep
    """
    from fnm_bus.avro.examples import example_calls
    from fnm_bus.config import load
    from fnm_bus.demo import environment
    from fnm_bus.demo.attack import AttackPlan, NotifyCall, attack_calls

    examples = [NotifyCall(n.arguments, n.document) for n in example_calls()]
    simulated = list(attack_calls(AttackPlan(hosts)))
    invalid = NotifyCall(("ban", "0.0.0.7"), _INVALID)
    # Without this, SIGTERM would leave the relay behind.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="fnm-bus-demo-") as directory:
        started_at = time.monotonic()
        with environment.start(Path(directory)) as running:
            seconds = time.monotonic() - started_at
            _print_lines(
                f"broker  {running.bootstrap}, in this process (librdkafka's mock)",
                f"hook    {running.hook}",
                f"relay   ready after {seconds:.1f} s",
                "",
                f"Calls of the hook: {len(examples)} example documents,"
                f" {len(simulated)} of a simulated attack on {hosts} hosts, and 1"
                " invalid document.",
                "",
            )
            settings = load.load(running.config, {}).settings
            ok = _replay(running, settings, [*examples, *simulated, invalid])
            ok = _preview_policy(running) and ok
            _print_next_steps(running, keep=keep)
            if keep:
                with suppress(KeyboardInterrupt):
                    signal.pause()
    end(0 if ok else FAILED)


def _replay(
    running: "DemoEnvironment", settings: "Settings", calls: "list[NotifyCall]"
) -> bool:
    from fnm_bus import build
    from fnm_bus.cli import render
    from fnm_bus.demo.delivery_check import DeliveryCheck
    from fnm_bus.demo.replay import replay
    from fnm_bus.event import DeadLetter, Event
    from fnm_bus.kafka.reader import TopicReader

    names = build.topic_names(settings)
    topics = [names.host, names.hostgroup, names.status, names.deadletter]
    check, by_topic = DeliveryCheck(calls), Counter[str]()
    reader = TopicReader(
        build.kafka_settings(settings),
        topics,
        build.build_codec(settings),
        from_beginning=True,
    )
    print_note(render.heading())
    started_at = time.monotonic()
    with reader, ThreadPoolExecutor(1) as thread:
        replaying = thread.submit(lambda: Counter(replay(running.hook, calls, _RATE)))
        until = time.monotonic() + len(calls) / _RATE + _ARRIVAL_TIMEOUT
        while check.missing and time.monotonic() < until:
            for read in reader.read(0.05):
                if read.event is None:
                    print_note(f"cannot be decoded: {read.error}")
                    continue
                if isinstance(read.event, Event | DeadLetter):
                    check.record(read.event)
                by_topic[read.topic] += 1
                out(
                    render.event_line(read.topic, read.event),
                    *render.color_of(read.event),
                )
        statuses = replaying.result()
    seconds = time.monotonic() - started_at
    failed = statuses.total() - statuses[0]
    ok = not (check.missing or check.unexpected or failed)
    _print_lines(
        "",
        *(f"{by_topic[topic]:5}  {topic}" for topic in topics),
        "",
        f"{len(calls)} calls of the hook, {failed} failed; {check.events} events:"
        f" {check.missing} missing, {check.unexpected} unexpected,"
        f" {check.duplicates} duplicates; {seconds:.1f} s",
        "Every call of the hook arrived on Kafka."
        if ok
        else "FAILED: the events on Kafka differ from the calls of the hook.",
    )
    return ok


def _preview_policy(running: "DemoEnvironment") -> bool:
    """Print the decisions of the demo's policy, in a process of its own."""
    from fnm_bus.demo.environment import child_environment

    print_note("")
    done = subprocess.run(  # noqa: S603 - this very program
        [sys.executable, "-m", "consumers", "demo", "--config", str(running.config)],
        env=child_environment({}),
        cwd=running.directory,
        check=False,
    )
    return done.returncode == 0


def _print_next_steps(running: "DemoEnvironment", *, keep: bool) -> None:
    from fnm_bus.config.spool_paths import CONFIG, PREFIX

    if not keep:
        _print_lines(
            "",
            "Next: `fnm-bus demo --keep` keeps everything running.",
            "README.md explains how to connect a FastNetMon.",
        )
        return
    names = (name for name in os.environ if name.startswith(PREFIX) and name != CONFIG)
    overriding = " ".join(sorted(names))
    _print_lines(
        "",
        "Everything runs until Ctrl-C. In another terminal:",
        "",
        *([f"  unset {overriding}"] if overriding else []),
        f"  export {CONFIG}={running.config}",
        "  fnm-bus tail",
        "  fnm-bus simulate --hosts 20",
        "  fnm-bus spool status",
        "  fnm-bus quarantine list",
        f"  fnm-bus hook check {running.hook}",
        "  fnm-bus simulate --hosts 1 --print | head -1"
        f" | {running.hook} ban 192.0.2.1",
        "",
        f"The topics are at {running.bootstrap} for every other Kafka client.",
    )


def _print_lines(*lines: str) -> None:
    for line in lines:
        print_note(line)
