"""The wheel is whole, and each way to install it that README.md names works."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fnm_bus import __version__

ROOT = Path(__file__).parents[2]
NOTIFICATIONS = ROOT / "schemas" / "avro" / "examples" / "notifications"

LOOK = """
import json
from pathlib import Path
import fnm_bus
from fnm_bus.avro import schema
print(json.dumps({
    "where": str(Path(fnm_bus.__file__)),
    "events": list(schema.RECORDS),
    "loaded": sorted(schema.load()),
    "texts": {name: schema.text(name) for name in schema.RECORDS},
    "released": len(schema.released()),
}))
"""


def run(
    *command: str | Path, cwd: Path, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    # Nothing of the checkout may help: neither a path nor a configuration.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "FNM_BUS", "VIRTUAL_ENV"))
    }
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=600,
        check=False,
    )


def succeeds(*command: str | Path, cwd: Path) -> None:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel")
    succeeds(*build, "-d", place, cwd=ROOT)
    (built,) = place.glob("*.whl")
    return built


def test_the_source_distribution_has_the_locks(tmp_path: Path) -> None:
    build = (sys.executable, "-m", "hatchling", "build", "-t", "sdist")
    succeeds(*build, "-d", tmp_path, cwd=ROOT)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    locks = {f"requirements/{path.name}" for path in ROOT.glob("requirements/*.txt")}
    assert locks
    assert locks <= names


def test_the_source_distribution_builds_the_wheel(tmp_path: Path, wheel: Path) -> None:
    hatch = (sys.executable, "-m", "hatchling", "build")
    succeeds(*hatch, "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / built.name.removesuffix(".tar.gz")
    succeeds(*hatch, "-t", "wheel", "-d", tmp_path, cwd=source)
    (again,) = tmp_path.glob("*.whl")
    assert again.name == wheel.name
    with zipfile.ZipFile(again) as theirs, zipfile.ZipFile(wheel) as ours:
        assert set(theirs.namelist()) == set(ours.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel and what it needs."""
    home = tmp_path_factory.mktemp("environment")
    lock = ROOT / "requirements" / "runtime.txt"
    python = home / "bin" / "python"
    uv = shutil.which("uv")
    if uv is not None:
        install: tuple[str | Path, ...] = (uv, "pip", "install", "--python", python)
        succeeds(uv, "venv", "--python", sys.executable, home, cwd=home)
    else:
        install = (python, "-m", "pip", "install")
        succeeds(sys.executable, "-m", "venv", home, cwd=home)
    succeeds(*install, "--require-hashes", "-r", lock, cwd=home)
    succeeds(*install, "--no-deps", wheel, cwd=home)
    return home / "bin"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A directory with nothing in it."""
    return tmp_path


def test_the_wheel_holds_the_schemas_and_nothing_of_the_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for source in (ROOT / "schemas" / "avro").glob("*.avsc"):
        assert f"fnm_bus/schemas/avro/{source.name}" in names
    assert "fnm_bus/py.typed" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "consumers",
        "fnm_bus",
    }


@pytest.mark.parametrize("program", ["fnm-bus", "fnm-bus-consumer"])
def test_the_programs_say_their_version(
    installed: Path, empty: Path, program: str
) -> None:
    done = run(installed / program, "--version", cwd=empty)
    assert done.returncode == 0, done.stderr.decode()
    assert program in done.stdout.decode()


def test_the_schemas_are_those_of_the_checkout(installed: Path, empty: Path) -> None:
    done = run(installed / "python", "-c", LOOK, cwd=empty)
    assert done.returncode == 0, done.stderr.decode()
    there = json.loads(done.stdout)
    here = json.loads(run(sys.executable, "-c", LOOK, cwd=ROOT).stdout)
    assert there.pop("where").startswith(str(installed.parent))
    assert here.pop("where").startswith(str(ROOT))
    assert there == here
    assert there["events"]
    assert there["released"] > 0


def test_a_notification_becomes_the_record_of_the_checkout(
    installed: Path, empty: Path
) -> None:
    notification = (NOTIFICATIONS / "01-ban.json").read_bytes()
    done = run(installed / "fnm-bus", "parse", "--json", cwd=empty, stdin=notification)
    assert done.returncode == 0, done.stderr.decode()
    record = json.loads(done.stdout)
    assert record["topic"] == "fastnetmon.host.v1"
    assert record["value"]["action"] == "ban"
    assert record["key"] == record["value"]["ip"]
    assert list(empty.iterdir()) == []


def test_an_invalid_notification_is_refused_with_its_reason(
    installed: Path, empty: Path
) -> None:
    done = run(installed / "fnm-bus", "parse", "--json", cwd=empty, stdin=b"{}")
    assert done.returncode == 65, done.stderr.decode()
    assert json.loads(done.stdout)["error"]["field"] == "/action"


# -- README.md, "Install" -------------------------------------------------------------


def lines_of_readme(section: str) -> list[str]:
    """Return the indented lines of a section: commands for a shell."""
    text = (ROOT / "README.md").read_text("utf-8")
    [body] = re.findall(rf"^## {section}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for line in body.splitlines() if line.startswith("    ")]


VENV, CLONE, WHEEL, TAG, LINK = lines_of_readme("Install")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this tree as it is now, with a tag."""
    home = tmp_path_factory.mktemp("source") / "fnm-bus"
    listed = run("git", "ls-files", "-z", cwd=ROOT)
    assert listed.returncode == 0, listed.stderr.decode()
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, home / name)
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
    succeeds(*git, "init", "--quiet", cwd=home)
    succeeds(*git, "add", "--all", cwd=home)
    succeeds(*git, "commit", "--quiet", "--message", "all", cwd=home)
    succeeds(*git, "tag", f"v{__version__}", cwd=home)
    return home


