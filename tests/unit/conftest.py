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
_IMPORT = "<frozen importlib._bootstrap>"
_EVENTS: list[str] = []


def _record(event: str, _arguments: tuple[Any, ...]) -> None:
    if event in _FORBIDDEN and not _is_import():
        _EVENTS.append(event)


def _is_import() -> bool:
    """Return whether an import runs: urllib3's opens a socket to look for IPv6."""
    frame: Any = sys._getframe()
    while frame is not None and frame.f_code.co_filename != _IMPORT:
        frame = frame.f_back
    return frame is not None


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
