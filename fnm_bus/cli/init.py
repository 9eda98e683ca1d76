"""`fnm-bus init`: set up fnm-bus beside FastNetMon."""

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fnm_bus.cli.options import (
    ConfigFile,
    end,
    out,
    print_errors,
    print_note,
    settings,
)
from fnm_bus.config.spool_paths import CONFIG, FILE
from fnm_bus.errors import ConfigError, FnmBusError

if TYPE_CHECKING:
    from fnm_bus.config.settings import Settings
    from fnm_bus.setup.init import Answers, Step

FAILED = 1
_HOOK = Path("/usr/local/bin/fnm-bus-hook")


def init(  # noqa: PLR0913 - one parameter for each option
    *,
    file: ConfigFile = None,
    sensor: Annotated[
        str | None, typer.Option(help="Stable name of this FastNetMon.")
    ] = None,
    brokers: Annotated[
        str | None, typer.Option(help="Kafka's bootstrap servers: HOST:PORT,….")
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(help='Address of the schema registry; "" for no registry.'),
    ] = None,
    replication: Annotated[
        int | None, typer.Option(min=1, help="Replicas of each new topic.")
    ] = None,
    fastnetmon_user: Annotated[
        str | None, typer.Option(help="User that FastNetMon runs as.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            help="User of the relay, who owns the spool. Else the spool's owner,"
            " fnm-bus for root, or this user."
        ),
    ] = None,
    hook: Annotated[
        Path, typer.Option(help="Path of the hook, an absolute path.")
    ] = _HOOK,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Use defaults instead of questions; start at once."),
    ] = False,
) -> None:
    """Write the configuration, make spools, hook and topics, and check everything.

    Asks for each value without an option, and shows all steps before the first one. An
    existing configuration file is used and never changed. Prints the commands that
    make FastNetMon use the hook. Exits with status 1 if a step failed; repeat the
    command after the repair.

    Examples:
        fnm-bus init

        fnm-bus init --yes --sensor fra1 --brokers kafka1:9092,kafka2:9092
        --fastnetmon-user root
    """
    from fnm_bus.cli.check import check_all
    from fnm_bus.cli.check_results import show
    from fnm_bus.setup import init as setup
    from fnm_bus.setup import install_hook

    path = (file or Path(os.environ.get(CONFIG) or FILE)).absolute()
    given = {
        "sensor": sensor,
        "brokers": brokers,
        "registry": registry,
        "replication": replication,
    }
    install_hook.check_path(hook)
    if path.exists():
        answers, configured = None, settings(path)
        _compare(path, given, setup.answers_of(configured))
    else:
        answers = _ask(given, yes=yes)
        configured = _parse(answers)
    user = fastnetmon_user or _prompt("FastNetMon's user", "root", yes=yes)
    host = setup.Host(path, hook, owner, user)
    commands = list(setup.next_commands(configured, host))
    steps = list(setup.steps(configured, host, answers))
    print_note("fnm-bus init will:")
    for step in steps:
        print_note(f"  {step.text}")
    if not (yes or typer.confirm("Continue?", default=True, err=True)):
        end(FAILED)
    failed = []
    for step in steps:
        if not _run(step):
            failed.append(step)
            if not path.exists():  # the other steps need the configuration
                end(FAILED)
    for line in ["", "# Next:", *commands]:
        out(line)
    show(check_all(path))
    end(FAILED if failed else 0)


def _run(step: "Step") -> bool:
    """Perform a step, and return whether it succeeded."""
    try:
        step.run()
    except FnmBusError as exc:
        print_note(f"FAILED  {step.text}")
        print_errors(exc)
        return False
    print_note(f"done    {step.text}")
    return True


def _parse(answers: "Answers") -> "Settings":
    """Return the settings of a configuration that is not written yet.

    Raises:
        ConfigError: an answer cannot be used.
    """
    from fnm_bus.setup.init import write_config

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, FILE.name)
        write_config(file, answers)
        return settings(file)


def _ask(given: dict[str, Any], *, yes: bool) -> "Answers":
    """Return the configuration's values: options first, then questions."""
    from fnm_bus.setup.init import Answers

    questions = {
        "sensor": ("Stable name of this FastNetMon", socket.gethostname()),
        "brokers": ("Kafka's bootstrap servers", "localhost:9092"),
        "registry": ("Address of the schema registry, empty for no registry", ""),
        "replication": ("Replicas of each topic (1 for a single broker)", 3),
    }
    values: dict[str, Any] = {
        name: _prompt(text, default, yes=yes) if given[name] is None else given[name]
        for name, (text, default) in questions.items()
    }
    return Answers(**values)


def _prompt(text: str, default: Any, *, yes: bool) -> Any:
    return default if yes else typer.prompt(text, default=default, err=True)


def _compare(path: Path, given: dict[str, Any], existing: "Answers") -> None:
    """Refuse options that differ from the existing configuration.

    Raises:
        ConfigError: an option differs.
    """
    problems = [
        f"--{name}: {path} exists and has {value!r}; change the file, or remove it"
        for name, value in existing._asdict().items()
        if given[name] not in {None, value}
    ]
    if problems:
        raise ConfigError("\n".join(problems))
