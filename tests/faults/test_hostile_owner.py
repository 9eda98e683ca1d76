"""Root's programs in a spool whose owner changes it under their hands."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest
from support.installed_hook import SAMPLE, InstalledHook, as_user

from fnm_bus.errors import SpoolError
from fnm_bus.hook import python_hook

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can act for root and as another user"
)

SECONDS = float(os.environ.get("FUZZ_SECONDS", "10"))
WITHIN = 30
"""Seconds for one call or command; one that waits for the owner takes for ever."""

ATTACK = """
import os, random, sys
spool, precious, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
random.seed(seed)
PLACES = [
    "incoming", "incoming/tmp", "incoming/new", "quarantine", "quarantine/foreign",
    "quarantine/unpublished", "state", "state/backoff", "lock", "full",
    *(f"incoming/new/{digit}" for digit in "0123456789abcdef"),
    *(f"quarantine/{name}" for name in sys.argv[4:]),
]
LINKS = ["", "/file", "/incoming", "/incoming/new", "/incoming/new/0", "/quarantine"]

def plant(path):
    kind = random.randrange(8)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        os.mkdir(path)
    elif kind == 2:
        open(path, "w").write(random.choice(["all", "status", "x" * 5000]))
    else:
        os.symlink(precious + random.choice(LINKS), path)

def away(path):
    try:
        os.unlink(path)
    except OSError:  # a directory, which root may have filled
        os.rename(path, os.path.join(spool, f"rubbish{number}"))

print("attacks", flush=True)
number = done = 0
while True:
    number += 1
    # Mostly one that leads to all others.
    places = random.choice((PLACES, ["incoming"], ["incoming/new", "quarantine"]))
    place = os.path.join(spool, random.choice(places))
    aside = os.path.join(spool, f"aside{number}")
    try:
        os.rename(place, aside)
    except OSError:  # it is root's at the moment, or is missing
        continue
    try:
        plant(place)
        done += 1
    except OSError:  # root was quicker
        pass
    if done % 1000 == 0:
        print("thousand", flush=True)
    try:
        away(place)
    except OSError:
        pass
    try:
        os.rename(aside, place)
    except OSError:
        pass
"""


@pytest.fixture
def precious(shared: InstalledHook) -> Path:
    """Root's own tree, in the shape of a spool."""
    root = shared.directory / "precious"
    for name in ("incoming/tmp", "incoming/new/0", "quarantine/unpublished", "state"):
        (root / name).mkdir(parents=True)
    (root / "file").write_text("root:secret\n")
    (root / "file").chmod(0o600)
    return root


def state(root: Path) -> dict[str, tuple[int, ...]]:
    """Return all facts that may not change; a hook changes the time of access."""
    paths = (root, *root.rglob("*"))
    facts = {str(path): path.lstat() for path in paths}
    return {
        path: (
            status.st_ino,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_nlink,
            status.st_size,
        )
        for path, status in facts.items()
    }


def quarantined(shared: InstalledHook) -> list[str]:
    """Store entries in the quarantine as its owner; return their names."""
    names = [f"{'b' * 32}-{ticks:012d}-0000007-00000000" for ticks in range(3)]
    for name in names:
        path = shared.spool.root / "quarantine" / name
        path.write_bytes(python_hook.encode_entry(("ban",), SAMPLE))
        path.with_name(f"{name}.json").write_text('{"reason": "tried"}')
        for file in (path, path.with_name(f"{name}.json")):
            os.chown(file, 1234, 2345)
    return names


def commands(shared: InstalledHook, names: list[str]) -> Iterator[list[str]]:
    """Yield commands that root runs on the spool, without end."""
    yield from cycle(
        [
            ["quarantine", "list"],
            ["quarantine", "show", names[0]],
            ["quarantine", "release", names[1]],
            ["quarantine", "delete", names[2]],
            ["spool", "status", "--entries"],
            ["hook", "check", str(shared.path)],
        ]
    )


def test_root_follows_no_link_or_pipe_of_the_owner(
    shared: InstalledHook, precious: Path
) -> None:
    shared.spool.make(1234, 2345)
    names = quarantined(shared)
    config = shared.directory / "fnm-bus.toml"
    config.write_text(
        f'[spool]\ndirectory = "{shared.spool.root}"\n'
        f'fallback = "{shared.fallback.root}"\n'
        '[kafka]\n"bootstrap.servers" = "127.0.0.1:1"\n'
    )
    before = state(precious)
    argv = ["/usr/bin/python3", "-c", ATTACK, str(shared.spool.root), str(precious)]
    argv += ["7", *(f"{name}{end}" for name in names for end in ("", ".json"))]
    calls = runs = refused = 0
    with subprocess.Popen(argv, stdout=subprocess.PIPE, **as_user(1234, 2345)) as owner:  # type: ignore[call-overload]
        try:
            assert owner.stdout.readline() == b"attacks\n"
            end = time.monotonic() + SECONDS
            for command in commands(shared, names):
                if time.monotonic() > end:
                    break
                for _ in range(5):
                    called = shared(SAMPLE, timeout=WITHIN)
                    assert called.returncode in (0, 75)
                    assert b"secret" not in called.stderr
                    calls += 1
                for _ in range(300):
                    try:
                        shared.spool.make(1234, 2345)
                    except SpoolError:
                        refused += 1
                done = subprocess.run(
                    [sys.executable, "-m", "fnm_bus", *command, "--config", str(config)]
                    if command[0] != "hook"
                    else [sys.executable, "-m", "fnm_bus", *command],
                    check=False,
                    capture_output=True,
                    timeout=WITHIN,
                )
                runs += 1
                assert b"secret" not in done.stdout + done.stderr
                assert b"Traceback" not in done.stderr, done.stderr.decode()
        finally:
            owner.kill()
        attacks = 1_000 * owner.stdout.read().count(b"thousand")
    assert state(precious) == before
    sys.stdout.write(
        f"{attacks} attacks, {calls} calls, {runs} commands,"
        f" {refused} of {300 * runs} set-ups refused\n"
    )
    assert min(attacks, calls, runs, refused) > 0
