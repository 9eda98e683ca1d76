"""The command line's manners: stdout, stderr, exit status, no traceback."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fnm_bus import __version__
from fnm_bus.config.load import MASK
from fnm_bus.hook import python_hook
from fnm_bus.setup import install_hook
from fnm_bus.spool.spool import Spool

BAN = b'{"action":"ban","ip":"2001:DB8::0001","alert_scope":"host"}'
INVALID = b'{"action":"ban","ip":7}'

Ended = subprocess.CompletedProcess[bytes]
Run = Callable[..., Ended]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory that every user can enter, as /var/spool.

    Each run of pytest closes its own one to other users, and those of other runs.
    """
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    it = Spool(tmp_path / "spool")
    it.make(os.getuid(), os.getgid())
    return it


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command with a configuration of its own, and a Kafka that is not there."""
    file = tmp_path / "fnm-bus.toml"
    file.write_text(
        'sensor = "fra1"\n'
        f'[spool]\ndirectory = "{tmp_path}/spool"\nfallback = "{tmp_path}/fallback"\n'
        '[kafka]\n"bootstrap.servers" = "127.0.0.1:1"\n"sasl.password" = "hunter2"\n'
    )

    def start(*arguments: str, stdin: bytes = b"", **environ: str) -> Ended:
        return subprocess.run(
            [sys.executable, "-m", "fnm_bus", *arguments],
            input=stdin,
            env={**os.environ, "FNM_BUS_CONFIG": str(file), **environ},
            capture_output=True,
            timeout=60,
            check=False,
        )

    return start


def test_the_version_is_data(run: Run) -> None:
    ended = run("--version")
    assert (ended.returncode, ended.stdout) == (0, f"fnm-bus {__version__}\n".encode())


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("tail", "--nonsense"),
        ("tail", "--count", "many"),
        ("simulate", "--hosts", "0"),
        ("parse", "--file", "/nonexistent"),
        ("schemas", "show", "Nonsense"),
        ("quarantine", "release"),
        ("quarantine", "delete"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_no_traceback(
    run: Run, spool: Spool, arguments: tuple[str, ...]
) -> None:
    del spool  # it is there
    ended = run(*arguments)
    assert ended.returncode == 2
    assert ended.stdout == b""
    assert b"Error: " in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_wrong_configuration_ends_with_78_and_every_problem_on_a_line(
    run: Run,
) -> None:
    ended = run("config", "show", FNM_BUS_X="1", FNM_BUS_Y="2")
    assert ended.returncode == 78
    assert ended.stderr.decode().splitlines() == [
        "fnm-bus: FNM_BUS_X: there is no such setting",
        "fnm-bus: FNM_BUS_Y: there is no such setting",
    ]


def test_settings_are_shown_with_their_source_and_without_secrets(run: Run) -> None:
    ended = run("config", "show", "--json")
    rows = {row["key"]: row for row in json.loads(ended.stdout)}
    assert rows["kafka.sasl.password"]["value"] == MASK
    assert rows["log.level"]["source"] == "default"
    assert b"hunter2" not in ended.stdout + run("config", "show").stdout


@pytest.mark.parametrize(
    ("file", "mode", "reported"),
    [
        ("fnm-bus.toml", 0o644, True),
        ("fnm-bus.toml", 0o600, False),
        ("password", 0o604, True),
        ("password", 0o640, False),
    ],
)
def test_check_reports_a_secret_that_other_users_can_read(
    run: Run, tmp_path: Path, file: str, mode: int, *, reported: bool
) -> None:
    for name in ("fnm-bus.toml", "password"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o600)
    (tmp_path / file).chmod(mode)
    password = {"FNM_BUS_KAFKA_FILES__SASL_PASSWORD": str(tmp_path / "password")}
    findings = json.loads(run("check", "--json", **password).stdout)
    faults = [it for it in findings if "can read it" in it["text"]]
    assert [str(tmp_path / file) in it["text"] for it in faults] == [True] * reported
    assert all(str(it).count("hunter2") == 0 for it in findings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_check_reports_a_secret_that_the_spool_s_group_can_read(
    run: Run, spool: Spool, tmp_path: Path
) -> None:
    """FastNetMon's user is in that group."""
    spool.make(1234, 2345)
    config = tmp_path / "fnm-bus.toml"
    os.chown(config, 0, 2345)
    config.chmod(0o640)
    findings = json.loads(run("check", "--json").stdout)
    [fault] = [it for it in findings if "can read it" in it["text"]]
    assert "the spool's group" in fault["text"]
    assert "kafka.sasl.password" in fault["text"]


