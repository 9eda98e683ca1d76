"""The notifier as a process: records on Kafka in, requests on a web server out."""

import hashlib
import hmac
import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer
from support.notifier_process import PARTITIONS, NotifierProcess, mitigation
from support.process import wait_until
from support.receiver import Receiver

from fnm_bus.kafka.topic_admin import TopicAdmin
from fnm_bus.kafka.topics import TopicSpec


@pytest.fixture
def make_process(tmp_path: Path) -> Iterator[Callable[..., NotifierProcess]]:
    made: list[NotifierProcess] = []
    with Receiver() as receiver:

        def make(bootstrap: str, **kafka: str) -> NotifierProcess:
            made.append(NotifierProcess(tmp_path, bootstrap, receiver, **kafka))
            return made[-1]

        yield make
        for process in made:
            process.close()


@pytest.fixture
def process(
    make_process: Callable[..., NotifierProcess], embedded_broker: str
) -> NotifierProcess:
    # With the other protocol a group needs 3 s to start.
    made = make_process(embedded_broker, **{"group.protocol": "consumer"})
    # The embedded broker creates a topic at the first request.
    Producer({"bootstrap.servers": embedded_broker}).list_topics(made.topic, timeout=10)
    return made


@pytest.fixture
def real_process(
    make_process: Callable[..., NotifierProcess], kafka: str
) -> NotifierProcess:
    made = make_process(kafka)
    admin = TopicAdmin({"bootstrap.servers": kafka})
    # The producer's timestamps represent a broker whose clock differs.
    any_time = {"message.timestamp.after.max.ms": str(2**62)}
    compact = {"cleanup.policy": "compact", **any_time}
    admin.create(
        [
            TopicSpec(made.topic, PARTITIONS, 1, compact),
            TopicSpec(f"{made.topic}.deadletter", 1, 1, {}),
        ]
    )
    return made


def check_two_posts(process: NotifierProcess) -> None:
    process.start_first()
    process.put(mitigation(number) for number in range(1000))
    process.notices(1)
    # Renewals make no notice.
    process.put(mitigation(number, revision=2) for number in range(1000))
    process.put(mitigation(number, "ended") for number in range(1000))
    started, ended = process.notices(2)
    process.wait_committed()
    assert len(process.receiver.got) == 2
    assert (started["status"], ended["status"]) == ("started", "ended")
    assert started["started"] == 1000
    assert (ended["total"], ended["active"]) == (1000, 0)
    assert ended["ended_because"] == {"unban": 1000}
    assert "and 990 more" in started["text"]
    assert started["storm"] == ended["storm"]


def test_thousand_mitigations_make_two_posts(process: NotifierProcess) -> None:
    check_two_posts(process)
    for got in process.receiver.got:
        wanted = hmac.new(b"shared", got.body, hashlib.sha256).hexdigest()
        assert got.headers["x-fnm-bus-signature"] == f"sha256={wanted}"
        assert got.headers["x-fnm-bus-key"] == json.loads(got.body)["key"]
    assert "s3cr3t" not in process.log.read_text()


def test_thousand_mitigations_on_kafka_make_two_posts(
    real_process: NotifierProcess,
) -> None:
    check_two_posts(real_process)


def test_unfinished_notice_is_repeated_after_a_kill(
    real_process: NotifierProcess,
) -> None:
    process = real_process
    first = process.start_first()
    process.receiver.held.set()
    process.put(mitigation(number) for number in range(100))
    (before,) = process.notices(1)
    first.kill()
    process.receiver.held.clear()
    process.start()
    _, after = process.notices(2)
    for name in ("key", "storm", "status", "started"):
        assert after[name] == before[name]
    process.put(mitigation(number, "ended") for number in range(100))
    *_, ended = process.notices(3)
    process.wait_committed()
    assert (ended["status"], ended["total"]) == ("ended", 100)
    assert ended["storm"] == before["storm"]
    assert len(process.receiver.got) == 3


def test_storm_reported_before_a_kill_ends_after_it(
    real_process: NotifierProcess,
) -> None:
    process = real_process
    first = process.start_first()
    process.put(mitigation(number) for number in range(100))
    (started,) = process.notices(1)
    process.wait_committed()
    first.kill()
    process.put(mitigation(number, "ended") for number in range(100))
    process.start()
    _, ended = process.notices(2)
    process.wait_committed()
    assert (ended["status"], ended["total"]) == ("ended", 100)
    assert ended["storm"] == started["storm"]
    assert len(process.receiver.got) == 2


def test_sigterm_repeats_no_notice(process: NotifierProcess) -> None:
    first = process.start_first()
    process.receiver.held.set()
    process.put([mitigation(1)])
    process.notices(1)
    os.kill(first.pid, signal.SIGTERM)
    process.receiver.held.clear()
    wait_until(lambda: not first.alive, 30, "its end")
    process.put([mitigation(1, "ended")])
    process.start()
    started, ended = process.notices(2)
    assert (started["status"], ended["status"]) == ("started", "ended")
    assert "Traceback" not in process.log.read_text()


def test_records_between_two_runs_are_reported(real_process: NotifierProcess) -> None:
    process = real_process
    first = process.start_first()
    first.kill()
    process.put([mitigation(1)])
    process.start()
    (started,) = process.notices(1)
    assert (started["status"], started["total"]) == ("started", 1)


