"""The demo's output."""

from pathlib import Path
from typing import NoReturn

import pytest

from fnm_bus.cli.demo import demo
from fnm_bus.errors import FnmBusError
from fnm_bus.ops.log import get_logger


@pytest.mark.usefixtures("restored_log")
def test_a_warning_in_the_demo_is_a_line_of_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(_directory: Path) -> NoReturn:
        get_logger("fnm_bus.kafka.client").warning("broker_unavailable", error="x")
        raise FnmBusError("the end of the test")

    monkeypatch.setattr("fnm_bus.demo.environment.start", start)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(FnmBusError):
        demo()
    assert "warning kafka.client: broker_unavailable error=x" in capsys.readouterr().err
