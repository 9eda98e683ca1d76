"""Many want the spool's lock, and its holder is stopped: one drains, none is lost."""

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from services.plant import Plant, ban

CALLS = 50


@pytest.fixture
def hook(plant: Plant) -> Path:
    """A hook that would drain the spool if it got the lock."""
    path = plant.root / "hook"
    done = plant.run(
        *("hook", "install", str(path), "--drain"), *("--config", str(plant.config))
    )
    assert done.returncode == 0, done.stderr
    return path


def test_a_stopped_holder_keeps_all_others_out_and_nobody_waits(
    plant: Plant, hook: Path
) -> None:
    holder = plant.start()
    waiting = plant.start(ready="READY=1")
    holder.send_signal(signal.SIGSTOP)

    def call(number: int) -> int:
        document = ban(f"192.0.2.{number}")
        return subprocess.run([hook], input=document, check=False).returncode

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(call, range(CALLS))) == {0}
    assert len(plant.spool.scan()) == CALLS
    holder.send_signal(signal.SIGCONT)
    plant.until(plant.empty)
    events = plant.events("host", CALLS)
    assert len(events) == CALLS  # once each: nobody else has drained
    assert waiting.poll() is None
    holder.kill()
    holder.wait()
    assert call(CALLS) == 0
    plant.until(plant.empty)
    ids = {it.receipt.event_id for it in plant.events("host", CALLS + 1)}
    assert len(ids) == CALLS + 1
