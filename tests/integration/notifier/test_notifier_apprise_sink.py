import pytest
from support.notices import outgoing

from consumers.notifier.apprise_sink import AppriseSink
from consumers.notifier.sink import SinkUnavailable
from fnm_bus.errors import ConfigError


@pytest.mark.parametrize(
    "url", ["slack://s3cr3t", "s3cr3t", "unknown://s3cr3t", "pagerduty://@s3cr3t"]
)
def test_invalid_apprise_address_is_refused_and_not_shown(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"^apprise_file: ") as raised:
        AppriseSink(url, 5, "apprise_file")
    assert "s3cr3t" not in str(raised.value) + caplog.text


def test_address_with_several_targets_is_refused() -> None:
    url = "tgram://123456789:abcdefghijklmnopqrstuvwxyz012345678/111/222"
    with pytest.raises(ConfigError, match="one address for each target"):
        AppriseSink(url, 5, "apprise_file")


def test_fault_of_a_service_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = AppriseSink("json://127.0.0.1:1/s3cr3t", 5, "apprise_file")

    def broken(*_arguments: object, **_options: object) -> bool:
        raise ValueError("s3cr3t")

    monkeypatch.setattr("apprise.NotifyBase.notify", broken)
    with pytest.raises(SinkUnavailable, match=r"json: ValueError$"):
        sink.send(outgoing())
