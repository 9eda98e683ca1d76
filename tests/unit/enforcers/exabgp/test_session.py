"""The conversation with ExaBGP, its side played by the test; pipes are real."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest
from support.process import wait_until

from consumers.enforcers.backend import BackendError
from consumers.enforcers.exabgp import session as session_module
from consumers.enforcers.exabgp.session import ExabgpExited, Session

HELLO = b"reset\nshow neighbor json\n"
UP = b'[{"fsm": "ESTABLISHED", "messages": {"sent": {"update": 7}}}]\ndone\n'
NEWS = b'{ "exabgp": "5.0.0", "type": "state", "neighbor": { "state": "%s" %s} }\n'


class Other:
    """ExaBGP's ends of the two pipes."""

    def __init__(self) -> None:
        self.from_us, self.writing = os.pipe()
        self.reading, self.to_us = os.pipe()
        self._open = {self.from_us, self.writing, self.reading, self.to_us}

    def expect(self, text: bytes) -> None:
        read = b""
        while len(read) < len(text):
            read += os.read(self.from_us, len(text) - len(read))
        assert read == text

    def say(self, text: bytes) -> None:
        os.write(self.to_us, text)

    def end(self, *fds: int) -> None:
        for fd in self._open & set(fds or self._open):
            os.close(fd)
            self._open.discard(fd)


@pytest.fixture
def other() -> Iterator[Other]:
    it = Other()
    yield it
    it.end()


@pytest.fixture
def session(other: Other) -> Iterator[Session]:
    it = Session(other.reading, other.writing, timeout=0.2)
    yield it
    it.close()


def talk(*steps: Callable[[], object]) -> threading.Thread:
    """Play ExaBGP in a thread."""
    it = threading.Thread(target=lambda: [step() for step in steps])
    it.start()
    return it


def test_nothing_is_done_before_something_is_asked(other: Other) -> None:
    before = threading.active_count()
    session = Session(other.reading, other.writing)
    assert threading.active_count() == before
    session.close()
    assert not session.up


def test_what_is_listed_comes_back(other: Other, session: Session) -> None:
    other.say(UP + b'{"peer": 1}\n{"peer": 2}\ndone\n')
    assert session.request(["show"]) == [b'{"peer": 1}', b'{"peer": 2}']
    other.expect(HELLO + b"show\n")
    assert session.up


def test_answers_to_a_predecessor_are_not_ours(other: Other, session: Session) -> None:
    other.say(b'done\n{"peer": 1}\nerror\ndone\n' + UP + b'{"peer": 2}\ndone\n')
    assert session.request(["show"]) == [b'{"peer": 2}']


def test_a_refused_command_is_named(other: Other, session: Session) -> None:
    other.say(UP + b"done\nerror\ndone\n")
    with pytest.raises(BackendError, match=r"1 of 3 commands; the first: b") as caught:
        session.request(["a", "b", "c"])
    assert caught.value.retryable


def test_a_late_answer_is_not_taken_for_the_next_one(
    other: Other, session: Session
) -> None:
    other.say(UP)
    with pytest.raises(BackendError, match="has not answered"):
        session.request(["slow"])
    other.say(b'{"peer": "slow"}\nerror\n{"peer": "quick"}\ndone\n')
    assert session.request(["quick"]) == [b'{"peer": "quick"}']


