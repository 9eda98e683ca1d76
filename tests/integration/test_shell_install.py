"""Installing the hook in shell: its settings, and what the command line allows."""

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fnm_bus.cli import app
from fnm_bus.errors import ConfigError
from fnm_bus.hook import python_hook
from fnm_bus.setup import install_hook

VALUES = install_hook.settings(Path("/var/spool/fnm-bus"), Path("/run/fnm-bus/spool"))
runner = CliRunner()


def test_both_hooks_have_the_same_defaults() -> None:
    text = (
        Path(python_hook.__file__)
        .with_name("shell_hook.sh")
        .read_text(encoding="utf-8")
    )
    values = install_hook.settings(Path(python_hook.SPOOL), Path(python_hook.FALLBACK))
    assert install_hook.source(install_hook.SHELL, values) == text
    assert f"\nMAX_STDIN={python_hook.MAX_STDIN} " in text


@pytest.mark.parametrize(
    "spool",
    ["/a", "/a b", "/it's", "/$(id)`id`$HOME", "/a;b&c|d", "/é", '/"\\', "/-n", "/*"],
)
def test_settings_survive_quoting_for_a_shell(
    spool: str,
) -> None:
    values = {**VALUES, "SPOOL": spool, "FALLBACK_FILES": 7, "FALLBACK_BYTES": 8}
    text = install_hook.source(install_hook.SHELL, values)
    assert install_hook.read_settings(text) == ("/bin/sh", values)
    line = next(line for line in text.splitlines() if line.startswith("SPOOL="))
    script = f'{line}\nprintf %s "$SPOOL"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert done.stdout.decode() == spool


def test_a_path_that_a_line_cannot_hold_is_refused() -> None:
    values = {**VALUES, "FALLBACK": "/run/a\nrm -rf /"}
    with pytest.raises(ConfigError, match="fallback"):
        install_hook.source(install_hook.SHELL, values)


def test_a_shell_hook_with_a_drain_command_is_refused() -> None:
    with pytest.raises(ConfigError, match="never drains"):
        install_hook.source(install_hook.SHELL, {**VALUES, "DRAIN": ("fnm-bus",)})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SPOOL=/var", "SPOOL='/var"),
        ("SPOOL=/var", "SPOOL= /var"),
        ("FALLBACK_FILES=2000", "FALLBACK_FILES=many"),
        ("FALLBACK_FILES=2000\n", ""),
    ],
)
def test_unreadable_settings_are_reported(old: str, new: str) -> None:
    text = install_hook.source(install_hook.SHELL, VALUES)
    assert old in text
    with pytest.raises(ConfigError, match="were changed"):
        install_hook.read_settings(text.replace(old, new, 1))


@pytest.mark.parametrize("first", ["#!/bin/bash", "#!/usr/bin/python3", "#!/bin/sh -e"])
def test_a_file_with_another_first_line_is_refused(first: str) -> None:
    text = install_hook.source(install_hook.SHELL, VALUES).replace(
        "#!/bin/sh", first, 1
    )
    with pytest.raises(ConfigError, match="not an fnm-bus hook"):
        install_hook.read_settings(text)


def arguments(directory: Path) -> list[str]:
    spools = ("--spool", str(directory / "spool"), "--fallback", str(directory / "two"))
    return ["hook", "install", str(directory / "hook"), *spools]


BUSYBOX = shutil.which("busybox", path="/usr/bin:/bin")
needs_busybox = pytest.mark.skipif(BUSYBOX is None, reason="busybox is not installed")


@pytest.mark.parametrize(
    ("option", "interpreter"),
    [("--shell", "/bin/sh"), pytest.param("--busybox", BUSYBOX, marks=needs_busybox)],
)
def test_the_command_line_installs_it(
    tmp_path: Path, option: str, interpreter: str
) -> None:
    done = runner.invoke(app, [*arguments(tmp_path), option])
    assert done.exit_code == 0, done.output
    path = tmp_path / "hook"
    assert path.stat().st_mode & 0o777 == 0o755
    shell, values = install_hook.read_settings(path.read_text(encoding="utf-8"))
    assert (shell, values["DRAIN"]) == (interpreter, ())
    subprocess.run([path, "ban", "192.0.2.1"], input=b"{}", check=True)
    assert len(list((tmp_path / "spool/incoming/new").glob("?/*"))) == 1


def test_without_busybox_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name, path: path and None)
    done = runner.invoke(app, [*arguments(tmp_path), "--busybox"])
    assert isinstance(done.exception, ConfigError)
    assert "busybox" in str(done.exception)


def test_both_hooks_in_shell_differ_in_their_first_line_only() -> None:
    shell = install_hook.source(install_hook.SHELL, VALUES)
    busybox = install_hook.source(Path("/bin/busybox"), VALUES)
    assert busybox == shell.replace("#!/bin/sh\n", "#!/bin/busybox sh\n", 1)


@pytest.mark.parametrize(
    ("options", "drains"), [([], True), (["--drain"], True), (["--no-drain"], False)]
)
def test_the_python_hook_drains_by_default(
    tmp_path: Path, options: list[str], *, drains: bool
) -> None:
    done = runner.invoke(app, [*arguments(tmp_path), *options])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "hook").read_text(encoding="utf-8")
    assert bool(install_hook.read_settings(text)[1]["DRAIN"]) == drains


@pytest.mark.parametrize("option", ["--shell", "--busybox"])
def test_a_shell_hook_refuses_drain_options(tmp_path: Path, option: str) -> None:
    done = runner.invoke(app, [*arguments(tmp_path), option, "--drain"])
    assert done.exit_code == 2
    assert "never drains" in done.output
    assert list(tmp_path.iterdir()) == []


def test_shellcheck_has_nothing_to_say() -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")
    text = Path(python_hook.__file__).with_name("shell_hook.sh")
    done = subprocess.run([program, text], capture_output=True, check=False)
    assert done.stdout.decode() == ""