def shell(line: str, clone: Path, machine: Path) -> None:
    """Run a line of README.md in the clone, with places of this test."""
    places = {
        "/opt/fnm-bus": str(machine / "opt"),
        "/usr/local/bin": str(machine / "bin"),
        "REPOSITORY": f"file://{clone}",
        "TAG": f"v{__version__}",
    }
    for named, place in places.items():
        line = line.replace(named, place)
    succeeds("sh", "-ec", line, cwd=clone)


@pytest.fixture(scope="module")
def machine(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for a virtual environment and links, as a machine has them."""
    machine = tmp_path_factory.mktemp("machine")
    (machine / "bin").mkdir()
    line = VENV.replace("python3", shlex.quote(sys.executable))
    shell(line, clone, machine)
    shell(LINK, clone, machine)
    return machine


@pytest.fixture
def not_installed(machine: Path) -> None:
    """Remove fnm-bus from the machine; libraries stay."""
    succeeds(
        machine / "opt/bin/pip", "uninstall", "--yes", "--quiet", "fnm-bus", cwd=machine
    )
    assert not (machine / "bin/fnm-bus").exists()


def is_installed(machine: Path) -> None:
    """Assert that the programs run, and that `fnm-bus` has its commands for people."""
    for program in ("fnm-bus", "fnm-bus-consumer"):
        done = run(machine / "bin" / program, "--version", cwd=machine)
        assert done.stdout.decode() == f"{program} {__version__}\n"
    done = run(machine / "bin/fnm-bus", "policy", "example", cwd=machine)
    assert done.stdout == (ROOT / "consumers/policy.example.toml").read_bytes()
    done = run(machine / "opt/bin/pip", "check", cwd=machine)
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("not_installed")
def test_a_clone_can_be_installed(clone: Path, machine: Path) -> None:
    shell(CLONE, clone, machine)
    is_installed(machine)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("not_installed")
def test_a_wheel_file_of_make_can_be_installed(clone: Path, machine: Path) -> None:
    assert "`make wheel`" in WHEEL
    # The environment of this test builds it; a clone makes one of its own first.
    (clone / ".venv").mkdir(exist_ok=True)
    (clone / ".venv/.ready").touch()
    tools = Path(sys.executable).parent
    succeeds("make", "wheel", f"BIN={tools}", cwd=clone)
    shell(WHEEL, clone, machine)
    is_installed(machine)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("not_installed")
def test_a_tag_can_be_installed(clone: Path, machine: Path) -> None:
    shell(TAG, clone, machine)
    is_installed(machine)
