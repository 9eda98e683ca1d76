"""Plants: spools with relays, on the embedded broker and on a real Kafka."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from services.front import Installed
from services.plant import Plant

from fnm_bus.route import Topics
from fnm_bus.topics import Admin, wanted


@pytest.fixture
def plant(tmp_path: Path, embedded_broker: str) -> Iterator[Plant]:
    """A plant on the embedded broker."""
    it = Plant(tmp_path, embedded_broker)
    yield it
    it.stop()


@pytest.fixture
def real_plant(tmp_path: Path, kafka: str) -> Iterator[Plant]:
    """A plant on a real Apache Kafka, with its topics."""
    it = Plant(tmp_path, kafka)
    made = it.run("topics", "create")
    assert made.returncode == 0, made.stderr.decode()
    yield it
    it.stop()


@pytest.fixture
def make_plant() -> Iterator[Callable[..., Plant]]:
    """Make plants on a real Kafka with topics that are not as usual."""
    made: list[Plant] = []

    def make(
        root: Path, bootstrap: str, replication: int = 1, missing: tuple[str, ...] = ()
    ) -> Plant:
        it = Plant(root, bootstrap)
        made.append(it)
        kinds = [f.name for f in fields(Topics)]
        names = Topics(**{kind: it.topic(kind) for kind in kinds})
        gone = {it.topic(kind) for kind in missing}
        Admin({"bootstrap.servers": bootstrap}).create(
            [one for one in wanted(names, 4, replication) if one.name not in gone]
        )
        return it

    yield make
    for it in made:
        it.stop()


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    target = tmp_path / "disk"
    target.mkdir()
    options = "size=400k,nr_inodes=60"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", target]
    done = subprocess.run(mount, check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.decode().strip()}")
    yield target
    subprocess.run(["umount", "-l", target], check=True)


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A spool of user 1234 and group 2345, that every user can reach."""
    directory = Path(tmp_path_factory.mktemp("shared"))
    installed = Installed(directory)
    opened = []
    for path in (directory, *directory.parents):
        mode = path.stat().st_mode
        if not mode & 0o001:
            opened.append((path, mode))
            path.chmod(mode | 0o011)
    for spool in (installed.spool, installed.fallback):
        spool.make(1234, 2345)
    python = "/usr/bin/python3"
    text = installed.path.read_text().split("\n", 1)[1]
    installed.path.write_text(f"#!{python} -IS\n{text}")
    yield installed
    for path, mode in opened:
        path.chmod(mode)