def test_parse_prints_the_record_as_json(run: Run) -> None:
    ended = run("parse", "--json", stdin=BAN)
    assert ended.returncode == 0
    record = json.loads(ended.stdout)
    assert list(record) == ["topic", "key", "headers", "value"]
    assert (record["topic"], record["key"]) == ("fastnetmon.host.v1", "2001:db8::1")
    assert record["headers"]["ce_type"] == "fastnetmon.host.ban"
    assert record["value"]["receipt"]["sensor"] == "fra1"


def test_parse_of_an_invalid_document_ends_with_65_and_says_what_was_wanted(
    run: Run,
) -> None:
    ended = run("parse", "--json", stdin=INVALID)
    assert ended.returncode == 65
    error = json.loads(ended.stdout)["error"]
    assert set(error) == {"field", "wanted", "got", "reason"}
    assert error["field"] == "/ip"
    spoken = run("parse", stdin=INVALID)
    assert (spoken.returncode, spoken.stdout) == (65, b"")
    assert spoken.stderr.startswith(b"fnm-bus: /ip: wanted ")


def test_parse_takes_fastnetmons_arguments(run: Run) -> None:
    report = b"IP: 192.0.2.1\nAttack type: udp_flood\n"
    arguments = ("192.0.2.1", "incoming", "98765", "ban")
    ended = run("parse", "--json", *arguments, stdin=report)
    record = json.loads(ended.stdout)
    assert record["value"]["receipt"]["arguments"] == list(arguments)
    assert record["value"]["text_mode"]["power_pps"] == 98765


def test_notify_stores_before_it_looks_at_the_configuration(
    run: Run, spool: Spool
) -> None:
    ended = run("notify", "ban", "192.0.2.1", stdin=BAN, FNM_BUS_NONSENSE="1")
    assert ended.returncode == 78
    (name,) = spool.scan()
    entry = spool.read(name)
    assert (entry.document, entry.arguments) == (BAN, ("ban", "192.0.2.1"))


def test_notify_without_kafka_ends_with_0_within_the_deadline(
    run: Run, spool: Spool
) -> None:
    ended = run("notify", "--drain-timeout", "0.2", stdin=BAN)
    assert ended.returncode == 0
    assert len(spool.scan()) == 1


def test_notify_keeps_an_invalid_document_in_the_quarantine_and_ends_with_65(
    run: Run, spool: Spool
) -> None:
    ended = run("notify", "--drain-timeout", "0.2", stdin=INVALID)
    assert ended.returncode == 65
    assert b"/ip: wanted" in ended.stderr
    assert spool.scan() == []
    (kept,) = json.loads(run("quarantine", "list", "--json").stdout)
    assert kept["field"] == "/ip"
    shown = run("quarantine", "show", kept["name"])
    assert shown.stdout == INVALID


def test_notify_leaves_everything_to_a_relay_that_runs(run: Run, spool: Spool) -> None:
    with spool.lock() or pytest.fail("somebody else holds the lock"):
        ended = run("notify", stdin=INVALID)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert len(spool.scan()) == 1


def test_notify_without_a_spool_ends_with_75_and_says_so(run: Run) -> None:
    ended = run("notify", stdin=BAN)
    assert ended.returncode == python_hook.TRY_LATER == 75
    assert b"this notification is lost" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_notify_that_only_the_fallback_took_ends_with_75_whatever_else_is_wrong(
    run: Run, tmp_path: Path
) -> None:
    fallback = Spool(tmp_path / "fallback")
    fallback.make(os.getuid(), os.getgid())
    ended = run("notify", stdin=BAN, FNM_BUS_NONSENSE="1")
    assert ended.returncode == 75
    (name,) = fallback.scan()
    assert str(fallback.path(name)).encode() in ended.stderr


def test_notify_of_what_is_stored_ends_with_0_when_the_drain_fails(
    run: Run, spool: Spool
) -> None:
    (spool.root / "quarantine").rename(spool.root / "elsewhere")
    ended = run("notify", "--drain-timeout", "0.2", stdin=INVALID)
    assert ended.returncode == 0, ended.stderr
    assert b"Traceback" not in ended.stderr
    assert len(spool.scan()) == 1