def test_commands_do_not_pile_up_while_exabgp_is_silent(
    other: Other, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_MAX_UNANSWERED", 3)
    session._timeout = 0.01
    other.say(UP)
    for _ in range(20):
        with pytest.raises(BackendError, match="has not answered"):
            session.request(["show"])
    assert len(session._unanswered) <= 4
    other.say(b"done\n" * 4 + b'{"peer": 1}\ndone\n')
    wait_until(lambda: session._reader.lines.qsize() == 6, 10, "the answers")
    assert session.request(["show"]) == [b'{"peer": 1}']


def test_a_silent_exabgp_is_told(session: Session) -> None:
    with pytest.raises(BackendError, match=r"has not answered for 0\.2 s"):
        session.request(["show"])


def test_an_exabgp_that_does_not_read_is_told_and_gets_the_rest_later(
    other: Other, session: Session
) -> None:
    other.say(UP)
    long = "x" * 100_000
    with pytest.raises(BackendError, match="has not answered"):
        session.request([long])
    thread = talk(
        lambda: other.expect(HELLO + long.encode() + b"\nnext\n"),
        lambda: other.say(b"done\ndone\n"),
    )
    session.request(["next"])
    thread.join()


def test_it_reads_while_it_writes(other: Other, session: Session) -> None:
    # More answers than a pipe holds, before the last command is read.
    commands = [f"announce {it:060}" for it in range(20_000)]

    def answer() -> None:
        other.say(UP)
        for command in commands:
            other.expect(f"{command}\n".encode())
            other.say(b"done\n")

    thread = talk(lambda: other.expect(HELLO), answer)
    assert session.request(commands) == []
    thread.join()


def test_news_in_between_tell_of_the_neighbor(other: Other, session: Session) -> None:
    other.say(UP + NEWS % (b"down", b', "reason": "hold timer"') + b"done\n")
    assert session.request(["show"]) == []
    assert session.neighbor is not None
    assert (session.neighbor.up, session.neighbor.reason) == (False, "hold timer")
    since = session.neighbor.since
    other.say(NEWS % (b"connected", b"") + NEWS % (b"down", b"") + b"done\n")
    session.request(["show"])
    assert session.neighbor.since == since  # it was down all the time
    other.say(NEWS % (b"up", b""))
    wait_until(lambda: session.up, 5, "up")


@pytest.mark.parametrize("odd", [b'{ "exabgp" }', b"[", b'[{"fsm": 1}]', b"\xff{", b""])
def test_what_is_not_understood_stops_nothing(
    odd: bytes, other: Other, session: Session
) -> None:
    other.say(odd + b"\n" + UP + b"done\n")
    session.request(["show"])
    other.say(odd + b"\n" + NEWS % (b"down", b"") + b"done\n")
    session.request(["show"])
    assert not session.up


def test_it_is_settled_when_the_count_rests(other: Other, session: Session) -> None:
    counts = [7, 8, 9, 9, 9]
    other.say(UP)
    for it in counts:
        other.say(UP.replace(b"7", b"%d" % it))
    session.wait_sent()
    other.expect(HELLO + b"show neighbor json\n" * len(counts))


def test_nothing_is_waited_for_while_nobody_can_be_sent_to(
    other: Other, session: Session
) -> None:
    other.say(UP + b'[{"fsm": "IDLE"}]\ndone\n')
    session.wait_sent()
    assert not session.up


def test_an_exabgp_that_ended_is_told_for_good(other: Other, session: Session) -> None:
    other.say(UP + b"done\n")
    session.request(["show"])
    other.end(other.to_us)
    assert session.exited.wait(5)
    for _ in range(2):
        with pytest.raises(ExabgpExited) as caught:
            session.request(["show"])
        assert not caught.value.retryable


def test_who_wants_to_end_with_exabgp_is_told(other: Other, session: Session) -> None:
    told = threading.Event()
    session.open(on_exit=told.set)
    session.open(on_exit=pytest.fail)  # it reads already
    assert not told.is_set()
    other.end(other.to_us)
    assert told.wait(5)


def test_a_broken_pipe_is_an_exabgp_that_ended(other: Other, session: Session) -> None:
    other.end(other.from_us)
    with pytest.raises(ExabgpExited):
        session.request(["show"])


def test_closing_twice_is_no_error(other: Other, session: Session) -> None:
    other.say(UP + b"done\n")
    session.request(["show"])
    session.close()
    session.close()


def test_news_that_are_no_text_end_no_reading(other: Other, session: Session) -> None:
    """All of ExaBGP waits for a process that does not read."""
    session.open()
    other.say(NEWS % (b"down", b', "reason": "\xff\xfe"'))
    other.say(b'{ "exabgp"' + b"[" * 30_000 + b"\n")
    other.say(NEWS % (b"up", b""))
    wait_until(lambda: session.up, 5, "news that come after")
