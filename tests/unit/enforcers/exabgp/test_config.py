"""ExaBGP's configuration and start; tests/integration runs ExaBGP with it."""

from pathlib import Path

import pytest

from consumers.enforcers.exabgp import conf_files, config, server
from consumers.enforcers.exabgp.conf_files import (
    Commands,
    api_commands,
    conf_text,
    env_text,
)
from consumers.enforcers.exabgp.config import run
from consumers.settings import ExabgpSettings
from fnm_bus.errors import ConfigError

COMMANDS = Commands(("/usr/bin/python3", "-m", "x y"), ("/usr/bin/python3", "-c", "w"))


def test_api_commands_have_absolute_path_of_configuration() -> None:
    commands = api_commands(Path("fnm.toml"))
    absolute = str(Path.cwd() / "fnm.toml")
    assert commands.enforcer[-3:] == ("--api", "--config", absolute)
    assert commands.watchdog[-3:] == ("--watchdog", "--config", absolute)
    assert api_commands(None).enforcer[-1] == "--api"


def test_conf_contains_the_settings() -> None:
    settings = ExabgpSettings(
        neighbor="2001:db8::2",
        local_address="2001:db8::1",
        router_id="10.0.0.1",
        port=1790,
        local_as=65001,
        peer_as=4_200_000_000,
        hold_time=30,
    )
    text = conf_text(settings, COMMANDS)
    for part in (
        "neighbor 2001:db8::2 {",
        "local-address 2001:db8::1;",
        "router-id 10.0.0.1;",
        "connect 1790;",
        "local-as 65001;",
        "peer-as 4200000000;",
        "hold-time 30;",
        'run "/usr/bin/python3" "-m" "x y";',
    ):
        assert part in text
    assert "user = 'daemon'" in env_text("daemon")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("neighbor", "router1"),
        ("neighbor", "127.0.0.2; }"),
        ("neighbor", "2001:db8::1"),
        ("local_address", ""),
        ("router_id", "2001:db8::1"),
        ("ipv4_next_hop", "100::1"),
        ("ipv6_next_hop", "192.0.2.1"),
        ("ipv6_next_hop", "fe80::1%eth0"),
        ("port", 0),
        ("communities", ("blackhole me",)),
    ],
)
def test_wrong_setting_is_named(field: str, value: object) -> None:
    settings = ExabgpSettings.model_construct(
        **{**dict(ExabgpSettings()), field: value}
    )
    with pytest.raises(ConfigError) as caught:
        conf_files.check_settings(settings)
    reported = (
        "local_address" if value == "2001:db8::1" and field == "neighbor" else field
    )
    assert f"consumers.exabgp.{reported}" in str(caught.value).replace(
        "consumers.exabgp.communities", f"consumers.exabgp.{field}"
    )


def test_all_wrong_settings_are_listed() -> None:
    settings = ExabgpSettings(neighbor="a", router_id="b", ipv4_next_hop="c")
    with pytest.raises(ConfigError) as caught:
        conf_files.check_settings(settings)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("argument", ['a"b', "a\\b", "a\nb", ""])
def test_command_that_cannot_be_quoted_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match="path"):
        conf_text(ExabgpSettings(), Commands(("/bin/sh", argument), ("/bin/sh",)))


def test_unknown_user_is_refused_before_files_are_written(tmp_path: Path) -> None:
    settings = ExabgpSettings(user="nobody-of-that-name", snapshot=tmp_path / "s.json")
    with pytest.raises(ConfigError, match="nobody-of-that-name"):
        run(settings, None)
    assert not list(tmp_path.iterdir())


def test_directory_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = ExabgpSettings(snapshot=tmp_path / "file" / "s.json")
    with pytest.raises(ConfigError, match="file"):
        run(settings, None)


def test_enforcer_is_checked_before_exabgp_starts(tmp_path: Path) -> None:
    settings = ExabgpSettings(snapshot=tmp_path / "s.json")

    def check() -> None:
        raise ConfigError("[kafka]: no such property")

    with pytest.raises(ConfigError, match="no such property"):
        run(settings, None, COMMANDS, check)
    assert not list(tmp_path.rglob("exabgp.conf"))


@pytest.mark.parametrize(
    ("code", "reason", "stopped", "status"),
    [
        (0, "", True, 0),
        (None, "an old reason", True, 0),
        (0, "", False, 70),
        (None, "", False, 70),
        (0, "[kafka]: no", False, 78),
        (5, "[kafka]: no", False, 78),
        (5, "", False, 5),
        (5, "", True, 5),
        ("a text", "", False, 70),
    ],
)
def test_exit_status_and_message_show_the_error(
    code: object,
    reason: str,
    stopped: bool,  # noqa: FBT001 - a parameter of the test
    status: int,
) -> None:
    exit_status, line = server.exit_status(code, reason, stopped=stopped)
    assert exit_status == status
    assert reason in line or stopped
    assert bool(line) is (status in {70, 78} and code != "a text")


def test_configuration_error_of_api_process_reaches_exabgp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(server.FAILURE_FILE, str(tmp_path / "failure"))
    with config.recorded_failure():
        pass
    assert server.read_failure() == ""
    with pytest.raises(ConfigError), config.recorded_failure():
        raise ConfigError("[kafka]: no such property")
    assert server.read_failure() == "[kafka]: no such property"