def test_parse_of_a_text_mode_unban_does_not_wait_for_a_document(run: Run) -> None:
    ended = run("parse", "--json", "192.0.2.1", "incoming", "0", "unban")
    assert json.loads(ended.stdout)["value"]["action"] == "unban"


def test_a_second_relay_names_the_setting_of_its_port(run: Run, spool: Spool) -> None:
    del spool  # it is there
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = str(first.getsockname()[1])
        ended = run("relay", FNM_BUS_RELAY__METRICS_PORT=port)
    assert ended.returncode == 78
    assert f"cannot listen on 127.0.0.1:{port}".encode() in ended.stderr
    assert b"set [relay] metrics_port or FNM_BUS_RELAY__METRICS_PORT" in ended.stderr


def test_released_documents_are_in_the_spool_again(run: Run, spool: Spool) -> None:
    run("notify", "--drain-timeout", "0.2", stdin=INVALID)
    (kept,) = json.loads(run("quarantine", "list", "--json").stdout)
    ended = run("quarantine", "release", "--all")
    assert ended.returncode == 0
    assert spool.scan() == [kept["name"]]


def test_deleted_documents_are_gone(run: Run, spool: Spool) -> None:
    run("notify", "--drain-timeout", "0.2", stdin=INVALID)
    (kept,) = json.loads(run("quarantine", "list", "--json").stdout)
    ended = run("quarantine", "delete", kept["name"])
    assert (ended.returncode, ended.stderr) == (0, b"fnm-bus: 1 deleted\n")
    assert list(spool.root.rglob(f"*{kept['name']}*")) == []


def test_the_status_of_the_spool_names_what_waits(run: Run, spool: Spool) -> None:
    name = Path(python_hook.keep(str(spool.root), "/nowhere", ["ban"], BAN)[0]).name
    status = json.loads(run("spool", "status", "--entries", "--json").stdout)
    assert status["entries"] == [name]
    assert status["spools"][str(spool.root)]["files"] == 1
    assert status["quarantine"] == 0
    assert f"{spool.root}: 1 waiting" in run("spool", "status").stdout.decode()
    assert run("spool", "show", name).stdout == BAN


@pytest.mark.parametrize("name", ["../../etc/passwd", ""])
@pytest.mark.parametrize(
    "command",
    [
        ("quarantine", "show"),
        ("quarantine", "release"),
        ("quarantine", "delete"),
        ("spool", "show"),
    ],
)
def test_an_entry_that_is_not_there_is_told_with_1(
    run: Run, spool: Spool, command: tuple[str, str], name: str
) -> None:
    del spool  # it is there, and empty
    ended = run(*command, name)
    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr


def test_one_reason_that_is_a_pipe_does_not_stop_the_list(
    run: Run, spool: Spool
) -> None:
    run("notify", "--drain-timeout", "0.2", stdin=INVALID)
    (kept,) = json.loads(run("quarantine", "list", "--json").stdout)
    reason = spool.root / "quarantine" / f"{kept['name']}.json"
    reason.unlink()
    os.mkfifo(reason)
    ended = run("quarantine", "list", "--json")
    (shown,) = json.loads(ended.stdout)
    assert (ended.returncode, shown["name"]) == (0, kept["name"])
    assert "no regular file" in shown["reason"]


def test_a_lock_that_is_a_pipe_does_not_keep_notify_waiting(
    run: Run, spool: Spool
) -> None:
    (spool.root / "lock").unlink()
    os.mkfifo(spool.root / "lock")
    ended = run("notify", stdin=BAN)
    assert ended.returncode == 0
    assert len(spool.scan()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
@pytest.mark.parametrize("command", ["release", "delete"])
def test_root_moves_and_deletes_nothing_that_the_spool_s_owner_could_not(
    run: Run, spool: Spool, tmp_path: Path, command: str
) -> None:
    """A link of the owner's leads to a directory in which he may do nothing."""
    run("notify", "--drain-timeout", "0.2", stdin=INVALID)
    (kept,) = json.loads(run("quarantine", "list", "--json").stdout)
    spool.make(1234, 2345)
    name, entries = kept["name"], spool.root / "incoming/new"
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o755)
    if command == "release":
        (entries / name[-1]).rmdir()
        (entries / name[-1]).symlink_to(precious)
    else:
        (spool.root / "quarantine").rename(precious / "quarantine")
        (spool.root / "quarantine").symlink_to(precious / "quarantine")
        os.chown(precious / "quarantine", 0, 0)
    before = sorted(precious.rglob("*"))
    ended = run("quarantine", command, name)
    assert b"Permission denied" in ended.stderr
    assert sorted(precious.rglob("*")) == before


