"""Help and shell completion in a new process."""

import os
import subprocess
import sys

import pytest

HEAVY = ("confluent_kafka", "fastavro", "msgspec", "prometheus_client")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["notify", "--help"], ["tail", "--help"], ["--version"]]
)
def test_help_loads_no_library_that_takes_its_time(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from fnm_bus.cli import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit: pass\n"
        f"print([it for it in {HEAVY} if it in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"
    assert done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shells_completion_can_be_printed(shell: str) -> None:
    code = f"from fnm_bus.cli import app; app(['--show-completion', {shell!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        # Else it prints that of the shell in which the tests were started.
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"complete_{shell}" in done.stdout
