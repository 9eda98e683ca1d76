"""The webhook as a process: records on Kafka in, requests on a web server out."""

import hashlib
import hmac
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from support.process import Server, wait_until
from support.receiver import Receiver

from fnm_bus.avro.codec import Codec
from fnm_bus.event import Mitigation, ReasonSummary
from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import TopicSpec

PARTITIONS = 4
NEW = "new consumer group: starting at the end of the topic"


def mitigation(number: int, state: str = "wanted", **other: Any) -> Mitigation:
    prefix = f"198.51.{number // 256}.{number % 256}/32"
    now = datetime.now(UTC)
    facts = {
        "key": f"blackhole|{prefix}",
        "kind": "blackhole",
        "state": state,
        "prefix": prefix,
        "hostgroup": "web",
        "created_at": datetime(2026, 5, 1, tzinfo=UTC),
        "started_at": datetime(2026, 5, 1, tzinfo=UTC),
        "changed_at": now,
        "lease_ms": 900_000,
        "expires_at": now + timedelta(minutes=15),
        "ended_because": "unban" if state == "ended" else "",
        "reasons": (ReasonSummary(sensor="fra1", rule="big", pps=number),),
    }
    return Mitigation(**{**facts, **other})


class House:
    """A mitigation topic, a web server, and webhooks between them."""

    def __init__(
        self, root: Path, bootstrap: str, receiver: Receiver, **kafka: str
    ) -> None:
        self.root = root
        self.topic = f"m{uuid4().hex[:8]}"
        self.receiver = receiver
        self.log = root / "webhook.log"
        self._group = f"g{self.topic}"
        self._kafka = {"bootstrap.servers": bootstrap, **kafka}
        self._producer = Producer({"bootstrap.servers": bootstrap, "log_level": 2})
        self._codec = Codec()
        self._config = root / "fnm-bus.toml"
        self._running: list[Server] = []
        (root / "url").write_text(f"{receiver.url}\n")
        (root / "secret").write_text("shared\n")
        self.configure(url_file=str(root / "url"), secret_file=str(root / "secret"))

    def configure(self, *, dry_run: bool = False, **webhook: str) -> None:
        timers = {"group_wait": 1.5, "group_interval": 300.0}
        of = {"group": self._group, **timers, **webhook}
        lines = [
            'sensor = "fra1"',
            f"dry_run = {json.dumps(dry_run)}",
            "[kafka]",
            *(f'"{name}" = {json.dumps(it)}' for name, it in self._kafka.items()),
            "[topics]",
            f'mitigation = "{self.topic}"',
            f'deadletter = "{self.topic}.deadletter"',
            "[consumers.webhook]",
            *(f"{name} = {json.dumps(it)}" for name, it in of.items()),
        ]
        self._config.write_text("\n".join(lines) + "\n")

    def start(self) -> Server:
        command = [sys.executable, "-m", "consumers", "webhook"]
        it = Server([*command, "--config", str(self._config)], self.log)
        it.start()
        self._running.append(it)
        return it

    def start_anew(self) -> Server:
        """Start the first webhook, and wait until its group has a place."""
        it = self.start()
        it.wait(lambda: NEW in self.log.read_text())
        return it

    def put(
        self, records: Iterable[Mitigation], broker: timedelta = timedelta(0)
    ) -> None:
        """Produce records; *broker* is how far the broker's clock is ahead."""
        # Encoded first, so that they come as close together as a storm does.
        made = [(it.key, self._codec.encode(it, self.topic)) for it in records]
        self.put_raw(made, broker)

    def put_raw(
        self, made: Iterable[tuple[str, bytes]], broker: timedelta = timedelta(0)
    ) -> None:
        at = round((datetime.now(UTC) + broker).timestamp() * 1000)
        failed: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                failed.append(error)

        for key, value in made:
            self._producer.produce(
                self.topic, value, key=key, timestamp=at, on_delivery=delivered
            )
        assert self._producer.flush(30) == 0
        assert failed == []

    def wait_committed(self) -> None:
        """Wait until the group is done with everything."""
        partitions = [TopicPartition(self.topic, it) for it in range(PARTITIONS)]
        consumer = Consumer({**self._kafka, "group.id": self._group, "log_level": 2})

        def done() -> bool:
            return all(
                it.offset == consumer.get_watermark_offsets(it, timeout=10)[1]
                for it in consumer.committed(partitions, timeout=10)
            )

        try:
            wait_until(done, 30, "everything committed")
        finally:
            consumer.close()

    def notices(self, count: int) -> list[dict[str, Any]]:
        return [json.loads(it.body) for it in self.receiver.wait_for(count)]

    def close(self) -> None:
        for it in self._running:
            it.kill()


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    made: list[House] = []
    with Receiver() as receiver:

        def make(bootstrap: str, **kafka: str) -> House:
            it = House(tmp_path, bootstrap, receiver, **kafka)
            made.append(it)
            return it

        yield make
        for it in made:
            it.close()


