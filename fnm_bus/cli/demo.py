"""`fnm-bus demo`: the whole line at work, on this machine, in half a minute."""

import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fnm_bus.cli.options import colored, end, say

if TYPE_CHECKING:
    from fnm_bus.demo.attack import Call
    from fnm_bus.demo.environment import Stage
    from fnm_bus.settings import Settings

FAILED = 1
_PATIENCE = 20.0
_RATE = 25.0
"""Calls in a second: slow enough to watch."""
_BROKEN = b'{"action": "ban", "ip": 7}'


def demo(
    *,
    hosts: Annotated[int, typer.Option(min=1, help="Hosts under attack.")] = 8,
    keep: Annotated[
        bool, typer.Option("--keep", help="Go on afterwards, until Ctrl-C.")
    ] = False,
) -> None:
    """Show events on their way from FastNetMon's documents to Kafka's topics.

    Starts a small Kafka inside this process, a relay and the installed hook, plays the
    example documents and a made-up attack, and shows what arrives. No Docker, no Java,
    no root. Ends with status 1 when what arrived is not what was sent.

    Examples:
        fnm-bus demo

        fnm-bus demo --hosts 200 --keep
    """
    from fnm_bus import config, schema
    from fnm_bus.demo.attack import Call, Plan, attack
    from fnm_bus.demo.environment import stage

    examples = [Call(it.arguments, it.document) for it in schema.notifications()]
    made_up = list(attack(Plan(hosts)))
    broken = Call(("ban", "0.0.0.7"), _BROKEN)
    with tempfile.TemporaryDirectory(prefix="fnm-bus-demo-") as directory:
        began = time.monotonic()
        with stage(Path(directory)) as it:
            say(f"broker  {it.bootstrap}, in this process (librdkafka's mock cluster)")
            say(f"hook    {it.hook}")
            say(f"relay   ready after {time.monotonic() - began:.1f} s")
            say("")
            say(
                f"{len(examples)} example calls, {len(made_up)} of a made-up attack on"
                f" {hosts} hosts, and one document that is broken:"
            )
            say("")
            settings = config.load(it.config, {}).settings
            ok = _play(it, settings, [*examples, *made_up, broken])
            ok = _mitigate(it) and ok
            _tell_more(it, keep=keep)
            if keep:
                signal.sigwait({signal.SIGINT, signal.SIGTERM})
    end(0 if ok else FAILED)


def _play(it: "Stage", settings: "Settings", calls: "list[Call]") -> bool:
    from fnm_bus import wiring
    from fnm_bus.cli import render
    from fnm_bus.demo.environment import Arrival
    from fnm_bus.demo.replay import play
    from fnm_bus.event import DeadLetter, Event
    from fnm_bus.reader import Reader

    names = wiring.topics(settings)
    topics = [names.host, names.hostgroup, names.status, names.deadletter]
    arrival, by_topic = Arrival(calls), Counter[str]()
    reader = Reader(
        wiring.kafka(settings), topics, wiring.codec(settings), from_beginning=True
    )
    say(render.heading())
    began = time.monotonic()
    with reader, ThreadPoolExecutor(1) as thread:
        playing = thread.submit(lambda: Counter(play(it.hook, calls, _RATE)))
        until = time.monotonic() + len(calls) / _RATE + _PATIENCE
        while arrival.missing and time.monotonic() < until:
            for read in reader.read(0.05):
                if read.event is None:
                    say(f"cannot be decoded: {read.error}")
                    continue
                if isinstance(read.event, Event | DeadLetter):
                    arrival.note(read.event)
                by_topic[read.topic] += 1
                typer.echo(render.line(read.topic, read.event, color=colored()))
        statuses = playing.result()
    say("")
    for topic in topics:
        say(f"{by_topic[topic]:5}  {topic}")
    say("")
    ok = not (arrival.missing or arrival.surplus or statuses.total() - statuses[0])
    say(
        f"{len(calls)} calls, exit status "
        + ", ".join(f"{code}: {count}" for code, count in sorted(statuses.items()))
        + f"; {arrival.events} arrived once, {arrival.missing} missing,"
        f" {arrival.surplus} that nobody sent, {arrival.duplicates} repeated,"
        f" in {time.monotonic() - began:.1f} s"
    )
    say("All that was sent has arrived." if ok else "NOT all is as it was sent.")
    return ok


def _mitigate(it: "Stage") -> bool:
    """Let a mitigator look at what arrived: a process of its own, as all consumers."""
    say("")
    say("What a mitigator would do about it, by the demo's policy:")
    say("")
    command = [sys.executable, "-m", "consumers", "demo", "--config", str(it.config)]
    return subprocess.run(command, check=False).returncode == 0  # noqa: S603 - ours


def _tell_more(it: "Stage", *, keep: bool) -> None:
    say("")
    if not keep:
        say("Next: `fnm-bus demo --keep` leaves everything running, to try things on.")
        say("README.md says how to point a FastNetMon at it.")
        return
    say("Everything goes on until Ctrl-C. In another terminal:")
    say("")
    say(f"  export FNM_BUS_CONFIG={it.config}")
    for command in (
        "fnm-bus tail",
        "fnm-bus simulate --hosts 20",
        "fnm-bus spool list",
        f"fnm-bus hook check {it.hook}",
        f"fnm-bus simulate --hosts 1 --print | head -1 | {it.hook} ban 192.0.2.1",
    ):
        say(f"  {command}")
    say("")
    say(f"Any other Kafka client finds the topics at {it.bootstrap}.")
