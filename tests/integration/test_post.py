import hashlib
import hmac
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from pathlib import Path

import pytest
from support.process import free_port, wait_until
from support.receiver import Answer, Receiver

from consumers.webhook import outbox
from consumers.webhook.outbox import Outbox
from consumers.webhook.post import (
    Letter,
    NotTaken,
    Post,
    Refused,
    retry_after,
    secret_of,
)
from fnm_bus.errors import ConfigError

SECRET = b"shared"
LETTER = Letter("key-1", "1 mitigation started", b'{"version":1}')


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as it:
        yield it


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_FIRST", 0.02)


@pytest.fixture
def sent(receiver: Receiver) -> Iterator[Outbox[str]]:
    it: Outbox[str] = Outbox(Post(receiver.url, SECRET, 5), 60)
    yield it
    it.close(10)


def wait_done(it: Outbox[str], count: int = 1) -> list[str]:
    found: list[str] = []

    def enough() -> bool:
        found.extend(it.done())
        return len(found) >= count

    wait_until(enough, 30, f"{count} notices that are done")
    return found


def refusal(receiver: Receiver, answer: Answer) -> str:
    receiver.answers.append(answer)
    with pytest.raises(Refused) as caught:
        Post(receiver.url, None, 5).send(LETTER)
    return str(caught.value)


def test_a_notice_is_posted_with_its_key_and_a_signature(receiver: Receiver) -> None:
    Post(receiver.url, SECRET, 5).send(LETTER)
    (got,) = receiver.got
    assert got.path == "/services/T00/s3cr3t-path"
    assert got.body == LETTER.body
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-fnm-bus-key"] == "key-1"
    wanted = hmac.new(SECRET, got.body, hashlib.sha256).hexdigest()
    assert got.headers["x-fnm-bus-signature"] == f"sha256={wanted}"


def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    Post(receiver.url, None, 5).send(LETTER)
    assert "x-fnm-bus-signature" not in receiver.got[0].headers


def test_what_a_server_cannot_take_now_is_sent_again(
    receiver: Receiver, sent: Outbox[str]
) -> None:
    receiver.answers += [Answer(503), Answer(503)]
    sent.put(LETTER, "one")
    assert wait_done(sent) == ["one"]
    assert [it.headers["x-fnm-bus-key"] for it in receiver.got] == ["key-1"] * 3
    assert sent.idle


def test_a_server_that_asks_for_time_gets_it(
    receiver: Receiver, sent: Outbox[str]
) -> None:
    receiver.answers.append(Answer(429, {"Retry-After": "1"}))
    sent.put(LETTER, "one")
    wait_done(sent)
    first, second = receiver.got
    assert second.at - first.at >= 1