@pytest.fixture
def house(make_house: Callable[..., House], embedded_broker: str) -> House:
    # With the other protocol a group takes 3 s to begin.
    it = make_house(embedded_broker, **{"group.protocol": "consumer"})
    # The embedded broker makes a topic when somebody asks for it.
    Producer({"bootstrap.servers": embedded_broker}).list_topics(it.topic, timeout=10)
    return it


@pytest.fixture
def real_house(make_house: Callable[..., House], kafka: str) -> House:
    it = make_house(kafka)
    admin = TopicAdmin({"bootstrap.servers": kafka})
    # The producer's timestamps stand for a broker whose clock differs.
    any_time = {"message.timestamp.after.max.ms": str(2**62)}
    compact = {"cleanup.policy": "compact", **any_time}
    admin.create(
        [
            TopicSpec(it.topic, PARTITIONS, 1, compact),
            TopicSpec(f"{it.topic}.deadletter", 1, 1, {}),
        ]
    )
    return it


def check_two_posts(house: House) -> None:
    house.start_anew()
    house.put(mitigation(number) for number in range(1000))
    house.notices(1)
    # Renewals say nothing.
    house.put(mitigation(number, revision=2) for number in range(1000))
    house.put(mitigation(number, "ended") for number in range(1000))
    started, ended = house.notices(2)
    house.wait_committed()
    assert len(house.receiver.got) == 2
    assert (started["status"], ended["status"]) == ("started", "ended")
    assert started["started"] == 1000
    assert (ended["total"], ended["standing"]) == (1000, 0)
    assert ended["ends"] == {"unban": 1000}
    assert "and 990 more" in started["text"]
    assert started["storm"] == ended["storm"]


def test_a_thousand_mitigations_make_two_posts(house: House) -> None:
    check_two_posts(house)
    for got in house.receiver.got:
        wanted = hmac.new(b"shared", got.body, hashlib.sha256).hexdigest()
        assert got.headers["x-fnm-bus-signature"] == f"sha256={wanted}"
        assert got.headers["x-fnm-bus-key"] == json.loads(got.body)["key"]
    assert "s3cr3t" not in house.log.read_text()


def test_a_thousand_mitigations_on_a_real_kafka_make_two_posts(
    real_house: House,
) -> None:
    check_two_posts(real_house)


def test_a_notice_in_flight_is_repeated_after_a_kill(real_house: House) -> None:
    house = real_house
    first = house.start_anew()
    house.receiver.held.set()
    house.put(mitigation(number) for number in range(100))
    (before,) = house.notices(1)
    first.kill()
    house.receiver.held.clear()
    house.start()
    _, after = house.notices(2)
    for name in ("key", "storm", "status", "started"):
        assert after[name] == before[name]
    house.put(mitigation(number, "ended") for number in range(100))
    *_, ended = house.notices(3)
    house.wait_committed()
    assert (ended["status"], ended["total"]) == ("ended", 100)
    assert ended["storm"] == before["storm"]
    assert len(house.receiver.got) == 3


def test_a_storm_that_was_told_before_a_kill_is_told_to_be_over_after_it(
    real_house: House,
) -> None:
    house = real_house
    first = house.start_anew()
    house.put(mitigation(number) for number in range(100))
    (started,) = house.notices(1)
    house.wait_committed()
    first.kill()
    house.put(mitigation(number, "ended") for number in range(100))
    house.start()
    _, ended = house.notices(2)
    house.wait_committed()
    assert (ended["status"], ended["total"]) == ("ended", 100)
    assert ended["storm"] == started["storm"]
    assert len(house.receiver.got) == 2


def test_a_webhook_that_is_asked_to_stop_repeats_nothing(house: House) -> None:
    first = house.start_anew()
    house.receiver.held.set()
    house.put([mitigation(1)])
    house.notices(1)
    os.kill(first.pid, signal.SIGTERM)
    house.receiver.held.clear()
    wait_until(lambda: not first.alive, 30, "its end")
    house.put([mitigation(1, "ended")])
    house.start()
    started, ended = house.notices(2)
    assert (started["status"], ended["status"]) == ("started", "ended")
    assert "Traceback" not in house.log.read_text()


def test_what_comes_between_two_runs_is_told_even_on_an_empty_topic(
    real_house: House,
) -> None:
    house = real_house
    first = house.start_anew()
    first.kill()
    house.put([mitigation(1)])
    house.start()
    (started,) = house.notices(1)
    assert (started["status"], started["total"]) == ("started", 1)


def test_a_new_webhook_says_nothing_of_what_was_before(house: House) -> None:
    house.put([mitigation(1), mitigation(2), mitigation(2, "ended")])
    house.start_anew()
    house.put([mitigation(1, "ended"), mitigation(2, "ended"), mitigation(3)])
    (notice,) = house.notices(1)
    house.wait_committed()
    assert [it["prefix"] for it in notice["mitigations"]] == ["198.51.0.3/32"]
    assert len(house.receiver.got) == 1


