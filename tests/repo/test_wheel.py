"""The wheel is whole: it works without the checkout, from an empty directory."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

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
