import socket
from pathlib import Path

import pytest

from fnm_bus.ops.systemd import READY, Systemd


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(2)
        yield listening


def test_ready_reaches_the_manager(manager: socket.socket) -> None:
    Systemd({"NOTIFY_SOCKET": manager.getsockname()}).notify(READY, "STATUS=draining")
    assert manager.recv(100) == b"READY=1\nSTATUS=draining"


def test_an_abstract_socket_is_found() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0fnm-bus-test-manager")
        listening.settimeout(2)
        Systemd({"NOTIFY_SOCKET": "@fnm-bus-test-manager"}).notify(READY)
        assert listening.recv(100) == b"READY=1"


def test_watchdog_messages_have_the_requested_rate(manager: socket.socket) -> None:
    systemd = Systemd(
        {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000000"}
    )
    for _ in range(3):
        systemd.alive()
    assert manager.recv(100) == b"WATCHDOG=1"
    manager.settimeout(0)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_without_a_manager_nothing_is_sent() -> None:
    systemd = Systemd({})
    systemd.notify(READY)
    systemd.alive()
    assert systemd.watchdog is None


def test_an_unreachable_manager_is_logged_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).notify(READY)
    assert "systemd_notification_failed" in caplog.text
