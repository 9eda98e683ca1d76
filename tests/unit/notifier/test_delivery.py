import hashlib
import hmac
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from support.process import free_port, wait_until
from support.receiver import Answer, Receiver

from consumers.mitigation.clock import now as boottime
from consumers.notifier import delivery
from consumers.notifier.apprise_sink import AppriseSink
from consumers.notifier.delivery import DeliveryQueue
from consumers.notifier.http_sinks import (
    HttpClient,
    WebhookSink,
    alert_of,
    retry_after,
)
from consumers.notifier.metrics import NotifierMetrics
from consumers.notifier.notice import notice_of
from consumers.notifier.service import secret_of, sinks_of
from consumers.notifier.sink import (
    LogSink,
    NoticeRefused,
    OutgoingNotice,
    SinkUnavailable,
)
from consumers.settings import NotifierSettings
from consumers.storms.update import PAUSED, STARTED, ChangeId, GroupRef, StormUpdate
from fnm_bus.errors import ConfigError

SECRET = b"shared"


def outgoing(key: str = "key-1") -> OutgoingNotice:
    update = StormUpdate(STARTED, GroupRef(), ChangeId(), 0, ())
    notice = notice_of(update, datetime.now(UTC))
    notice = msgspec.structs.replace(notice, key=key, title="1 mitigation started")
    return OutgoingNotice(notice, b'{"version":1}', 0)


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
    sending.queue.close(10)


def keys_of(receiver: Receiver) -> list[str]:
    return [request.headers["x-fnm-bus-key"] for request in receiver.got]


def refusal(receiver: Receiver, answer: Answer) -> str:
    receiver.answers.append(answer)
    with pytest.raises(NoticeRefused) as raised:
        client(receiver.url).post(b"", {})
    return str(raised.value)


@pytest.mark.parametrize("secret", [SECRET, None])
def test_notice_is_posted_with_key_and_signature(
    receiver: Receiver, secret: bytes | None
) -> None:
    WebhookSink(client(receiver.url), secret).send(outgoing())
    (request,) = receiver.got
    assert request.path == "/services/T00/s3cr3t-path"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-fnm-bus-key"] == "key-1"
    signature = request.headers.get("x-fnm-bus-signature")
    if secret is None:
        assert signature is None
    else:
        digest = hmac.new(secret, request.body, hashlib.sha256).hexdigest()
        assert signature == f"sha256={digest}"


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
    message = line.getMessage()
    assert "notice key-1 (1 mitigation started)" in message
    assert message.endswith("127.0.0.1: status 400: invalid_payload")
    assert (sending.count("dropped"), sending.count("sent")) == (1, 1)


def test_restored_receiver_gets_notices_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    sending = Sending(f"http://127.0.0.1:{port}/hook")
    keys = ["key-0", "key-1", "key-2"]
    sending.put(*keys)
    wait_until(lambda: "retrying: notice key-0" in caplog.text, 30, "a failed attempt")
    with Receiver(port) as receiver:
        assert sending.wait(3) == keys
        assert keys_of(receiver) == keys
    sending.queue.close(10)


def test_notice_is_dropped_after_retry_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sending = Sending(f"http://127.0.0.1:{free_port()}/", 0.1)
    sending.put("key-1")
    assert sending.wait() == ["key-1"]
    sending.queue.close(10)
    assert "dropped after 0 s: notice key-1" in caplog.text
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


def test_hanging_receiver_times_out(receiver: Receiver) -> None:
    receiver.held.set()
    with pytest.raises(SinkUnavailable, match="ReadTimeout"):
        client(receiver.url, 0.2).post(b"", {})


def test_close_starts_no_other_attempt(receiver: Receiver, sending: Sending) -> None:
    receiver.held.set()
    sending.put("key-1", "key-2")
    receiver.wait_for(1)
    sending.queue.close(0.05)
    receiver.held.clear()
    assert sending.wait() == ["key-1"]
    sending.queue.close(10)
    assert len(receiver.got) == 1
    assert not sending.queue.is_idle


def test_fault_in_the_thread_is_raised(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: Any) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr(WebhookSink, "send", broken)
    sending.put("key-1")
    with pytest.raises(RuntimeError, match="injected"):
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


