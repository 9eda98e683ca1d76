"""What an operator copies onto a machine with systemd: packaging/."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import pytest
from support.process import being
from typer.testing import CliRunner

from consumers.__main__ import app as consumer_app
from consumers.settings import EnforcerSettings, FullSettings
from fnm_bus import build
from fnm_bus.cli import app as bus_app
from fnm_bus.config import load, spool_paths
from fnm_bus.config.settings import Settings
from fnm_bus.setup import install_hook
from fnm_bus.spool import layout
from fnm_bus.spool.limits import AdmissionLevel
from fnm_bus.spool.spool import Spool

PACKAGING = Path(__file__).parents[2] / "packaging"
SERVICES = sorted((PACKAGING / "systemd").glob("*.service"))
TIMERS = sorted((PACKAGING / "systemd").glob("*.timer"))
ENFORCERS = {"exabgp", "nftables"}
BIN = "/opt/fnm-bus/bin"
APPS = {"fnm-bus": bus_app, "fnm-bus-consumer": consumer_app}
FASTNETMON = 65_534
SAMPLE = b'{"action":"ban","alert_scope":"host","ip":"192.0.2.1"}\n'

as_service = pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can make the files of other users"
)

DIFFERS = {
    "fnm-bus-relay": {"ProtectProc", "ProcSubset"},
    "fnm-bus-drain": {"ProtectProc", "ProcSubset"},
    "fnm-bus-exabgp": {"ProcSubset"},
    "fnm-bus-nftables": {
        *("ProcSubset", "RestrictAddressFamilies"),
        *("CapabilityBoundingSet", "AmbientCapabilities"),
    },
    "fnm-bus-jsonlines": {"UMask"},
}
"""In what a unit is locked in otherwise than the mitigator, for a reason it gives."""
LOCKS = (
    *("NoNewPrivileges", "CapabilityBoundingSet", "AmbientCapabilities", "UMask"),
    *("LockPersonality", "MemoryDenyWriteExecute", "ProcSubset", "ReadOnlyPaths"),
)
LOCK_FAMILIES = ("Protect", "Private", "Restrict", "SystemCall")


def directives(path: Path, section: str = "Service") -> dict[str, list[str]]:
    """Return a section of a unit: name → values."""
    values: dict[str, list[str]] = {}
    within = ""
    for line in path.read_text().splitlines():
        if line.startswith("["):
            within = line.strip("[]")
        elif within == section and line and not line.startswith("#"):
            name, value = line.split("=", 1)
            values.setdefault(name, []).append(value)
    return values


def command(path: Path) -> Sequence[str]:
    """Return the program and the arguments that a service starts."""
    (line,) = directives(path)["ExecStart"]
    return shlex.split(line)


def locks(path: Path) -> dict[str, list[str]]:
    return {
        name: values
        for name, values in directives(path).items()
        if name in LOCKS
        or (name.startswith(LOCK_FAMILIES) and name not in {"Restart", "RestartSec"})
    }


def settings_of(path: Path, empty: Path) -> FullSettings:
    """Return the settings of a service's environment, the machine's file apart."""
    empty.write_text("")
    environment = dict(
        assignment.split("=", 1)
        for assignment in directives(path).get("Environment", ())
    )
    return load.load_as(FullSettings, empty, environment).settings


def run(*argv: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a program of systemd; leave the test out where it is missing."""
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed (Debian's package systemd)")
    return subprocess.run(
        argv,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
        timeout=60,
    )


def test_systemd_understands_every_unit(tmp_path: Path) -> None:
    units = tmp_path / "units"
    units.mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    for path in (*SERVICES, *TIMERS):
        text = path.read_text()
        assert path in TIMERS or f"ExecStart={BIN}/" in text
        units.joinpath(path.name).write_text(text.replace(BIN, str(programs)))
    for path in SERVICES:
        program = programs / Path(command(path)[0]).name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    # Other units of this machine are not ours to judge.
    done = run(
        *("systemd-analyze", "verify", "--man=no", "--recursive-errors=no"),
        *sorted(units.iterdir()),
    )
    ours = [line for line in done.stdout.splitlines() if "fnm-bus" in line]
    assert (ours, done.returncode) == ([], 0), done.stdout


def test_systemd_finds_a_fault_in_a_unit(tmp_path: Path) -> None:
    bad = tmp_path / "fnm-bus-relay.service"
    text = (PACKAGING / "systemd" / bad.name).read_text()
    text = text.replace(f"{BIN}/fnm-bus relay", "/bin/true")
    bad.write_text(text.replace("WatchdogSec=30", "WatchdogSec=soon"))
    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", bad)
    assert f"{bad.name}:" in done.stdout
    assert "soon" in done.stdout


@as_service
def test_a_service_is_locked_in(path: Path) -> None:
    done = run(
        *("systemd-analyze", "security", "--no-pager", "--offline=true"),
        *("--threshold=25", path),
    )
    assert done.returncode == 0, done.stdout


@as_service
def test_services_are_locked_in_alike_but_for_a_reason(path: Path) -> None:
    usual = locks(PACKAGING / "systemd/fnm-bus-mitigator.service")
    mine = locks(path)
    differs = {
        directive
        for directive in {*usual, *mine}
        if usual.get(directive) != mine.get(directive)
    }
    assert differs == DIFFERS.get(path.stem, set())


@pytest.mark.parametrize("name", ["relay", "drain"])
def test_a_drain_can_list_the_processes_of_other_users(name: str) -> None:
    """Otherwise every hook seems dead, and the file of a slow hook is removed."""
    unit = directives(PACKAGING / f"systemd/fnm-bus-{name}.service")
    assert not {"ProtectProc", "ProcSubset"} & unit.keys()


@pytest.mark.parametrize("name", ["relay", "drain"])
def test_a_drain_has_a_lower_priority_than_the_detector(name: str) -> None:
    [nice] = directives(PACKAGING / f"systemd/fnm-bus-{name}.service")["Nice"]
    assert int(nice) == Settings().relay.cpu_nice


@as_service
def test_a_service_starts_an_existing_command(path: Path) -> None:
    program, *arguments = command(path)
    assert Path(program).parent == Path(BIN)
    (script,) = entry_points(group="console_scripts", name=Path(program).name)
    done = CliRunner().invoke(APPS[script.name], [*arguments, "--help"])
    assert done.exit_code == 0, done.output
    assert arguments[0] in done.output


def test_each_service_has_a_user_of_its_own() -> None:
    """One that is taken over can neither read the others' secrets nor stop them."""
    lines = (PACKAGING / "sysusers.d/fnm-bus.conf").read_text().splitlines()
    made = [line.split()[1] for line in lines if line.startswith("u ")]
    users = {path.stem: directives(path)["User"] for path in SERVICES}
    assert users.pop("fnm-bus-drain") == users["fnm-bus-relay"] == ["fnm-bus"]
    assert sorted(made) == sorted(user for [user] in users.values())
    assert all(
        directives(path)["Group"] == directives(path)["User"] for path in SERVICES
    )


def test_the_drop_in_gives_each_service_its_own_password(tmp_path: Path) -> None:
    text = (PACKAGING / "systemd/kafka-password.conf").read_text()
    unit = tmp_path / "fnm-bus-relay.service"
    plain = (PACKAGING / "systemd" / unit.name).read_text()
    unit.write_text(plain.replace(f"{BIN}/fnm-bus relay", "/bin/true"))
    drop_in = tmp_path / "fnm-bus-.service.d/kafka-password.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(text)
    done = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit)
    assert [line for line in done.stdout.splitlines() if "fnm-bus" in line] == []
    values = directives(PACKAGING / "systemd/kafka-password.conf")["Environment"]
    environment = dict(value.split("=", 1) for value in values)
    empty = tmp_path / "fnm-bus.toml"
    empty.touch()
    settings = load.load(empty, environment).settings
    assert settings.kafka == {"sasl.username": "%p"}
    assert settings.kafka_files == {"sasl.password": Path("%d/kafka-password")}


