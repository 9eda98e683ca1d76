"""Commands: stdout, stderr, exit status, no traceback."""

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
from fnm_bus.setup import python_script
from fnm_bus.spool.spool import Spool

BAN = b'{"action":"ban","ip":"2001:DB8::0001","alert_scope":"host"}'
INVALID = b'{"action":"ban","ip":7}'

Done = subprocess.CompletedProcess[bytes]
Run = Callable[..., Done]


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
    made = Spool(tmp_path / "spool")
    made.make(os.getuid(), os.getgid())
    return made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command with its own configuration, and an unreachable Kafka."""
    file = tmp_path / "fnm-bus.toml"
    file.write_text(
        'sensor = "fra1"\n'
        f'[spool]\ndirectory = "{tmp_path}/spool"\nfallback = "{tmp_path}/fallback"\n'
        '[kafka]\n"bootstrap.servers" = "127.0.0.1:1"\n"sasl.password" = "hunter2"\n'
    )

    def start(*arguments: str, stdin: bytes = b"", **environ: str) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "fnm_bus", *arguments],
            input=stdin,
            env={**os.environ, "FNM_BUS_CONFIG": str(file), **environ},
            capture_output=True,
            timeout=60,
            check=False,
        )

    return start


def quarantine(run: Run) -> str:
    """Quarantine an invalid document; return its name."""
    run("notify", "--drain-timeout", "1", stdin=INVALID)
    (entry,) = json.loads(run("quarantine", "list", "--json").stdout)
    assert entry["field"] == "/ip"
    return str(entry["name"])


def test_the_version_is_data(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"fnm-bus {__version__}\n".encode())


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("tail", "--nonsense"),
        ("tail", "--count", "many"),
        ("simulate", "--hosts", "0"),
        ("schemas", "show", "Nonsense"),
        ("quarantine", "release"),
        ("quarantine", "delete"),
    ],
)
def test_a_wrong_command_line_exits_2_without_traceback(
    run: Run, spool: Spool, arguments: tuple[str, ...]
) -> None:
    del spool  # only made
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"Error: " in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_wrong_configuration_exits_78_with_all_problems(run: Run) -> None:
    done = run("config", "show", FNM_BUS_X="1", FNM_BUS_Y="2")
    assert done.returncode == 78
    assert done.stderr.decode().splitlines() == [
        "fnm-bus: FNM_BUS_X: there is no such setting",
        "fnm-bus: FNM_BUS_Y: there is no such setting",
    ]


def test_config_show_has_sources_and_no_secrets(run: Run) -> None:
    done = run("config", "show", "--json")
    rows = {row["key"]: row for row in json.loads(done.stdout)}
    assert rows["kafka.sasl.password"]["value"] == MASK
    assert rows["log.level"]["source"] == "default"
    assert b"hunter2" not in done.stdout + run("config", "show").stdout


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
    results = json.loads(run("check", "--json", **password).stdout)
    faults = [result for result in results if "can read it" in result["text"]]
    assert [str(tmp_path / file) in fault["text"] for fault in faults] == [
        True
    ] * reported
    assert "hunter2" not in str(results)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_check_reports_a_secret_readable_by_the_spool_s_group(
    run: Run, spool: Spool, tmp_path: Path
) -> None:
    """FastNetMon's user is in that group."""
    spool.make(1234, 2345)
    config = tmp_path / "fnm-bus.toml"
    os.chown(config, 0, 2345)
    config.chmod(0o640)
    results = json.loads(run("check", "--json").stdout)
    [fault] = [result for result in results if "can read it" in result["text"]]
    assert "the spool's group" in fault["text"]
    assert "kafka.sasl.password" in fault["text"]


def test_parse_prints_the_record_as_json(run: Run) -> None:
    done = run("parse", "--json", stdin=BAN)
    assert done.returncode == 0
    record = json.loads(done.stdout)
    assert list(record) == ["topic", "key", "headers", "value"]
    assert (record["topic"], record["key"]) == ("fastnetmon.host.v1", "2001:db8::1")
    assert record["headers"]["ce_type"] == "fastnetmon.host.ban"
    assert record["value"]["receipt"]["sensor"] == "fra1"


def test_parse_of_an_invalid_document_exits_65_with_the_field(run: Run) -> None:
    done = run("parse", "--json", stdin=INVALID)
    assert done.returncode == 65
    error = json.loads(done.stdout)["error"]
    assert set(error) == {"field", "expected", "actual", "reason"}
    assert error["field"] == "/ip"
    spoken = run("parse", stdin=INVALID)
    assert (spoken.returncode, spoken.stdout) == (65, b"")
    assert spoken.stderr.startswith(b"fnm-bus: /ip: wanted ")