def test_a_registry_that_is_not_configured_ends_with_78(run: Run) -> None:
    ended = run("schemas", "register")
    assert ended.returncode == 78
    assert ended.stderr.startswith(b"fnm-bus: [registry] url: ")


def test_the_schema_is_printed_in_one_piece(run: Run) -> None:
    found = json.loads(run("schemas", "show", "fastnetmon.HostEvent").stdout)
    assert (found["namespace"], found["name"]) == ("fastnetmon", "HostEvent")


def test_an_installed_hook_can_be_called_and_checked(
    run: Run, tmp_path: Path, spool: Spool
) -> None:
    path = tmp_path / "hook"
    ended = run("hook", "install", str(path))
    assert ended.returncode == 0
    assert f"notify_script_path {path}\n".encode() in ended.stdout
    findings = json.loads(run("hook", "check", str(path), "--json").stdout)
    stored = "a notification was stored, and removed"
    assert any(it["ok"] and it["text"] == stored for it in findings)
    assert spool.scan() == []


def test_a_call_drains_the_spool_of_its_hook_with_the_hook_s_configuration(
    run: Run, tmp_path: Path
) -> None:
    """Not the spool that the configuration names, which may be another hook's."""
    path, root = tmp_path / "hook", tmp_path / "another"
    assert run("hook", "install", str(path), "--spool", str(root)).returncode == 0
    ended = subprocess.run(
        [path], input=INVALID, env={}, capture_output=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    [reason] = (root / "quarantine").glob("*.json")
    assert json.loads(reason.read_text())["field"] == "/ip"
    assert not (tmp_path / "spool").exists()
    _python, values = install_hook.read_settings(path.read_text())
    assert str(tmp_path / "fnm-bus.toml") in values["DRAIN"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a spool away")
def test_a_hook_that_is_installed_again_leaves_the_spool_to_its_owner(
    run: Run, tmp_path: Path, spool: Spool
) -> None:
    spool.make(1234, 2345)
    assert run("hook", "install", str(tmp_path / "hook")).returncode == 0
    facts = [spool.root.stat(), (spool.root / "lock").stat()]
    assert {(it.st_uid, it.st_gid) for it in facts} == {(1234, 2345)}
    ended = run("hook", "install", str(tmp_path / "hook"), "--owner", "root")
    assert b"owner root" in ended.stderr
    assert (spool.root.stat().st_uid, spool.root.stat().st_gid) == (0, 0)


def test_a_hook_is_not_installed_over_another_program(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "notify.sh"
    path.write_text("#!/bin/sh\n")
    ended = run("hook", "install", str(path), "--spool", str(tmp_path / "new"))
    assert ended.returncode == 78
    assert b"another program" in ended.stderr
    assert not (tmp_path / "new").exists()


def test_a_reader_that_goes_away_is_no_error_to_complain_of(
    run: Run, tmp_path: Path
) -> None:
    del run  # only its configuration
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "fnm_bus", "schemas", "show", "HostEvent"],
            stdout=writing,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert ended.returncode != 0
    assert ended.stderr == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_root_releases_with_the_rights_of_the_spool_s_owner(
    run: Run, spool: Spool, tmp_path: Path
) -> None:
    run("notify", "--drain-timeout", "0.2", stdin=INVALID)
    spool.make(1234, 2345)
    [kept] = [it for it in (spool.root / "quarantine").iterdir() if it.is_file()][:1]
    for path in (spool.root / "quarantine").rglob("*"):
        os.chown(path, 1234, 2345)
    ended = run("quarantine", "release", "--all")
    assert ended.returncode == 0, ended.stderr
    [name] = spool.scan()
    assert kept.name.startswith(name)
    assert tmp_path in spool.path(name).parents
