#!/usr/bin/env python3
"""Show one attack on its way through the stack, with times.

    notification ▶ record ▶ decision ▶ route in BIRD, and the way back

The times are those that each part recorded itself: the spool file's, Kafka's, the
mitigator's and ExaBGP's audit records, BIRD's log. Needs docker compose only.

It publishes a ban to the stack's own Kafka and switches dry run off. So it refuses a
stack whose services use another broker, or whose ExaBGP has another neighbor.
"""

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parents[1]
COMPOSE = ("docker", "compose")
HOST = "203.0.113.25"
DETAILS = {
    "attack_uuid": "5c1d7a52-6a0e-4a35-9d0c-0a6a3f0e9b11",
    "attack_detection_source": "automatic",
    "total_incoming_pps": 3_000_000,
    "total_incoming_traffic": 4_200_000_000,
}
BROKER = "kafka:19092"
"""The stack's own Kafka."""
NEIGHBOR = "198.18.53.3"
"""The stack's own BIRD."""
PATIENCE = 120.0
"""Seconds without anything new after which the demo gives up."""
LIVE = {**os.environ, "FNM_BUS_DRY_RUN": "false"}


class Step(NamedTuple):
    """Something that happened to the host, and when."""

    at: datetime
    name: str
    text: str


class Failed(Exception):
    """The demo cannot continue; the text has the reason."""


def main() -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--detector",
        action="store_true",
        help="a real FastNetMon detects a flood by IPFIX; else a simulated call",
    )
    detector = parser.parse_args().detector
    profile = ("--profile", "detector") if detector else ()
    try:
        require_own_stack(json.loads(compose(*profile, "config", "--format", "json")))
    except Failed as exc:
        say(f"demo: {exc}")
        return 1
    try:
        say("Starting the stack with dry run off: routes go to the stack's own BIRD.")
        compose(*profile, "up", "--detach", "--build", "--wait", env=LIVE)
        show(flooded() if detector else called())
    except (Failed, KeyboardInterrupt) as exc:
        say(f"\ndemo: {exc or 'stopped'}")
        return 1
    finally:
        if os.environ.get("FNM_BUS_DRY_RUN") != "false":
            say("\nRestoring dry run as .env sets it (the default is true).")
            subprocess.run(
                [*COMPOSE, "up", "--detach", "--wait"],
                cwd=HERE,
                check=False,
                capture_output=True,
            )
    return 0


def require_own_stack(config: Mapping[str, Any]) -> None:
    """Refuse a stack in which a service uses a broker or neighbor from outside.

    Args:
        config: the output of `docker compose config --format json`.

    Raises:
        Failed: there is such a service; the text names it.
    """
    services = config["services"]
    bird = services["bird"]["networks"]["bgp"]["ipv4_address"]
    own = {
        "FNM_BUS_KAFKA__BOOTSTRAP_SERVERS": BROKER,
        "FNM_BUS_CONSUMERS__EXABGP__NEIGHBOR": NEIGHBOR,
    }
    if bird != NEIGHBOR:
        raise Failed(f"bird: its address is {bird}, wanted {NEIGHBOR}")
    for name, service in services.items():
        variables = service.get("environment") or {}
        for variable, wanted in own.items():
            if (got := variables.get(variable, wanted)) != wanted:
                raise Failed(
                    f"{name}: {variable} is {got}, wanted {wanted}. This demo runs in"
                    " the shipped stack only: it bans a host and announces its route"
                )


def called() -> Iterator[str]:
    """Call the hook as FastNetMon Advanced does; yield the words for each call."""
    for action in ("ban", "unban"):
        document = {
            "action": action,
            "alert_scope": "host",
            "ip": HOST,
            "attack_details": DETAILS,
        }
        compose("exec", "-T", "relay", "fnm-bus-hook", given=json.dumps(document))
        yield HOST