def test_parse_takes_fastnetmons_arguments(run: Run) -> None:
    report = b"IP: 192.0.2.1\nAttack type: udp_flood\n"
    arguments = ("192.0.2.1", "incoming", "98765", "ban")
    done = run("parse", "--json", *arguments, stdin=report)
    record = json.loads(done.stdout)
    assert record["value"]["receipt"]["arguments"] == list(arguments)
    assert record["value"]["text_mode"]["power_pps"] == 98765


def test_notify_stores_before_the_configuration_is_read(run: Run, spool: Spool) -> None:
    done = run("notify", "ban", "192.0.2.1", stdin=BAN, FNM_BUS_NONSENSE="1")
    assert done.returncode == 78
    assert b"FNM_BUS_NONSENSE" in done.stderr
    (name,) = spool.scan()
    entry = spool.read(name)
    assert (entry.document, entry.arguments) == (BAN, ("ban", "192.0.2.1"))


def test_notify_without_kafka_exits_0_within_its_timeout(
    run: Run, spool: Spool
) -> None:
    done = run("notify", "--drain-timeout", "0.2", stdin=BAN)
    assert done.returncode == 0
    assert len(spool.scan()) == 1


def test_notify_does_not_drain_beside_a_relay(run: Run, spool: Spool) -> None:
    with spool.lock() or pytest.fail("somebody else holds the lock"):
        done = run("notify", stdin=INVALID)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(spool.scan()) == 1


def test_notify_without_a_spool_exits_75(run: Run) -> None:
    done = run("notify", stdin=BAN)
    assert done.returncode == python_hook.TRY_LATER == 75
    assert b"this notification is lost" in done.stderr
    assert b"Traceback" not in done.stderr


def test_notify_into_the_fallback_spool_exits_75(run: Run, tmp_path: Path) -> None:
    fallback = Spool(tmp_path / "fallback")
    fallback.make(os.getuid(), os.getgid())
    done = run("notify", stdin=BAN, FNM_BUS_NONSENSE="1")
    assert done.returncode == 75
    (name,) = fallback.scan()
    assert str(fallback.path(name)).encode() in done.stderr


def test_notify_exits_0_if_only_the_drain_fails(run: Run, spool: Spool) -> None:
    (spool.root / "quarantine").rename(spool.root / "elsewhere")
    done = run("notify", "--drain-timeout", "1", stdin=INVALID)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert len(spool.scan()) == 1


def test_parse_of_a_text_unban_reads_no_stdin(run: Run) -> None:
    done = run("parse", "--json", "192.0.2.1", "incoming", "0", "unban")
    assert json.loads(done.stdout)["value"]["action"] == "unban"


def test_a_second_relay_names_the_setting_of_its_port(run: Run, spool: Spool) -> None:
    del spool  # only made
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = str(first.getsockname()[1])
        done = run("relay", FNM_BUS_RELAY__METRICS_PORT=port)
    assert done.returncode == 78
    assert f"cannot listen on 127.0.0.1:{port}".encode() in done.stderr
    assert b"set [relay] metrics_port or FNM_BUS_RELAY__METRICS_PORT" in done.stderr


def test_released_documents_are_in_the_spool_again(run: Run, spool: Spool) -> None:
    name = quarantine(run)
    assert run("quarantine", "show", name).stdout == INVALID
    done = run("quarantine", "release", "--all")
    assert done.returncode == 0
    assert spool.scan() == [name]


def test_deleted_documents_are_removed_from_disk(run: Run, spool: Spool) -> None:
    name = quarantine(run)
    done = run("quarantine", "delete", name)
    assert (done.returncode, done.stderr) == (0, b"fnm-bus: 1 deleted\n")
    assert list(spool.root.rglob(f"*{name}*")) == []


def test_spool_status_lists_waiting_entries(run: Run, spool: Spool) -> None:
    name = Path(
        python_hook.store_or_fallback(str(spool.root), "/nowhere", ["ban"], BAN)[0]
    ).name
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
def test_a_missing_entry_exits_1(
    run: Run, spool: Spool, command: tuple[str, str], name: str
) -> None:
    del spool  # made, and empty
    done = run(*command, name)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_a_pipe_instead_of_a_reason_does_not_block_list(run: Run, spool: Spool) -> None:
    name = quarantine(run)
    reason = spool.root / "quarantine" / f"{name}.json"
    reason.unlink()
    os.mkfifo(reason)
    done = run("quarantine", "list", "--json")
    (shown,) = json.loads(done.stdout)
    assert (done.returncode, shown["name"]) == (0, name)
    assert "not a regular file" in shown["reason"]


