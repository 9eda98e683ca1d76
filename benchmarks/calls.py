"""One call: both hooks and `notify` beside other notify scripts."""

import resource
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

from fnm_bus.hook import python_hook

BARE = "python -I -S -c pass"
PYTHON = "Python hook, relay running"
NATIVE = "native hook, relay running"
TRUE = "/bin/true"
MOVE = "sh: cat > tmp && mv (no fsync)"
KCAT = "kcat (no Avro, no disk)"
GOALS = {PYTHON: {BARE: 1.4}, NATIVE: {TRUE: 2.0, KCAT: 0.2}}
"""The longest time of one call, as a multiple of another program's."""
RATES = {PYTHON: {BARE: 0.9}, NATIVE: {TRUE: 0.9, MOVE: 3.0}}
"""The lowest rate of calls, 32 at a time, as a multiple of another program's."""
CPU = 2.0
"""The most CPU time of a call of the native hook, in milliseconds."""
WAITING = 1.2
"""The longest time of a call with many files waiting, as a multiple of none."""
Command = Sequence[str | Path]


def measure(environment: Environment, bootstrap: str, *, quick: bool) -> list[Row]:
    """Time calls one by one, contenders in turn, then 32 at a time."""
    commands: dict[str, Command] = {
        BARE: [sys.executable, "-I", "-S", "-c", "pass"],
        PYTHON: [environment.hook, "ban", "10.154.0.2"],
        NATIVE: [environment.native, "ban", "10.154.0.2"],
        TRUE: ["/bin/true"],
        "naive: a producer per call": [
            sys.executable,
            HERE / "rivals/naive.py",
            bootstrap,
        ],
        "sh: nothing": ["/bin/sh", "-c", ":"],
        MOVE: [environment.script("move.sh")],
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
        rows.append(_disk_alone(environment, document, 5 if quick else 40))
        at_once = _at_once(commands, document, 32 if quick else 320)
        cpu = [
            _cpu_of_a_call(name, commands[name], document)
            for name in (NATIVE, PYTHON, MOVE, TRUE)
        ]
    # Without a relay each call publishes by itself, if it runs as the spool's owner.
    alone = {
        BARE: commands[BARE],
        "Python hook, no relay": commands[PYTHON],
        "fnm-bus notify, no relay": notify,
    }
    return [
        *rows,
        *_one_by_one(alone, document, 3 if quick else 15)[1:],
        *at_once,
        *cpu,
    ]


def crowded(
    environment: Environment, fill: Callable[[], None], count: int
) -> list[Row]:
    """Time calls before and after *fill* has put *count* files into the spool."""
    commands: dict[str, Command] = {
        PYTHON: [environment.hook],
        NATIVE: [environment.native],
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
    rows = []
    for name in commands:
        ratio = typical[name, "full"] / typical[name, "empty"]
        rows.append(
            Row(
                f"one call, {count:,} files waiting",
                name.partition(",")[0],
                f"p50 {typical[name, 'full']:.1f} ms",
                f"{ratio:.2f} x with none waiting",
                f"<= {WAITING} x",
                ratio <= WAITING,
            )
        )
    return rows


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
        goals = _present(GOALS.get(name, {}), typical)
        rows.append(
            Row(
                "one call, 19 KB",
                name,
                f"p50 {typical[name] * 1000:.1f} ms,"
                f" p95 {sorted(them)[int(len(them) * 0.95)] * 1000:.1f} ms",
                f"{typical[name] / typical[BARE]:.2f} x bare Python",
                _goal("<=", goals),
                all(typical[name] <= most * typical[o] for o, most in goals.items())
                if goals
                else None,
            )
        )
    return rows


def _disk_alone(environment: Environment, document: bytes, rounds: int) -> Row:
    """Time the hooks' file operations in this process: the floor of a synced call."""
    root, data = str(environment.spool.root), python_hook.encode_entry((), document)
    times = []
    for _ in range(rounds):
        name = python_hook.new_entry_name()
        began = time.perf_counter()
        python_hook.store_entry(root, name, data)
        times.append(time.perf_counter() - began)
    figure = f"p50 {statistics.median(times) * 1000:.1f} ms"
    return Row("one call, 19 KB", "floor: write, fsync, rename, fsync", figure)


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
    rows = []
    for name, rate in rates.items():
        goals = _present(RATES.get(name, {}), rates)
        rows.append(
            Row(
                "32 at a time, 19 KB",
                name,
                f"{rate:.0f} calls/s",
                f"{rate / base:.1f} x naive",
                _goal(">=", goals),
                all(rate >= least * rates[o] for o, least in goals.items())
                if goals
                else None,
            )
        )
    return rows


def _present(goals: dict[str, float], measured: dict[str, float]) -> dict[str, float]:
    """Return the goals whose other program was measured."""
    return {other: factor for other, factor in goals.items() if other in measured}


def _goal(comparison: str, goals: dict[str, float]) -> str:
    return ", ".join(f"{comparison} {x} x {other}" for other, x in goals.items())


def _cpu_of_a_call(name: str, command: Command, document: bytes) -> Row:
    """Measure user and system time of a program and its children."""
    count = 50
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(count):
        _call(command, document)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    milliseconds = seconds / count * 1000
    goal = name == NATIVE
    return Row(
        "CPU time of one call, 19 KB",
        name,
        f"{milliseconds:.1f} ms",
        goal=f"<= {CPU} ms" if goal else "",
        met=milliseconds <= CPU if goal else None,
    )


def _call(command: Command, document: bytes) -> float:
    began = time.perf_counter()
    subprocess.run(command, input=document, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began
