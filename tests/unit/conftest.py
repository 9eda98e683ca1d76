"""Unit tests start no process and open no socket, except those marked `process`."""

import sys
from collections.abc import Generator
from typing import Any

import pytest

_FORBIDDEN = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.system",
    "socket.__new__",
    "subprocess.Popen",
}
_EVENTS: list[str] = []


def _record(event: str, _arguments: tuple[Any, ...]) -> None:
    if event in _FORBIDDEN:
        _EVENTS.append(event)


sys.addaudithook(_record)


@pytest.fixture(scope="session")
def embedded_broker() -> str:
    """Refuse the broker, whose sockets Python does not see."""
    pytest.fail("a unit test opens no socket: move it to tests/integration")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test that starts a process or opens a socket."""
    _EVENTS.clear()
    yield
    if _EVENTS and item.get_closest_marker("process") is None:
        pytest.fail(f"{_EVENTS[0]} in a unit test: move it to tests/integration")