def test_a_pipe_instead_of_a_lock_does_not_block_notify(run: Run, spool: Spool) -> None:
    (spool.root / "lock").unlink()
    os.mkfifo(spool.root / "lock")
    done = run("notify", stdin=BAN)
    assert done.returncode == 0
    assert len(spool.scan()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
@pytest.mark.parametrize("command", ["release", "delete"])
def test_root_acts_with_the_rights_of_the_spool_s_owner(
    run: Run, spool: Spool, tmp_path: Path, command: str
) -> None:
    """A link of the owner's leads to a directory in which he may do nothing."""
    name = quarantine(run)
    spool.make(1234, 2345)
    entries = spool.root / "incoming/new"
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
    done = run("quarantine", command, name)
    assert b"Permission denied" in done.stderr
    assert sorted(precious.rglob("*")) == before


def test_schemas_without_a_registry_exits_78(run: Run) -> None:
    done = run("schemas", "register")
    assert done.returncode == 78
    assert done.stderr.startswith(b"fnm-bus: [registry] url: ")


def test_schemas_show_prints_nested_types(run: Run) -> None:
    schema = json.loads(run("schemas", "show", "fastnetmon.HostEvent").stdout)
    assert (schema["namespace"], schema["name"]) == ("fastnetmon", "HostEvent")


def test_an_installed_hook_can_be_called_and_checked(
    run: Run, tmp_path: Path, spool: Spool
) -> None:
    path = tmp_path / "hook"
    done = run("hook", "install", str(path))
    assert done.returncode == 0
    assert f"notify_script_path {path}\n".encode() in done.stdout
    results = json.loads(run("hook", "check", str(path), "--json").stdout)
    stored = "a notification was stored, and removed"
    assert {"ok": True, "text": stored, "remedy": ""} in results
    assert spool.scan() == []


def test_a_call_drains_its_own_hook_s_spool(run: Run, tmp_path: Path) -> None:
    """Not the spool that the configuration names, which may be another hook's."""
    path, root = tmp_path / "hook", tmp_path / "another"
    assert run("hook", "install", str(path), "--spool", str(root)).returncode == 0
    done = subprocess.run(
        [path], input=INVALID, env={}, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    [reason] = (root / "quarantine").glob("*.json")
    assert json.loads(reason.read_text())["field"] == "/ip"
    assert not (tmp_path / "spool").exists()
    _python, values = python_script.read_settings(path.read_text())
    assert str(tmp_path / "fnm-bus.toml") in values["DRAIN"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a spool away")
def test_a_reinstalled_hook_keeps_the_spool_s_owner(
    run: Run, tmp_path: Path, spool: Spool
) -> None:
    spool.make(1234, 2345)
    assert run("hook", "install", str(tmp_path / "hook")).returncode == 0
    facts = [spool.root.stat(), (spool.root / "lock").stat()]
    assert {(status.st_uid, status.st_gid) for status in facts} == {(1234, 2345)}
    done = run("hook", "install", str(tmp_path / "hook"), "--owner", "root")
    assert b"owner root" in done.stderr
    assert (spool.root.stat().st_uid, spool.root.stat().st_gid) == (0, 0)


def test_a_hook_is_not_installed_over_another_program(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "notify.sh"
    path.write_text("#!/bin/sh\n")
    done = run("hook", "install", str(path), "--spool", str(tmp_path / "new"))
    assert done.returncode == 78
    assert b"another program" in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_closed_pipe_on_stdout_is_not_an_error(run: Run, tmp_path: Path) -> None:
    del run  # only its configuration
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fnm_bus", "schemas", "show", "HostEvent"],
            stdout=writing,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode != 0
    assert done.stderr == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_root_releases_with_the_rights_of_the_spool_s_owner(
    run: Run, spool: Spool, tmp_path: Path
) -> None:
    run("notify", "--drain-timeout", "1", stdin=INVALID)
    spool.make(1234, 2345)
    [kept] = [path for path in (spool.root / "quarantine").iterdir() if path.is_file()][
        :1
    ]
    for path in (spool.root / "quarantine").rglob("*"):
        os.chown(path, 1234, 2345)
    done = run("quarantine", "release", "--all")
    assert done.returncode == 0, done.stderr
    [name] = spool.scan()
    assert kept.name.startswith(name)
    assert tmp_path in spool.path(name).parents