@pytest.mark.parametrize(
    ("status", "name"),
    [(STARTED, "FnmBusStorm"), (PAUSED, "FnmBusMitigationsPaused")],
)
def test_alert_has_constant_labels_and_end_of_lease(status: str, name: str) -> None:
    update = StormUpdate(status, GroupRef("customer", "acme"), ChangeId(), 0, ())
    notice = notice_of(update, datetime.now(UTC))
    alert: Any = alert_of(OutgoingNotice(notice, b"", boottime() + 600))
    assert alert["labels"] == {
        "alertname": name,
        "storm": notice.storm,
        "customer": "acme",
    }
    end = datetime.fromisoformat(alert["endsAt"]) - datetime.now(UTC)
    assert timedelta(seconds=590) < end <= timedelta(seconds=600)
    assert alert["startsAt"] <= alert["endsAt"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    with Receiver() as elsewhere:
        text = refusal(receiver, Answer(status, {"Location": elsewhere.url}))
        assert f"status {status}, a redirect" in text
        assert elsewhere.got == []


@pytest.mark.parametrize(
    "answer",
    [
        b"no such hook: /services/T00/s3cr3t-path",
        b"token s3cr3t-path is unknown",
        b'{"error":"T00%2Fs3cr3t-path, s3cr3t-path"}',
    ],
)
def test_secret_of_address_is_not_quoted(receiver: Receiver, answer: bytes) -> None:
    text = refusal(receiver, Answer(404, body=answer))
    assert "127.0.0.1: status 404" in text
    assert "s3cr3t" not in text


def test_long_answer_is_cut(receiver: Receiver) -> None:
    text = refusal(receiver, Answer(403, body=b"<html>\n" + b"x" * 10_000))
    assert len(text) < 300
    assert "<html> x" in text


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_these_answers_are_retried(receiver: Receiver, status: int) -> None:
    receiver.answers.append(Answer(status))
    with pytest.raises(SinkUnavailable, match=str(status)):
        client(receiver.url).post(b"", {})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.net/x",
        "ftp://example.net/s3cr3t",
        "file:///etc/s3cr3t",
        "https:///s3cr3t",
        "https://example.net:port/s3cr3t",
        "https://ann:s3cr3t@example.net/",
        "https://example.net/s3cr3t\nX: y",
        "https://example.net/s3cr3t x",
        "https://[::1/s3cr3t",
        "https://a..b/s3cr3t",
    ],
)
def test_invalid_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"\[consumers.notifier\] url") as raised:
        client(url)
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["slack://s3cr3t", "s3cr3t", "unknown://s3cr3t", "pagerduty://@s3cr3t"]
)
def test_invalid_apprise_address_is_refused_and_not_shown(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"^apprise_file: ") as raised:
        AppriseSink(url, 5, "apprise_file")
    assert "s3cr3t" not in str(raised.value) + caplog.text


def test_secret_file_may_end_with_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("shared\n")
    assert secret_of(path, "secret_file") == "shared"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfes3cr3t"])
def test_unusable_secret_names_setting_and_file(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^secret_file: {path}") as raised:
        secret_of(path, "secret_file")
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("0", 0.0), ("", None), ("-1", None), ("soon", None), ("1.5", None)],
)
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    assert retry_after(httpx2.Headers({"Retry-After": text})) == seconds


def test_retry_after_as_a_time() -> None:
    then = datetime.now(UTC) + timedelta(seconds=60)
    text = format_datetime(then, usegmt=True)
    assert 50 < (retry_after(httpx2.Headers({"Retry-After": text})) or 0) <= 60
    assert retry_after(httpx2.Headers()) is None


def test_dry_run_needs_no_sink() -> None:
    (sink,) = sinks_of(NotifierSettings(), dry_run=True)
    assert isinstance(sink, LogSink)


def test_live_notifier_needs_a_sink() -> None:
    with pytest.raises(ConfigError, match=r"\[consumers\.notifier\]: no receiver"):
        sinks_of(NotifierSettings(), dry_run=False)


def test_settings_name_all_sinks(tmp_path: Path) -> None:
    url, apprise = tmp_path / "url", tmp_path / "apprise"
    url.write_text("https://hooks.example.net/T0/B0/x\n")
    apprise.write_text("# mail\nmailto://ann:secret@example.net\n\njson://localhost/\n")
    settings = NotifierSettings(
        url_file=url, alertmanager_urls=("http://am:9093/",), apprise_file=apprise
    )
    sinks = sinks_of(settings, dry_run=False)
    names = [sink.name for sink in sinks]
    assert names == ["hooks.example.net", "am", "mailto", "json"]
    assert [sink.renews for sink in sinks] == [False, True, False, False]


@pytest.mark.parametrize("name", ["url_file", "secret_file", "apprise_file"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "missing"
    settings = NotifierSettings.model_validate(
        {"url": "https://example.net/", name: path}
    )
    with pytest.raises(ConfigError, match=rf"notifier\] {name}: {path}"):
        sinks_of(settings, dry_run=False)