def test_new_group_reports_no_earlier_mitigation(process: NotifierProcess) -> None:
    process.put([mitigation(1), mitigation(2), mitigation(2, "ended")])
    process.start_first()
    process.put([mitigation(1, "ended"), mitigation(2, "ended"), mitigation(3)])
    (notice,) = process.notices(1)
    process.wait_committed()
    assert [item["prefix"] for item in notice["mitigations"]] == ["198.51.0.3/32"]
    assert len(process.receiver.got) == 1


PAUSE = {"key": "pause", "kind": "pause", "prefix": None, "lease_ms": 0}


def test_pause_does_not_wait(process: NotifierProcess) -> None:
    process.configure(url_file=str(process.root / "url"), group_wait="3600")
    process.start_first()
    process.put([mitigation(1), mitigation(0, **PAUSE)])
    (notice,) = process.notices(1)
    assert notice["status"] == "paused"


def test_pause_ends_no_storm_and_resume_is_reported(
    real_process: NotifierProcess,
) -> None:
    process = real_process
    first = process.start_first()
    process.put([mitigation(1), mitigation(2)])
    process.notices(1)
    process.put([mitigation(0, **PAUSE)])
    _, paused = process.notices(2)
    process.wait_committed()
    assert (paused["status"], paused["live"]) == ("paused", {"blackhole": 2})
    first.kill()
    process.put([mitigation(1, "ended")])
    process.start()
    process.put([mitigation(0, "ended", **PAUSE)])
    # The end of one mitigation waits for the interval; resume does not.
    *_, resumed = process.notices(3)
    assert resumed["status"] == "resumed"
    process.put([mitigation(2, "ended")])
    *_, ended = process.notices(4)
    process.wait_committed()
    assert (ended["status"], ended["total"]) == ("ended", 2)
    assert [json.loads(got.body)["status"] for got in process.receiver.got] == [
        "started",
        "paused",
        "resumed",
        "ended",
    ]


def test_new_group_reads_the_pause(process: NotifierProcess) -> None:
    process.put([mitigation(0, **PAUSE)])
    process.start_first()
    process.put([mitigation(1)])
    (notice,) = process.notices(1)
    assert (notice["status"], notice["paused"]) == ("started", True)


@pytest.mark.parametrize("days", [3, -3])
def test_wrong_clock_changes_no_storm(real_process: NotifierProcess, days: int) -> None:
    process, broker = real_process, timedelta(days=days)
    first = process.start_first()
    process.put([mitigation(number) for number in range(20)], broker)
    (started,) = process.notices(1)
    process.wait_committed()
    first.kill()
    process.start()
    process.put([mitigation(number, "ended") for number in range(20)], broker)
    _, ended = process.notices(2)
    process.wait_committed()
    assert (ended["status"], ended["ended_because"]) == ("ended", {"unban": 20})
    assert ended["storm"] == started["storm"]
    wrong = datetime.fromisoformat(ended["at"]) - datetime.now(UTC) - broker
    assert abs(wrong) < timedelta(minutes=1)


def test_invalid_records_stop_nothing(real_process: NotifierProcess) -> None:
    process = real_process
    first = process.start_first()
    invalid = [
        mitigation(1, prefix="192.0.2.7/24"),
        mitigation(2, state="melted"),
        mitigation(3, created_at=datetime(1, 1, 2, tzinfo=UTC)),
    ]
    process.put(invalid)
    process.put_raw([("k", b"\xc3\x01no Avro"), ("l", b"x")])
    process.put(mitigation(number) for number in range(100, 120))
    (started,) = process.notices(1)
    process.wait_committed()
    first.kill()
    process.start()
    process.put(mitigation(number, "ended") for number in range(100, 120))
    _, ended = process.notices(2)
    process.wait_committed()
    assert (started["total"], ended["total"]) == (20, 20)
    log = process.log.read_text()
    codes = ("measure", "state", "time")
    assert all(f"record_skipped code={code} " in log for code in codes)
    assert log.count("dead_letter ") == 2
    assert "Traceback" not in log


def test_unreachable_receiver_does_not_stop_reading(process: NotifierProcess) -> None:
    process.receiver.held.set()
    process.start_first()
    process.put([mitigation(1)])
    process.notices(1)
    process.put([mitigation(2, hostgroup="mail"), mitigation(3, hostgroup="dns")])
    wait_until(
        lambda: process.log.read_text().count("mitigation started (hostgroup") == 3,
        30,
        "three notices",
    )
    process.receiver.held.clear()
    process.notices(3)
    process.wait_committed()


def test_dry_run_logs_notices_and_sends_none(process: NotifierProcess) -> None:
    process.configure(dry_run=True, url_file=str(process.root / "url"))
    server = process.start_first()
    process.put([mitigation(1)])
    server.wait(lambda: "notice_not_sent" in process.log.read_text())
    process.wait_committed()
    text = process.log.read_text()
    assert text.count("set dry_run = false to send notices") == 1
    assert "1 mitigation started" in text
    assert process.receiver.got == []


def test_notifier_without_receiver_does_not_start(process: NotifierProcess) -> None:
    process.configure()
    server = process.start()
    wait_until(lambda: not server.alive, 30, "its end")
    assert "[consumers.notifier]: no receiver" in process.log.read_text()
