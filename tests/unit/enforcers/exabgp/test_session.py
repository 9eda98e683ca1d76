"""The session with ExaBGP, which the test plays; pipes are real."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest
from support.process import wait_until

from consumers.enforcers.backend import BackendError
from consumers.enforcers.exabgp import session as session_module
from consumers.enforcers.exabgp.session import ExabgpExited, Session

FIRST_COMMANDS = b"reset\nshow neighbor json\n"
ESTABLISHED = b'[{"fsm": "ESTABLISHED", "messages": {"sent": {"update": 7}}}]\ndone\n'
EVENT = b'{ "exabgp": "5.0.0", "type": "state", "neighbor": { "state": "%s" %s} }\n'


class FakeExabgp:
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

    def write(self, text: bytes) -> None:
        os.write(self.to_us, text)

    def close(self, *fds: int) -> None:
        for fd in self._open & set(fds or self._open):
            os.close(fd)
            self._open.discard(fd)


@pytest.fixture
def exabgp() -> Iterator[FakeExabgp]:
    fake = FakeExabgp()
    yield fake
    fake.close()


@pytest.fixture
def session(exabgp: FakeExabgp) -> Iterator[Session]:
    session = Session(exabgp.reading, exabgp.writing, timeout=0.2)
    yield session
    session.close()


def run_in_thread(*steps: Callable[[], object]) -> threading.Thread:
    """Play ExaBGP in a thread."""
    thread = threading.Thread(target=lambda: [step() for step in steps])
    thread.start()
    return thread


def test_session_starts_no_thread_before_first_request(exabgp: FakeExabgp) -> None:
    threads = threading.active_count()
    session = Session(exabgp.reading, exabgp.writing)
    assert threading.active_count() == threads
    session.close()
    assert not session.up


def test_request_returns_listing(exabgp: FakeExabgp, session: Session) -> None:
    exabgp.write(ESTABLISHED + b'{"peer": 1}\n{"peer": 2}\ndone\n')
    assert session.request(["show"]) == [b'{"peer": 1}', b'{"peer": 2}']
    exabgp.expect(FIRST_COMMANDS + b"show\n")
    assert session.up


def test_answers_to_earlier_process_are_ignored(
    exabgp: FakeExabgp, session: Session
) -> None:
    exabgp.write(
        b'done\n{"peer": 1}\nerror\ndone\n' + ESTABLISHED + b'{"peer": 2}\ndone\n'
    )
    assert session.request(["show"]) == [b'{"peer": 2}']


def test_refused_command_is_named(exabgp: FakeExabgp, session: Session) -> None:
    exabgp.write(ESTABLISHED + b"done\nerror\ndone\n")
    with pytest.raises(BackendError, match=r"1 of 3 commands; the first: b") as caught:
        session.request(["a", "b", "c"])
    assert caught.value.retryable


def test_late_answer_is_assigned_to_its_own_command(
    exabgp: FakeExabgp, session: Session
) -> None:
    exabgp.write(ESTABLISHED)
    with pytest.raises(BackendError, match="has not answered"):
        session.request(["slow"])
    exabgp.write(b'{"peer": "slow"}\nerror\n{"peer": "quick"}\ndone\n')
    assert session.request(["quick"]) == [b'{"peer": "quick"}']


def test_commands_do_not_accumulate_without_answers(
    exabgp: FakeExabgp, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_MAX_UNANSWERED", 3)
    session._timeout = 0.01
    exabgp.write(ESTABLISHED)
    for _ in range(20):
        with pytest.raises(BackendError, match="has not answered"):
            session.request(["show"])
    assert len(session._unanswered) <= 4
    exabgp.write(b"done\n" * 4 + b'{"peer": 1}\ndone\n')
    wait_until(lambda: session.lines.qsize() == 6, 10, "the answers")
    assert session.request(["show"]) == [b'{"peer": 1}']


def test_missing_answer_is_an_error(session: Session) -> None:
    with pytest.raises(BackendError, match=r"has not answered for 0\.2 s"):
        session.request(["show"])


def test_blocked_write_is_an_error_and_continues_later(
    exabgp: FakeExabgp, session: Session
) -> None:
    exabgp.write(ESTABLISHED)
    long = "x" * 100_000
    with pytest.raises(BackendError, match="has not answered"):
        session.request([long])
    thread = run_in_thread(
        lambda: exabgp.expect(FIRST_COMMANDS + long.encode() + b"\nnext\n"),
        lambda: exabgp.write(b"done\ndone\n"),
    )
    session.request(["next"])
    thread.join()


def test_session_reads_while_it_writes(exabgp: FakeExabgp, session: Session) -> None:
    # More answers than a pipe holds, before the last command is read.
    commands = [f"announce {number:060}" for number in range(20_000)]

    def answer() -> None:
        exabgp.write(ESTABLISHED)
        for command in commands:
            exabgp.expect(f"{command}\n".encode())
            exabgp.write(b"done\n")

    thread = run_in_thread(lambda: exabgp.expect(FIRST_COMMANDS), answer)
    assert session.request(commands) == []
    thread.join()


def test_events_update_the_neighbor(exabgp: FakeExabgp, session: Session) -> None:
    exabgp.write(
        ESTABLISHED + EVENT % (b"down", b', "reason": "hold timer"') + b"done\n"
    )
    assert session.request(["show"]) == []
    assert session.neighbor is not None
    assert (session.neighbor.up, session.neighbor.reason) == (False, "hold timer")
    down = session.neighbor
    exabgp.write(EVENT % (b"connected", b"") + EVENT % (b"down", b"") + b"done\n")
    session.request(["show"])
    assert session.neighbor is down  # the session was down all the time
    exabgp.write(EVENT % (b"up", b""))
    wait_until(lambda: session.up, 5, "up")


@pytest.mark.parametrize(
    "line", [b'{ "exabgp" }', b"[", b'[{"fsm": 1}]', b"\xff{", b""]
)
def test_unknown_lines_are_ignored(
    line: bytes, exabgp: FakeExabgp, session: Session
) -> None:
    exabgp.write(line + b"\n" + ESTABLISHED + b"done\n")
    session.request(["show"])
    exabgp.write(line + b"\n" + EVENT % (b"down", b"") + b"done\n")
    session.request(["show"])
    assert not session.up


def test_updates_are_sent_when_the_count_is_stable(
    exabgp: FakeExabgp, session: Session
) -> None:
    counts = [7, 8, 9, 9, 9]
    exabgp.write(ESTABLISHED)
    for count in counts:
        exabgp.write(ESTABLISHED.replace(b"7", b"%d" % count))
    session.wait_sent()
    exabgp.expect(FIRST_COMMANDS + b"show neighbor json\n" * len(counts))


def test_wait_sent_returns_while_session_is_down(
    exabgp: FakeExabgp, session: Session
) -> None:
    exabgp.write(ESTABLISHED + b'[{"fsm": "IDLE"}]\ndone\n')
    session.wait_sent()
    assert not session.up


def test_exited_exabgp_is_a_permanent_error(
    exabgp: FakeExabgp, session: Session
) -> None:
    exabgp.write(ESTABLISHED + b"done\n")
    session.request(["show"])
    exabgp.close(exabgp.to_us)
    assert session.exited.wait(5)
    for _ in range(2):
        with pytest.raises(ExabgpExited) as caught:
            session.request(["show"])
        assert not caught.value.retryable


def test_on_exit_is_called_once(exabgp: FakeExabgp, session: Session) -> None:
    exit_event = threading.Event()
    session.open(on_exit=exit_event.set)
    session.open(on_exit=pytest.fail)  # the reader runs already
    assert not exit_event.is_set()
    exabgp.close(exabgp.to_us)
    assert exit_event.wait(5)


def test_broken_pipe_means_exited_exabgp(exabgp: FakeExabgp, session: Session) -> None:
    exabgp.close(exabgp.from_us)
    with pytest.raises(ExabgpExited):
        session.request(["show"])


def test_second_close_has_no_effect(exabgp: FakeExabgp, session: Session) -> None:
    exabgp.write(ESTABLISHED + b"done\n")
    session.request(["show"])
    session.close()
    session.close()


def test_undecodable_events_do_not_stop_reading(
    exabgp: FakeExabgp, session: Session
) -> None:
    """ExaBGP blocks if a process does not read."""
    session.open()
    exabgp.write(EVENT % (b"down", b', "reason": "\xff\xfe"'))
    exabgp.write(b'{ "exabgp"' + b"[" * 30_000 + b"\n")
    exabgp.write(EVENT % (b"up", b""))
    wait_until(lambda: session.up, 5, "news that come after")
