"""Plants: spools with relays, on the embedded broker and on a real Kafka."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
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
