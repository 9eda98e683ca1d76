import pytest

from consumers.notifier.apprise_sink import AppriseSink
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
