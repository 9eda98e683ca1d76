"""One call: our hook and `notify` beside what else one could give FastNetMon."""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from plant import DOCUMENTS, HERE, Plant
from report import Row

BARE = "python -I -S -c pass"
Command = Sequence[str | Path]


def measure(it: Plant, bootstrap: str, *, quick: bool) -> list[Row]:
    """Time calls one by one, contenders in turn, then 32 at a time."""
    commands: dict[str, Command] = {
        BARE: [sys.executable, "-I", "-S", "-c", "pass"],
        "hook, relay running": [it.hook, "ban", "10.154.0.2"],
        "naive: a producer per call": [
            sys.executable,
            HERE / "rivals/naive.py",
            bootstrap,
        ],
    }
    if kcat := shutil.which("kcat"):
        commands["kcat (no Avro, no disk)"] = [
            kcat,
            *("-P", "-b", bootstrap, "-t", "bench.kcat"),
            *("-X", "acks=all", "-D", "\x1e"),
        ]
    notify = [sys.executable, "-m", "fnm_bus", "notify", "--config", it.config]
    document = DOCUMENTS["19 KB"]
    with it.relay():
        commands["fnm-bus notify, relay running"] = notify
        rows = _one_by_one(commands, document, 5 if quick else 40)
        at_once = _at_once(commands, document, 32 if quick else 320)
    # Without a relay each call publishes by itself, if it runs as the spool's owner.
    alone = {
        BARE: commands[BARE],
        "hook, no relay": commands["hook, relay running"],
        "fnm-bus notify, no relay": notify,
    }
    return [*rows, *_one_by_one(alone, document, 3 if quick else 15)[1:], *at_once]


def _one_by_one(
    commands: dict[str, Command], document: bytes, rounds: int
) -> list[Row]:
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            took = _call(command, document)
            if number:  # the first of each is for the caches
                times[name].append(took)
    base = statistics.median(times[BARE])
    return [
        Row(
            "one call, 19 KB",
            name,
            f"p50 {statistics.median(them) * 1000:.1f} ms,"
            f" p95 {sorted(them)[int(len(them) * 0.95)] * 1000:.1f} ms",
            f"{statistics.median(them) / base:.2f} x bare Python",
            "<= 1.4 x" if name == "hook, relay running" else "",
            statistics.median(them) / base <= 1.4  # noqa: PLR2004 - the goal beside it
            if name == "hook, relay running"
            else None,
        )
        for name, them in times.items()
    ]


def _at_once(commands: dict[str, Command], document: bytes, count: int) -> list[Row]:
    rates = {}
    for name, command in commands.items():
        # A naive call takes so long that a tenth of them tells enough.
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
        )
        for name, rate in rates.items()
    ]


def _call(command: Command, document: bytes) -> float:
    began = time.perf_counter()
    subprocess.run(command, input=document, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began
