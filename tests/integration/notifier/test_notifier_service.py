from pathlib import Path

import pytest

from consumers.notifier.service import secret_of, sinks_of
from consumers.notifier.sink import LogSink
from consumers.settings import NotifierSettings
from fnm_bus.errors import ConfigError


def test_secret_file_may_end_with_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("shared\n")
    assert secret_of(path, "secret_file") == "shared"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfes3cr3t"])
def test_unusable_secret_names_setting_and_file(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^secret_file: {path}") as raised:
        secret_of(path, "secret_file")
    assert "s3cr3t" not in str(raised.value)


def test_dry_run_needs_no_sink() -> None:
    (sink,) = sinks_of(NotifierSettings(), dry_run=True)
    assert isinstance(sink, LogSink)


def test_live_notifier_needs_a_sink() -> None:
    with pytest.raises(ConfigError, match=r"\[consumers\.notifier\]: no receiver"):
        sinks_of(NotifierSettings(), dry_run=False)


def test_settings_name_all_sinks(tmp_path: Path) -> None:
    url, apprise = tmp_path / "url", tmp_path / "apprise"
    url.write_text("https://hooks.example.net/T0/B0/x\n")
    apprise.write_text("# mail\nmailto://ann:secret@example.net\n\njson://localhost/\n")
    settings = NotifierSettings(
        url_file=url, alertmanager_urls=("http://am:9093/",), apprise_file=apprise
    )
    sinks = sinks_of(settings, dry_run=False)
    names = [sink.name for sink in sinks]
    assert names == ["hooks.example.net", "am", "mailto", "json"]
    assert [sink.renews for sink in sinks] == [False, True, False, False]


@pytest.mark.parametrize("name", ["url_file", "secret_file", "apprise_file"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "missing"
    settings = NotifierSettings.model_validate(
        {"url": "https://example.net/", name: path}
    )
    with pytest.raises(ConfigError, match=rf"notifier\] {name}: {path}"):
        sinks_of(settings, dry_run=False)