def test_a_server_cannot_ask_for_ever(
    receiver: Receiver, sent: Outbox[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_LONGEST_ASKED", 0.05)
    receiver.answers.append(Answer(503, {"Retry-After": "99999999999999999999"}))
    sent.put(LETTER, "one")
    assert wait_done(sent) == ["one"]


def test_a_refused_notice_is_given_up_and_the_next_one_is_sent(
    receiver: Receiver, sent: Outbox[str], caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers.append(Answer(400, body=b"invalid_payload"))
    sent.put(LETTER, "one")
    sent.put(LETTER._replace(key="key-2"), "two")
    assert wait_done(sent, 2) == ["one", "two"]
    assert [it.headers["x-fnm-bus-key"] for it in receiver.got] == ["key-1", "key-2"]
    (line,) = [it for it in caplog.records if it.levelno == logging.ERROR]
    assert line.getMessage() == (
        "given up: notice key-1 (1 mitigation started): 127.0.0.1: 400: invalid_payload"
    )


def test_a_dead_server_gets_its_notices_in_order_once_it_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    it: Outbox[str] = Outbox(Post(f"http://127.0.0.1:{port}/hook", None, 5), 60)
    for number in range(3):
        it.put(LETTER._replace(key=f"key-{number}"), str(number))
    wait_until(lambda: "tried again" in caplog.text, 30, "a failed attempt")
    with Receiver(port) as receiver:
        assert wait_done(it, 3) == ["0", "1", "2"]
        keys = [got.headers["x-fnm-bus-key"] for got in receiver.got]
    it.close(10)
    assert keys == ["key-0", "key-1", "key-2"]


def test_what_nobody_takes_is_given_up_in_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it: Outbox[str] = Outbox(Post(f"http://127.0.0.1:{free_port()}/", None, 5), 0.1)
    it.put(LETTER, "one")
    assert wait_done(it) == ["one"]
    it.close(10)
    assert "given up after 0 s: notice key-1" in caplog.text


def test_putting_does_not_wait_for_a_server_that_hangs(
    receiver: Receiver, sent: Outbox[str]
) -> None:
    receiver.held.set()
    started = time.monotonic()
    for number in range(100):
        sent.put(LETTER, str(number))
    assert time.monotonic() - started < 2
    receiver.wait_for(1)
    assert sent.done() == []
    receiver.held.clear()
    assert len(wait_done(sent, 100)) == 100


def test_a_server_that_hangs_is_left_after_the_timeout(receiver: Receiver) -> None:
    receiver.held.set()
    with pytest.raises(NotTaken, match="timed out"):
        Post(receiver.url, None, 0.2).send(LETTER)


def test_closing_begins_no_other_attempt(receiver: Receiver, sent: Outbox[str]) -> None:
    receiver.held.set()
    sent.put(LETTER, "one")
    sent.put(LETTER, "two")
    receiver.wait_for(1)
    sent.close(0.05)
    receiver.held.clear()
    assert wait_done(sent) == ["one"]
    sent.close(10)
    assert len(receiver.got) == 1
    assert not sent.idle


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    with Receiver() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            text = refusal(receiver, Answer(status, {"Location": elsewhere.url}))
            assert f"{status}, a redirect to 127.0.0.1; none is followed" in text
        assert elsewhere.got == []


@pytest.mark.parametrize(
    "answer",
    [
        b"no such hook: /services/T00/s3cr3t-path",
        b"token s3cr3t-path is unknown",
        b'{"error":"T00%2Fs3cr3t-path, s3cr3t-path"}',
    ],
)
def test_what_is_secret_in_the_address_is_not_quoted(
    receiver: Receiver, answer: bytes
) -> None:
    text = refusal(receiver, Answer(404, body=answer))
    assert "127.0.0.1: 404: " in text
    assert "s3cr3t" not in text


def test_an_answer_is_quoted_in_part(receiver: Receiver) -> None:
    text = refusal(receiver, Answer(403, body=b"<html>\n" + b"x" * 10_000))
    assert len(text) < 300
    assert "\n" not in text


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_these_answers_ask_for_another_attempt(receiver: Receiver, status: int) -> None:
    receiver.answers.append(Answer(status))
    with pytest.raises(NotTaken, match=str(status)):
        Post(receiver.url, None, 5).send(LETTER)


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
def test_an_address_that_cannot_be_used_is_refused_without_being_shown(
    url: str,
) -> None:
    with pytest.raises(ConfigError, match=r"\[consumers.webhook\] url") as caught:
        Post(url, None, 5)
    assert "s3cr3t" not in str(caught.value)


def test_a_secret_is_read_without_the_line_end(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("shared\n")
    assert secret_of(path, "secret_file") == "shared"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfes3cr3t"])
def test_a_secret_that_cannot_be_used_names_setting_and_file(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^secret_file: {path}") as caught:
        secret_of(path, "secret_file")
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("0", 0.0), ("", None), ("-1", None), ("soon", None), ("1.5", None)],
)
def test_retry_after_is_understood_in_seconds(text: str, seconds: float | None) -> None:
    headers = Message()
    headers["Retry-After"] = text
    assert retry_after(headers) == seconds


def test_retry_after_is_understood_as_a_time() -> None:
    headers = Message()
    then = datetime.now(UTC) + timedelta(seconds=60)
    headers["Retry-After"] = format_datetime(then, usegmt=True)
    assert 50 < (retry_after(headers) or 0) <= 60
    assert retry_after(Message()) is None


def test_a_thread_that_broke_is_not_silent(
    receiver: Receiver, sent: Outbox[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Post, _letter: Letter) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Post, "send", broken)
    sent.put(LETTER, "one")
    with pytest.raises(RuntimeError, match="a fault of ours"):
        wait_done(sent)
    assert receiver.got == []


def test_notices_that_wait_have_a_bound_in_number_and_size(
    receiver: Receiver, sent: Outbox[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.held.set()
    monkeypatch.setattr(outbox, "_MAX_WAITING", 3)
    for number in range(3):
        assert not sent.full
        sent.put(LETTER, str(number))
    assert sent.full
    monkeypatch.setattr(outbox, "_MAX_WAITING", 1000)
    assert not sent.full
    monkeypatch.setattr(outbox, "_MAX_BYTES", 3 * len(LETTER.body))
    assert sent.full
    receiver.held.clear()
    wait_done(sent, 3)
    assert not sent.full
    sent.put(LETTER, "three")
    assert not sent.full
    wait_done(sent)
