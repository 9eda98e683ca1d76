"""ExaBGP's own configuration; tests/integration starts it with it."""

import subprocess
from pathlib import Path

import pytest

from consumers.enforcers.exabgp import config, server
from consumers.enforcers.exabgp.config import Commands, commands, conf, env, run
from consumers.settings import ExabgpSettings
from fnm_bus.errors import ConfigError

STARTED = Commands(("/usr/bin/python3", "-m", "x y"), ("/usr/bin/python3", "-c", "w"))


def test_both_processes_get_the_configuration_file_as_a_whole_path() -> None:
    started = commands(Path("fnm.toml"))
    whole = str(Path.cwd() / "fnm.toml")
    assert started.enforcer[-3:] == ("--api", "--config", whole)
    assert started.watchdog[-3:] == ("--watchdog", "--config", whole)
    assert commands(None).enforcer[-1] == "--api"


def test_the_settings_stand_in_it() -> None:
    settings = ExabgpSettings(
        neighbor="2001:db8::2",
        local_address="2001:db8::1",
        router_id="10.0.0.1",
        port=1790,
        local_as=65001,
        peer_as=4_200_000_000,
        hold_time=30,
    )
    text = conf(settings, STARTED)
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
    assert "user = 'daemon'" in env("daemon")


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
def test_a_wrong_setting_is_named(field: str, value: object) -> None:
    settings = ExabgpSettings.model_construct(
        **{**dict(ExabgpSettings()), field: value}
    )
    with pytest.raises(ConfigError) as caught:
        config.check(settings)
    named = "local_address" if value == "2001:db8::1" and field == "neighbor" else field
    assert f"consumers.exabgp.{named}" in str(caught.value).replace(
        "consumers.exabgp.communities", f"consumers.exabgp.{field}"
    )


def test_all_wrong_settings_are_told_at_once() -> None:
    settings = ExabgpSettings(neighbor="a", router_id="b", ipv4_next_hop="c")
    with pytest.raises(ConfigError) as caught:
        config.check(settings)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("word", ['a"b', "a\\b", "a\nb", ""])
def test_a_command_that_cannot_be_written_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="path"):
        conf(ExabgpSettings(), Commands(("/bin/sh", word), ("/bin/sh",)))


def test_an_unknown_user_is_told_before_anything_is_written(tmp_path: Path) -> None:
    settings = ExabgpSettings(user="nobody-of-that-name", snapshot=tmp_path / "s.json")
    with pytest.raises(ConfigError, match="nobody-of-that-name"):
        run(settings, None)
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = ExabgpSettings(snapshot=tmp_path / "file" / "s.json")
    with pytest.raises(ConfigError, match="file"):
        run(settings, None)


def test_helpers_never_import_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "consumers"
    trap.mkdir()
    (trap / "__init__.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(tmp_path)
    for command in commands(None):
        helped = subprocess.run(
            [*command, "--help"], capture_output=True, text=True, check=False
        )
        assert helped.returncode == 0, helped.stderr
        assert "Announce blackholes" in helped.stdout


def test_the_enforcer_is_checked_before_exabgp_is_started(tmp_path: Path) -> None:
    settings = ExabgpSettings(snapshot=tmp_path / "s.json")

    def check() -> None:
        raise ConfigError("[kafka]: no such property")

    with pytest.raises(ConfigError, match="no such property"):
        run(settings, None, STARTED, check)
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
def test_the_end_of_exabgp_has_a_status_and_a_line(
    code: object,
    reason: str,
    stopped: bool,  # noqa: FBT001 - a parameter of the test
    status: int,
) -> None:
    found, line = server.verdict(code, reason, stopped=stopped)
    assert found == status
    assert reason in line or stopped
    assert bool(line) is (status in {70, 78} and code != "a text")


def test_a_helper_leaves_the_reason_for_the_end_of_exabgp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(server.FAILURE_FILE, str(tmp_path / "failure"))
    with config.recorded_failure():
        pass
    assert server.failure() == ""
    with pytest.raises(ConfigError), config.recorded_failure():
        raise ConfigError("[kafka]: no such property")
    assert server.failure() == "[kafka]: no such property"