PAUSE = {"key": "pause", "kind": "pause", "prefix": None, "lease_ms": 0}


def test_a_pause_does_not_wait(house: House) -> None:
    house.configure(url_file=str(house.root / "url"), group_wait="3600")
    house.start_anew()
    house.put([mitigation(1), mitigation(0, **PAUSE)])
    (notice,) = house.notices(1)
    assert notice["status"] == "paused"


def test_a_pause_ends_no_storm_and_resume_reports_what_is_back(
    real_house: House,
) -> None:
    house = real_house
    first = house.start_anew()
    house.put([mitigation(1), mitigation(2)])
    house.notices(1)
    house.put([mitigation(0, **PAUSE)])
    _, paused = house.notices(2)
    house.wait_committed()
    assert (paused["status"], paused["live"]) == ("paused", {"blackhole": 2})
    first.kill()
    house.put([mitigation(1, "ended")])
    house.start()
    house.put([mitigation(0, "ended", **PAUSE)])
    # The end of one mitigation waits for the interval; resume does not.
    *_, resumed = house.notices(3)
    assert resumed["status"] == "resumed"
    house.put([mitigation(2, "ended")])
    *_, ended = house.notices(4)
    house.wait_committed()
    assert (ended["status"], ended["total"]) == ("ended", 2)
    assert [json.loads(got.body)["status"] for got in house.receiver.got] == [
        "started",
        "paused",
        "resumed",
        "ended",
    ]


def test_a_new_webhook_learns_that_everything_is_paused(house: House) -> None:
    house.put([mitigation(0, **PAUSE)])
    house.start_anew()
    house.put([mitigation(1)])
    (notice,) = house.notices(1)
    assert (notice["status"], notice["paused"]) == ("started", True)


@pytest.mark.parametrize("days", [3, -3])
def test_a_clock_that_is_wrong_by_days_changes_no_storm(
    real_house: House, days: int
) -> None:
    house, broker = real_house, timedelta(days=days)
    first = house.start_anew()
    house.put([mitigation(number) for number in range(20)], broker)
    (started,) = house.notices(1)
    house.wait_committed()
    first.kill()
    house.start()
    house.put([mitigation(number, "ended") for number in range(20)], broker)
    _, ended = house.notices(2)
    house.wait_committed()
    assert (ended["status"], ended["ends"]) == ("ended", {"unban": 20})
    assert ended["storm"] == started["storm"]
    wrong = datetime.fromisoformat(ended["at"]) - datetime.now(UTC) - broker
    assert abs(wrong) < timedelta(minutes=1)


def test_records_that_are_nonsense_stop_nothing(real_house: House) -> None:
    house = real_house
    first = house.start_anew()
    nonsense = [
        mitigation(1, prefix="192.0.2.7/24"),
        mitigation(2, state="melted"),
        mitigation(3, created_at=datetime(1, 1, 2, tzinfo=UTC)),
    ]
    house.put(nonsense)
    house.put_raw([("k", b"\xc3\x01no Avro"), ("l", b"x")])
    house.put(mitigation(number) for number in range(100, 120))
    (started,) = house.notices(1)
    house.wait_committed()
    first.kill()
    house.start()
    house.put(mitigation(number, "ended") for number in range(100, 120))
    _, ended = house.notices(2)
    house.wait_committed()
    assert (started["total"], ended["total"]) == (20, 20)
    log = house.log.read_text()
    assert all(f"left out: {code}: " in log for code in ("prefix", "state", "time"))
    assert log.count("dead letter: ") == 2
    assert "Traceback" not in log


def test_a_server_that_is_away_does_not_keep_a_webhook_from_reading(
    house: House,
) -> None:
    house.receiver.held.set()
    house.start_anew()
    house.put([mitigation(1)])
    house.notices(1)
    house.put([mitigation(2, hostgroup="mail"), mitigation(3, hostgroup="dns")])
    wait_until(
        lambda: house.log.read_text().count("mitigation started (hostgroup") == 3,
        30,
        "three notices",
    )
    house.receiver.held.clear()
    house.notices(3)
    house.wait_committed()


def test_a_dry_run_logs_notices_and_sends_none(house: House) -> None:
    house.configure(dry_run=True, url_file=str(house.root / "url"))
    it = house.start_anew()
    house.put([mitigation(1)])
    it.wait(lambda: "dry run, not sent: notice" in house.log.read_text())
    house.wait_committed()
    text = house.log.read_text()
    assert text.count("notices are logged and not sent") == 1
    assert "1 mitigation started" in text
    assert house.receiver.got == []


def test_without_an_address_a_webhook_does_not_start(house: House) -> None:
    house.configure()
    it = house.start()
    wait_until(lambda: not it.alive, 30, "its end")
    assert "[consumers.webhook] url: wanted an address" in house.log.read_text()