def test_a_drain_ends_before_the_next_drain() -> None:
    arguments = command(PACKAGING / "systemd/fnm-bus-drain.service")
    assert float(arguments[arguments.index("--timeout") + 1]) < 60
    (timer,) = TIMERS
    assert directives(timer, "Timer")["OnCalendar"] == ["minutely"]


def test_no_two_services_share_a_port(tmp_path: Path) -> None:
    ports = {}
    for path in SERVICES:
        settings = settings_of(path, tmp_path / "fnm-bus.toml")
        if "relay" in path.stem:
            ports[path.stem] = settings.relay.metrics_port
        elif path.stem != "fnm-bus-drain":
            ports[path.stem] = settings.consumers.metrics_port
    assert len(ports) == len(SERVICES) - 1
    assert sorted(ports.values()) == list(range(9310, 9310 + len(ports)))


def test_enforcers_write_snapshots_of_their_own_where_they_may(tmp_path: Path) -> None:
    written = {}
    for path in SERVICES:
        name = path.stem.removeprefix("fnm-bus-")
        table = getattr(
            settings_of(path, tmp_path / "fnm-bus.toml").consumers, name, None
        )
        if isinstance(table, EnforcerSettings):
            (state,) = directives(path)["StateDirectory"]
            assert table.snapshot.parent == Path("/var/lib", state)
            written[name] = table.snapshot
    assert written.keys() == ENFORCERS
    assert len(set(written.values())) == len(written)