def flooded() -> Iterator[str]:
    """Have a flood reported to FastNetMon; yield who is attacked, twice."""
    say("A router reports a flood to FastNetMon: 20 s of IPFIX.")
    compose("--profile", "detector", "stop", "flood")
    command = [
        *COMPOSE,
        "--profile",
        "detector",
        "run",
        "--rm",
        "--no-deps",
        "-T",
        "flood",
        "flood",
        "--to=fastnetmon:2055",
        f"--first={HOST}",
        "--hosts=1",
        "--seconds=20",
    ]
    with subprocess.Popen(
        command, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as flood:
        yield HOST
        flood.wait()
    say("The flood is over. FastNetMon unbans after its ban time of 30 s.")
    yield HOST


def show(attack: Iterator[str]) -> None:
    """Print the steps of a host's ban and unban."""
    since = datetime.now(UTC)
    arrivals: queue.Queue[Step] = queue.Queue()
    with (
        followed("jsonlines", since, of_record, arrivals),
        followed("bird", since, of_bird, arrivals),
    ):
        tell(attack, arrivals)


def tell(attack: Iterator[str], arrivals: "queue.Queue[Step]") -> None:
    """Print the steps of the ban, then those of the unban, as they occur."""
    for action, last in (
        ("ban", {"route", "in force"}),
        ("unban", {"gone", "withdrawn"}),
    ):
        next(attack)
        missing, steps = {"record", "decision", *last}, []
        while missing:
            try:
                step = arrivals.get(timeout=PATIENCE)
            except queue.Empty:
                raise Failed(f"nothing within {PATIENCE:.0f} s of: {missing}") from None
            if step.name in missing or step.name == "notification":
                missing.discard(step.name)
                steps.append(step)
        report(action, sorted(steps))
        if action == "ban":
            say(indented(bird("show", "route", "for", HOST, "all")))
    say(indented(bird("show", "route", "for", HOST)))


def report(action: str, steps: list[Step]) -> None:
    """Print the steps of one call, in their order."""
    began = min(step.at for step in steps)
    say(f"\nFastNetMon calls the hook: {action} {HOST}   {began:%H:%M:%S.%f}"[:-3])
    for step in steps:
        passed = (step.at - began) / timedelta(milliseconds=1)
        say(f"  + {passed:6.0f} ms  {step.name:<12}  {step.text}")


def of_record(line: str) -> list[Step]:
    """Return the step in a line of `jsonlines`, or nothing."""
    if not line.startswith("{"):
        return []
    record = json.loads(line)
    event = record["event"]
    if record["key"] == HOST and event.get("action") in ("ban", "unban"):
        receipt = event["receipt"]
        place = "{topic}, partition {partition}, offset {offset}".format_map(record)
        return [
            Step(moment(receipt["received_at"]), "notification", "on disk"),
            Step(moment(record["timestamp"]), "record", place),
        ]
    if record["key"] == f"blackhole|{HOST}/32" and event.get("action") in WORDS:
        text = f"{event['action']}: {record['key']}, {event['text']}"
        return [Step(moment(event["at"]), WORDS[event["action"]], text)]
    return []


WORDS = {
    "wanted": "decision",
    "ended": "decision",
    "in-force": "in force",
    "withdrawn": "withdrawn",
}


def of_bird(line: str) -> list[Step]:
    """Return the step in a line of BIRD's log, or nothing."""
    if f" {HOST}/32 " not in line or "<TRACE>" not in line:
        return []
    at = datetime.fromisoformat(line[:23]).replace(tzinfo=UTC)
    for word, name in ((" > added ", "route"), (" > removed ", "gone")):
        if word in line:
            return [Step(at, name, f"BIRD: {line.split('> ', 2)[2].strip()}")]
    return []


@contextmanager
def followed(
    service: str,
    since: datetime,
    read: Callable[[str], list[Step]],
    arrivals: "queue.Queue[Step]",
) -> Iterator[None]:
    """Add the host's steps in a service's log to *arrivals*, as long as this lasts."""
    command = [
        *COMPOSE,
        "logs",
        "--follow",
        "--no-log-prefix",
        f"--since={since.isoformat()}",
        service,
    ]
    # Docker's command starts its plugin as a process of its own: both are to end.
    with subprocess.Popen(
        command, cwd=HERE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as logs:

        def listen() -> None:
            for line in logs.stdout or ():
                for step in read(line):
                    arrivals.put(step)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            os.killpg(logs.pid, signal.SIGTERM)
            thread.join()


def bird(*words: str) -> str:
    """Return birdc's answer without its greeting; `Network not found` as well."""
    birdc = ("birdc", "-s", "/run/bird/bird.ctl")
    done = subprocess.run(
        [*COMPOSE, "exec", "-T", "bird", *birdc, *words],
        cwd=HERE,
        text=True,
        capture_output=True,
        check=False,
    )
    return "\n".join(done.stdout.splitlines()[1:]) or done.stderr


def compose(
    *words: str, given: "str | None" = None, env: "Mapping[str, str] | None" = None
) -> str:
    """Run docker compose; return its stdout."""
    done = subprocess.run(
        [*COMPOSE, *words],
        cwd=HERE,
        env=env,
        input=given,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"docker compose {' '.join(words)}:\n{done.stderr[-3000:]}")
    return done.stdout


def moment(text: str) -> datetime:
    """Return the time that an ISO 8601 text names."""
    return datetime.fromisoformat(text)


def indented(text: str) -> str:
    """Return a text below a step."""
    return "\n".join(
        f"             {line}" for line in text.splitlines() if line.strip()
    )


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
