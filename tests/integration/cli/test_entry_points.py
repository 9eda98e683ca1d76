"""Commands of installed packages are in `fnm-bus`, and a broken one stays alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fnm_bus.cli import app, entry_points

BROKEN = {
    "missing-module": ("no_such_module:app", "No module named 'no_such_module'"),
    "missing-name": ("other_package:nothing", "no attribute 'nothing'"),
    "syntax": ("other_syntax:app", "SyntaxError"),
    "no-command": ("other_package:NUMBER", "expected a Typer application"),
    "odd-parameter": ("other_package:odd", "'Unknown' is not defined"),
    "exits": ("other_exit:app", "SystemExit: 3"),
    "two-lines": ("other_lines:app", "first line"),
}
"""Entry points that cannot be loaded: name → object, and a part of the reason."""

MODULES = {
    "other_package": """
import typer

NUMBER = 7
app = typer.Typer()

@app.command()
def inner() -> None:
    print("inner command")

@app.command()
def second() -> None:
    pass

def greet(name: str) -> None:
    print("hello", name)

def odd(value: "Unknown") -> None:
    pass
""",
    "other_syntax": "def",
    "other_exit": "raise SystemExit(3)",
    "other_lines": 'raise RuntimeError("first line\\nsecond line")',
}

Ended = subprocess.CompletedProcess[str]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory as pip leaves it, with a package that adds commands."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    metadata = tmp_path / "other_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: other-package\nVersion: 1.0\n")
    points = {
        "greet": "other_package:greet",
        "group": "other_package:app",
        "relay": "other_package:greet",
        **{name: value for name, (value, _reason) in BROKEN.items()},
    }
    lines = [f"{name} = {value}" for name, value in points.items()]
    text = "\n".join([f"[{entry_points.GROUP}]", *lines, ""])
    (metadata / "entry_points.txt").write_text(text)
    return tmp_path


def run(installed: Path, *arguments: str) -> Ended:
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "fnm_bus", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["consumer", "explain", "mitigations", "policy"])
def test_help_lists_the_commands_of_the_consumers(name: str) -> None:
    listed = CliRunner().invoke(app, ["--help"]).stdout
    assert f"\n  {name} " in listed
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


def test_a_function_and_an_application_become_commands(installed: Path) -> None:
    assert run(installed, "greet", "world").stdout == "hello world\n"
    assert run(installed, "group", "inner").stdout == "inner command\n"


def test_a_command_of_an_application_has_no_options_for_completion(
    installed: Path,
) -> None:
    assert "--install-completion" not in run(installed, "group", "--help").stdout


def test_an_entry_point_does_not_replace_a_command(installed: Path) -> None:
    assert "spool" in run(installed, "relay", "--help").stdout


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("arguments", [[], ["--help"], ["list", "--all", "x"]])
def test_an_unloadable_command_is_reported_in_a_single_line(
    installed: Path, name: str, arguments: list[str]
) -> None:
    ended = run(installed, name, *arguments)
    value, reason = BROKEN[name]
    [line] = ended.stderr.splitlines()
    begin = f"fnm-bus: the command {name} cannot be loaded from {value}: "
    assert line.startswith(begin)
    assert reason in line
    assert line.endswith("; reinstall the package other-package")
    assert (ended.returncode, ended.stdout) == (70, "")


def test_a_broken_command_leaves_others_usable(installed: Path) -> None:
    ended = run(installed, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    for name in BROKEN:
        assert f"\n  {name} " in ended.stdout
    assert "Unavailable: " in ended.stdout
    assert run(installed, "policy", "--help").returncode == 0


def test_a_command_of_fnm_bus_searches_no_entry_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def search(**_: str) -> None:
        pytest.fail("searched")

    monkeypatch.setattr(entry_points, "entry_points", search)
    for arguments in (["notify"], ["relay"], ["hook", "check"], ["spool", "status"]):
        assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0


def test_a_command_of_fnm_bus_imports_no_consumers() -> None:
    code = (
        "import sys\n"
        "from fnm_bus.cli import app\n"
        "try: app(['relay', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('consumers')],"
        " file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert ended.stderr == "[]\n"