@pytest.mark.parametrize("name", ["relay", "drain"])
def test_a_drain_may_write_only_to_both_spools(name: str) -> None:
    unit = directives(PACKAGING / f"systemd/fnm-bus-{name}.service")
    spool = Settings().spool
    (paths,) = unit["ReadWritePaths"]
    # The dash: the relay reports a missing directory.
    assert paths.split() == [f"-{spool.directory}", f"-{spool.fallback}"]
    assert not [directive for directive in unit if directive.endswith("Directory")]


def test_the_readme_names_every_file() -> None:
    text = (PACKAGING / "README.md").read_text()
    compiled = PACKAGING / "__pycache__"  # of the wheel's build hook
    files = [path for path in PACKAGING.rglob("*") if path.is_file()]
    files = [path for path in files if path.parent != compiled]
    missing = [
        str(file.relative_to(PACKAGING))
        for file in files
        if file.name != "README.md" and str(file.relative_to(PACKAGING)) not in text
    ]
    assert missing == []


class Machine(NamedTuple):
    """A file system's root on which sysusers and tmpfiles have been at work.

    Attributes:
        root: the directory.
        uid: of the user fnm-bus.
        gid: of the group fnm-bus.
    """

    root: Path
    uid: int
    gid: int

    def at(self, path: Path) -> Path:
        """Return where *path* is."""
        return self.root / path.relative_to("/")

    def boot(self) -> None:
        """Make, clean and remove as systemd does at a boot and once a day."""
        for option in ("--create", "--clean", "--remove"):
            done = run("systemd-tmpfiles", f"--root={self.root}", option)
            assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine on which the commands of the documentation were typed."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        for name in ("sysusers.d", "tmpfiles.d"):
            shutil.copytree(PACKAGING / name, root / "etc" / name)
        Path(scratch).chmod(0o755)  # for the user of FastNetMon
        done = run("systemd-sysusers", f"--root={root}")
        assert done.returncode == 0, done.stdout
        lines = (root / "etc/passwd").read_text().splitlines()
        [entry] = [line.split(":") for line in lines if line.startswith("fnm-bus:")]
        made = Machine(root, int(entry[2]), int(entry[3]))
        made.boot()
        yield made


