import hashlib
import hmac
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
from support.notices import outgoing
from support.receiver import Answer, Receiver

from consumers.mitigation.clock import now as boottime
from consumers.notifier.http_sinks import HttpClient, WebhookSink, alert_of, retry_after
from consumers.notifier.notice import notice_of
from consumers.notifier.sink import NoticeRefused, OutgoingNotice, SinkUnavailable
from consumers.storms.group import GroupRef
from consumers.storms.update import PAUSED, STARTED, ChangeId, StormUpdate
from fnm_bus.errors import ConfigError


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def client(url: str, timeout: float = 5) -> HttpClient:
    return HttpClient(url, timeout, "[consumers.notifier] url")


def refusal(receiver: Receiver, answer: Answer) -> str:
    receiver.answers.append(answer)
    with pytest.raises(NoticeRefused) as raised:
        client(receiver.url).post(b"", {})
    return str(raised.value)


@pytest.mark.parametrize("secret", [b"shared", None])
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


def test_hanging_receiver_times_out(receiver: Receiver) -> None:
    receiver.held.set()
    with pytest.raises(SinkUnavailable, match="ReadTimeout"):
        client(receiver.url, 0.2).post(b"", {})


@pytest.mark.parametrize(
    ("status", "name"), [(STARTED, "FnmBusStorm"), (PAUSED, "FnmBusMitigationsPaused")]
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


def test_undecodable_answer_is_retried(receiver: Receiver) -> None:
    receiver.answers.append(Answer(502, {"Content-Encoding": "gzip"}, b"plain"))
    with pytest.raises(SinkUnavailable):
        client(receiver.url).post(b"", {})


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
