"""One call: our hooks and `notify` beside other notify scripts."""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from environment import DOCUMENTS, HERE, Environment
from report import Row

BARE = "python -I -S -c pass"
PYTHON = "Python hook, relay running"
SHELL = "shell hook, relay running"
BUSYBOX = "shell hook by busybox, relay running"
KCAT = "kcat (no Avro, no disk)"
GOALS = {PYTHON: (BARE, 1.4), SHELL: (KCAT, 1.2), BUSYBOX: (KCAT, 1.2)}
"""The most that one call may take, in times of another's."""
RATES = {PYTHON: 140, SHELL: 500, BUSYBOX: 500}
"""Calls in a second, 32 at a time, on the machine of the results."""
Command = Sequence[str | Path]


def measure(environment: Environment, bootstrap: str, *, quick: bool) -> list[Row]:
    """Time calls one by one, contenders in turn, then 32 at a time."""
    commands: dict[str, Command] = {
        BARE: [sys.executable, "-I", "-S", "-c", "pass"],
        PYTHON: [environment.hook, "ban", "10.154.0.2"],
        SHELL: [environment.shell, "ban", "10.154.0.2"],
        BUSYBOX: [environment.busybox, "ban", "10.154.0.2"],
        "naive: a producer per call": [
            sys.executable,
            HERE / "rivals/naive.py",
            bootstrap,
        ],
        "sh: nothing": ["/bin/sh", "-c", ":"],
        "sh: cat > tmp && mv (no fsync)": [environment.script("move.sh")],
        "sh: dd conv=fsync && mv && sync": [environment.script("synced.sh")],
    }
    if kcat := shutil.which("kcat"):
        commands[KCAT] = [
            kcat,
            *("-P", "-b", bootstrap, "-t", "bench.kcat"),
            *("-X", "acks=all", "-D", "\x1e"),
        ]
    notify = [sys.executable, "-m", "fnm_bus", "notify", "--config", environment.config]
    document = DOCUMENTS["19 KB"]
    with environment.relay():
        commands["fnm-bus notify, relay running"] = notify
        rows = _one_by_one(commands, document, 5 if quick else 40)
        at_once = _at_once(commands, document, 32 if quick else 320)
    # Without a relay each call publishes by itself, if it runs as the spool's owner.
    alone = {
        BARE: commands[BARE],
        "Python hook, no relay": commands[PYTHON],
        "fnm-bus notify, no relay": notify,
    }
    return [*rows, *_one_by_one(alone, document, 3 if quick else 15)[1:], *at_once]


def crowded(
    environment: Environment, fill: Callable[[], None], count: int
) -> list[Row]:
    """Time calls before and after *fill* has put *count* files into the spool."""
    commands: dict[str, Command] = {
        PYTHON: [environment.hook],
        SHELL: [environment.shell],
    }
    document, typical = DOCUMENTS["1.5 KB"], {}
    lock = environment.spool.lock()  # else the Python hook would drain
    assert lock is not None  # noqa: S101 - nobody else knows of this spool
    try:
        for state in ("empty", "full"):
            for name, command in commands.items():
                times = [_call(command, document) for _ in range(20)]
                typical[name, state] = statistics.median(times) * 1000
            if state == "empty":
                fill()
    finally:
        lock.release()
    return [
        Row(
            f"one call, {count:,} files waiting",
            name.partition(",")[0],
            f"p50 {typical[name, 'full']:.1f} ms",
            f"{typical[name, 'full'] / typical[name, 'empty']:.2f} x with none waiting",
        )
        for name in commands
    ]


def _one_by_one(
    commands: dict[str, Command], document: bytes, rounds: int
) -> list[Row]:
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            took = _call(command, document)
            if number:  # the first of each is for the caches
                times[name].append(took)
    typical = {name: statistics.median(them) for name, them in times.items()}
    rows = []
    for name, them in times.items():
        other, most = GOALS.get(name, ("", 0.0))
        goal = other in typical
        rows.append(
            Row(
                "one call, 19 KB",
                name,
                f"p50 {typical[name] * 1000:.1f} ms,"
                f" p95 {sorted(them)[int(len(them) * 0.95)] * 1000:.1f} ms",
                f"{typical[name] / typical[BARE]:.2f} x bare Python",
                f"<= {most} x {other}" if goal else "",
                typical[name] <= most * typical[other] if goal else None,
            )
        )
    return rows


def _at_once(commands: dict[str, Command], document: bytes, count: int) -> list[Row]:
    rates = {}
    for name, command in commands.items():
        # A naive call is slow: a tenth of the calls is enough.
        calls = count // 10 if name.startswith("naive") else count
        began = time.perf_counter()
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(lambda _n, c=command: _call(c, document), range(calls)))
        rates[name] = calls / (time.perf_counter() - began)
    base = rates["naive: a producer per call"]
    return [
        Row(
            "32 at a time, 19 KB",
            name,
            f"{rate:.0f} calls/s",
            f"{rate / base:.1f} x naive",
            f">= {RATES[name]}/s" if name in RATES else "",
            rate >= RATES[name] if name in RATES else None,
        )
        for name, rate in rates.items()
    ]


def _call(command: Command, document: bytes) -> float:
    began = time.perf_counter()
    subprocess.run(command, input=document, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began