def facts(root: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode, owner and group of all that is in *root*, by name."""
    modes = {}
    for path in (root, *root.rglob("*")):
        status = path.lstat()
        modes[str(path.relative_to(root))] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
        )
    return modes


def contents(root: Path) -> dict[str, tuple[object, ...]]:
    """Return the facts of all files in *root* that must not change, by name."""
    states: dict[str, tuple[object, ...]] = {}
    for path in (root, *root.rglob("*")):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        states[str(path.relative_to(root))] = (
            *(
                status.st_ino,
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
            ),
            data,
        )
    return states


def hook(machine: Machine) -> Path:
    """Install the hook on *machine*; return its path."""
    settings = Settings().spool
    path = machine.root.parent / "fnm-bus-hook"
    install_hook.install(
        path,
        machine.at(settings.directory),
        machine.at(settings.fallback),
        Path("/usr/bin/python3"),
    )
    return path


def call(path: Path, user: int, group: int) -> "subprocess.CompletedProcess[bytes]":
    """Start the hook as FastNetMon would, as a user who is in *group*."""
    return subprocess.run(
        [path, "ban"],
        input=SAMPLE,
        capture_output=True,
        check=False,
        env={},
        cwd="/",
        user=user,
        group=user,
        extra_groups=[group],
        timeout=60,
    )


@needs_root
def test_the_user_has_its_own_group_and_no_login(machine: Machine) -> None:
    users = (machine.root / "etc/passwd").read_text().splitlines()
    groups = (machine.root / "etc/group").read_text().splitlines()
    assert all(user.endswith(":/usr/sbin/nologin") for user in users)
    assert [user.split(":")[0] for user in users] == [
        group.split(":")[0] for group in groups
    ]
    assert f"fnm-bus:x:{machine.gid}:" in groups


@needs_root
@pytest.mark.parametrize("kind", ["directory", "fallback"])
def test_the_spools_are_as_hook_install_makes_them(
    machine: Machine, tmp_path: Path, kind: str
) -> None:
    made = machine.at(getattr(Settings().spool, kind))
    layout.make(tmp_path / "spool", machine.uid, machine.gid)
    assert facts(made) == facts(tmp_path / "spool")
    assert layout.find_faults(made, machine.uid, machine.gid) == []


@needs_root
def test_the_directory_of_pins_and_snapshots_is_the_services(machine: Machine) -> None:
    settings = FullSettings()
    state = machine.at(settings.registry.schema_ids_file.parent)
    assert (
        settings.consumers.exabgp.snapshot.parent
        == settings.registry.schema_ids_file.parent
    )
    assert facts(state) == {".": (0o040755, machine.uid, machine.gid)}
    assert facts(machine.at(spool_paths.FILE.parent)) == {
        ".": (0o040755, 0, 0),
        "secrets": (0o040700, 0, 0),
    }
    assert facts(machine.at(Settings().spool.fallback.parent))["."] == (0o040755, 0, 0)


@needs_root
def test_hook_install_after_tmpfiles_changes_nothing(machine: Machine) -> None:
    for root in (Settings().spool.directory, Settings().spool.fallback):
        before = contents(machine.at(root))
        Spool(machine.at(root)).make(machine.uid, machine.gid)
        assert contents(machine.at(root)) == before


@needs_root
def test_a_boot_changes_nothing_in_a_spool_with_documents(machine: Machine) -> None:
    path = hook(machine)
    for user in (0, FASTNETMON):
        assert call(path, user, machine.gid).returncode == 0
    settings = Settings().spool
    spool = machine.at(settings.directory)
    Spool(spool).refuse(AdmissionLevel.STATUS)
    for name in ("quarantine/q.doc", "quarantine/foreign/1-x", "state/epochs.json"):
        spool.joinpath(name).write_text(name)
    spool.joinpath("lock").write_text("never emptied")
    machine.at(FullSettings().consumers.exabgp.snapshot).write_text("{}")
    roots = [
        machine.at(directory) for directory in (settings.directory, settings.fallback)
    ]
    roots.append(machine.at(FullSettings().registry.schema_ids_file.parent))
    for old in (path for root in roots for path in (root, *root.rglob("*"))):
        os.utime(old, (1, 1))
    before = [contents(root) for root in roots]
    assert sum(len(path) for path in before) > 50
    machine.boot()
    assert [contents(root) for root in roots] == before


@needs_root
def test_wrong_modes_of_directories_are_repaired_at_boot(machine: Machine) -> None:
    spool = machine.at(Settings().spool.directory)
    spool.joinpath("incoming/tmp").chmod(0o777)
    spool.joinpath("incoming/new/7").rmdir()
    machine.boot()
    assert layout.find_faults(spool, machine.uid, machine.gid) == []


@needs_root
def test_hook_and_relay_can_use_the_directories_of_tmpfiles(machine: Machine) -> None:
    path = hook(machine)
    for user in (0, FASTNETMON):
        done = call(path, user, machine.gid)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert call(path, FASTNETMON, FASTNETMON).returncode == 75  # not of the group
    spool = Settings().spool
    settings = Settings.model_validate(
        {
            "spool": {
                "directory": machine.at(spool.directory),
                "fallback": machine.at(spool.fallback),
            }
        }
    )

    def look() -> None:
        places = build.build_boot_epochs(settings)
        first, second = build.build_spools(settings, places)
        for spool in (first, second):
            lock = spool.lock()
            assert lock is not None
            with lock:
                assert spool.is_locked()
            assert (spool.foreign_files(), spool.remove_orphans()) == ([], [])
        names = first.scan()
        assert [first.read(name).document for name in names] == [SAMPLE, SAMPLE]
        for name in names:
            first.remove(name)
        assert first.scan() == []
        assert second.scan() == []

    being(machine.uid, machine.gid, look)


@needs_root
def test_the_fallback_spool_replaces_an_unwritable_spool(machine: Machine) -> None:
    path = hook(machine)
    settings = Settings().spool
    spool = Spool(machine.at(settings.directory))
    being(machine.uid, machine.gid, lambda: spool.refuse(AdmissionLevel.ALL))
    done = call(path, FASTNETMON, machine.gid)
    assert done.returncode == 75
    assert b"kept in the fallback spool" in done.stderr
    fallback = Spool(machine.at(settings.fallback))

    def look() -> None:
        (name,) = fallback.scan()
        assert fallback.read(name).document == SAMPLE

    being(machine.uid, machine.gid, look)
