import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.notices import outgoing
from support.process import free_port, wait_until
from support.receiver import Answer, Receiver

from consumers.notifier import delivery
from consumers.notifier.delivery import DeliveryQueue
from consumers.notifier.http_sinks import HttpClient, WebhookSink
from consumers.notifier.metrics import NotifierMetrics

SECRET = b"shared"


def client(url: str, timeout: float = 5) -> HttpClient:
    return HttpClient(url, timeout, "[consumers.notifier] url")


class Sending:
    """A queue, and the keys of finished notices."""

    def __init__(self, url: str, retry_timeout: float = 60) -> None:
        self.notices = NotifierMetrics().notices
        sink = WebhookSink(client(url), SECRET)
        self.queue = DeliveryQueue(sink, retry_timeout, self.notices)
        self.finished: list[str] = []

    def put(self, *keys: str) -> None:
        for key in keys:
            self.queue.put(outgoing(key), lambda key=key: self.finished.append(key))

    def wait(self, count: int = 1) -> list[str]:
        def enough() -> bool:
            self.queue.settle()
            return len(self.finished) >= count

        wait_until(enough, 30, f"{count} finished notices")
        return self.finished

    def close(self, timeout: float = 10) -> None:
        self.queue.stop()
        self.queue.join(timeout)

    def count(self, result: str) -> float:
        metric = self.notices.labels("127.0.0.1", result)
        return float(metric.collect()[0].samples[0].value)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_FIRST_PAUSE", 0.02)


@pytest.fixture
def sending(receiver: Receiver) -> Iterator[Sending]:
    sending = Sending(receiver.url)
    yield sending
    sending.close()


def keys_of(receiver: Receiver) -> list[str]:
    return [request.headers["x-fnm-bus-key"] for request in receiver.got]


def test_unavailable_receiver_gets_notice_again(
    receiver: Receiver, sending: Sending
) -> None:
    receiver.answers += [Answer(503), Answer(503)]
    sending.put("key-1")
    assert sending.wait() == ["key-1"]
    assert keys_of(receiver) == ["key-1"] * 3
    assert sending.queue.is_idle
    assert sending.count("sent") == 1


def test_requested_pause_is_kept(receiver: Receiver, sending: Sending) -> None:
    receiver.answers.append(Answer(429, {"Retry-After": "1"}))
    sending.put("key-1")
    sending.wait()
    first, second = receiver.got
    assert second.at - first.at >= 1


def test_requested_pause_has_a_bound(
    receiver: Receiver, sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_LONGEST_REQUESTED", 0.05)
    receiver.answers.append(Answer(503, {"Retry-After": "99999999999999999999"}))
    sending.put("key-1")
    assert sending.wait() == ["key-1"]


def test_refused_notice_is_dropped_and_next_is_sent(
    receiver: Receiver, sending: Sending, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers.append(Answer(400, body=b"invalid_payload"))
    sending.put("key-1", "key-2")
    assert sending.wait(2) == ["key-1", "key-2"]
    assert keys_of(receiver) == ["key-1", "key-2"]
    (line,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert isinstance(line.msg, dict)
    assert line.msg["event"] == "notice_dropped"
    assert line.msg["notice"] == "key-1"
    assert line.msg["title"] == "1 mitigation started"
    assert str(line.msg["error"]).endswith("127.0.0.1: status 400: invalid_payload")
    assert (sending.count("dropped"), sending.count("sent")) == (1, 1)


def test_restored_receiver_gets_notices_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    sending = Sending(f"http://127.0.0.1:{port}/hook")
    keys = ["key-0", "key-1", "key-2"]
    sending.put(*keys)
    wait_until(lambda: "notice_retried" in caplog.text, 30, "a failed attempt")
    with Receiver(port) as receiver:
        assert sending.wait(3) == keys
        assert keys_of(receiver) == keys
    sending.close()


def test_notice_is_dropped_after_retry_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sending = Sending(f"http://127.0.0.1:{free_port()}/", 0.1)
    sending.put("key-1")
    assert sending.wait() == ["key-1"]
    sending.close()
    assert "'event': 'notice_dropped'" in caplog.text
    assert sending.count("dropped") == 1


def test_hanging_receiver_does_not_delay_put(
    receiver: Receiver, sending: Sending
) -> None:
    receiver.held.set()
    started = time.monotonic()
    sending.put(*(f"key-{number}" for number in range(100)))
    assert time.monotonic() - started < 2
    receiver.wait_for(1)
    sending.queue.settle()
    assert sending.finished == []
    receiver.held.clear()
    assert len(sending.wait(100)) == 100


def test_close_starts_no_other_attempt(receiver: Receiver, sending: Sending) -> None:
    receiver.held.set()
    sending.put("key-1", "key-2")
    receiver.wait_for(1)
    sending.close(0.05)
    receiver.held.clear()
    assert sending.wait() == ["key-1"]
    sending.close()
    assert len(receiver.got) == 1
    assert not sending.queue.is_idle


def test_fault_of_a_sink_drops_one_notice(
    receiver: Receiver, sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: Any) -> None:
        raise RuntimeError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(WebhookSink, "send", broken)
        sending.put("key-1")
        sending.wait()
    sending.put("key-2")
    assert sending.wait(2) == ["key-1", "key-2"]
    assert keys_of(receiver) == ["key-2"]
    assert sending.count("dropped") == 1


def test_fault_in_the_thread_is_raised(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: Any) -> None:
        raise MemoryError("injected")

    monkeypatch.setattr(WebhookSink, "send", broken)
    sending.put("key-1")
    with pytest.raises(MemoryError, match="injected"):
        sending.wait()


def test_queue_has_bounds_in_number_and_size(
    receiver: Receiver, sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.held.set()
    monkeypatch.setattr(delivery, "_MAX_WAITING", 3)
    for number in range(3):
        assert not sending.queue.is_full
        sending.put(f"key-{number}")
    assert sending.queue.is_full
    monkeypatch.setattr(delivery, "_MAX_WAITING", 1000)
    assert not sending.queue.is_full
    monkeypatch.setattr(delivery, "_MAX_BYTES", 3 * len(outgoing().body))
    assert sending.queue.is_full
    receiver.held.clear()
    sending.wait(3)
    assert not sending.queue.is_full
