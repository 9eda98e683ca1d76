"""Consumers as processes, on a real Kafka: rebalance, death, a broker that goes."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from services.crew import Crew, policy
from services.kafka import Cluster
from services.plant import Plant

pytestmark = pytest.mark.kafka

CONSUMER = """
import sys
from pathlib import Path
from consumers.simple import consume

out = Path(sys.argv[1])

def handle(event):
    if event.ip == sys.argv[2]:
        print("stuck", flush=True)
        sys.stdin.read()
    with out.open("a") as file:
        file.write(f"{event.receipt.event_id}\\n")

consume("group", handle)
"""


class Group:
    """Processes of one consumer group that note what they were given."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.program = crew.plant.root / "own.py"
        self.program.write_text(textwrap.dedent(CONSUMER))
        self.out = crew.plant.root / "seen"
        self.out.touch()
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, stuck: str = "none") -> subprocess.Popen[bytes]:
        log = self.crew.plant.root / f"own{len(self._started)}.log"
        with log.open("wb") as said:
            it = subprocess.Popen(
                [sys.executable, str(self.program), str(self.out), stuck],
                env={**os.environ, "FNM_BUS_CONFIG": str(self.crew.plant.config)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
            )
        self._started.append(it)
        return it

    def seen(self) -> list[str]:
        return self.out.read_text().split()

    def until(self, ids: list[str]) -> None:
        self.crew.until(lambda: set(ids) <= set(self.seen()), 60, "all were handled")

    def stop(self) -> None:
        for it in self._started:
            it.kill()
            it.communicate()


@pytest.fixture
def group(real_plant: Plant) -> Iterator[Group]:
    it = Group(Crew(real_plant, policy()))
    yield it
    it.stop()
    it.crew.stop()


def test_a_killed_consumer_repeats_what_was_not_done_and_loses_nothing(
    group: Group,
) -> None:
    first = group.start(stuck="203.0.113.3")
    ids = group.crew.tell("ban", *(f"203.0.113.{it}" for it in range(6)))
    assert first.stdout is not None
    assert first.stdout.readline() == b"stuck\n"
    first.kill()
    group.start()
    group.until(ids)


def test_members_share_the_partitions_and_one_that_leaves_loses_nothing(
    group: Group,
) -> None:
    first, _second = group.start(), group.start()
    ids = group.crew.tell("ban", *(f"203.0.113.{it}" for it in range(50)))
    group.until(ids)
    first.send_signal(signal.SIGTERM)
    more = group.crew.tell("ban", *(f"198.51.100.{it}" for it in range(50)))
    group.until(more)
    assert first.wait(30) == 0


def test_a_consumer_goes_on_when_the_broker_is_back(tmp_path: Path) -> None:
    own = Cluster(tmp_path, nodes=1)
    try:
        own.open()
        plant = Plant(tmp_path, own.bootstrap)
        assert plant.run("topics", "create").returncode == 0
        group = Group(Crew(plant, policy()))
        try:
            group.start()
            group.until(group.crew.tell("ban", "203.0.113.1"))
            own.kill(1)
            own.start(1)
            group.until(group.crew.tell("ban", "203.0.113.2"))
        finally:
            group.stop()
            group.crew.stop()
    finally:
        own.close()
