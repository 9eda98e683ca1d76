"""The CPU priority is lowered and never raised."""

import os
import subprocess
import sys

import pytest

from fnm_bus.ops import cpu_priority


def after(wanted: int, more: int) -> int:
    """Return the priority of a process that began *more* below ours and lowered it."""
    code = (
        f"import os; from fnm_bus.ops import cpu_priority; cpu_priority.lower({wanted})"
    )
    command = [sys.executable, "-c", f"{code}; print(os.getpriority(0, 0))"]
    done = subprocess.run(
        ["nice", f"-n{more}", *command], capture_output=True, check=True
    )
    return int(done.stdout)


@pytest.mark.parametrize(("wanted", "more"), [(5, 0), (5, 7)])
def test_the_priority_is_lowered_and_never_raised(wanted: int, more: int) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert after(wanted, more) == max(wanted, ours + more)


def test_zero_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "setpriority")
    cpu_priority.lower(0)


def test_a_forbidden_change_is_logged_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    with caplog.at_level("INFO"):
        cpu_priority.lower(19)
    assert "cpu_priority_unchanged" in caplog.text
