"""`fnm-bus simulate`: a simulated attack through the real hook."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fnm_bus.cli.options import (
    ConfigFile,
    end,
    out_raw,
    print_error,
    print_note,
    print_progress,
    settings,
)

if TYPE_CHECKING:
    from fnm_bus.config.settings import Settings

UNSTORED = 75


def simulate(  # noqa: PLR0913 - one parameter for each option
    *,
    hosts: Annotated[int, typer.Option(min=1, max=10_000, help="Attacked hosts.")] = 10,
    updates: Annotated[
        int, typer.Option(min=0, max=1_000, help="Rounds of status updates.")
    ] = 2,
    rate: Annotated[
        float,
        typer.Option(
            min=0, max=100, help="Calls per second; 0 means as fast as possible."
        ),
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same attack.")] = 1,
    hook: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="An installed hook. Without it, a temporary one for [spool].",
        ),
    ] = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the documents; store nothing.")
    ] = False,
    yes_publish: Annotated[
        bool,
        typer.Option(
            "--yes-publish",
            help="Use a spool that no demo made: the events reach the real topics.",
        ),
    ] = False,
    file: ConfigFile = None,
) -> None:
    """Call the hook with a simulated attack, as FastNetMon would.

    Bans hosts and a hostgroup, announces Flow Spec rules, updates the status, and
    unbans everything. All addresses are from the ranges for documentation. Programs
    that act on events act on simulated ones too. So this command needs the spool of
    a running `fnm-bus demo --keep`, or --yes-publish.

    Examples:
        fnm-bus simulate --hosts 1 --print | head -1 | fnm-bus parse

        fnm-bus simulate --hosts 20

        fnm-bus simulate --hosts 500 --rate 0 --seed 7 --yes-publish
    """
    from fnm_bus.demo.attack import AttackPlan, attack_calls
    from fnm_bus.demo.replay import replay

    plan = AttackPlan(hosts, updates, seed)
    if print_:
        for call in attack_calls(plan):
            out_raw(call.document)
        return
    configured = settings(file)
    from fnm_bus.spool.spool import Spool

    spools = _spools(configured, hook)
    if not yes_publish:
        _require_demo(spools)
    with tempfile.TemporaryDirectory(prefix="fnm-bus-") as directory:
        path = hook or _install_hook(Path(directory), *spools)
        total = sum(1 for _ in attack_calls(plan))
        statuses = Counter(
            _with_progress(replay(path, attack_calls(plan), rate), total)
        )
    print_note(f"fnm-bus: {statuses[0]} notifications are in the spool")
    if failed := statuses.total() - statuses[0]:
        print_error(f"{failed} of {statuses.total()} calls failed")
        end(UNSTORED)
    if not Spool(spools[0]).is_locked():
        print_note("fnm-bus: no relay is running; `fnm-bus drain` publishes them")


def _spools(configured: "Settings", hook: Path | None) -> tuple[Path, Path]:
    """Return the spool and the fallback spool that the hook stores to.

    Raises:
        ConfigError: the file is not a hook of fnm-bus.
    """
    if hook is None:
        return configured.spool.directory, configured.spool.fallback
    from fnm_bus.errors import ConfigError
    from fnm_bus.setup import install_hook

    try:
        content = hook.read_bytes()
    except OSError as exc:
        raise ConfigError(f"--hook: {hook}: {exc.strerror}") from exc
    try:
        values = install_hook.read_settings(content)
    except ConfigError as exc:
        raise ConfigError(f"--hook: {hook}: {exc}") from exc
    return Path(str(values["SPOOL"])), Path(str(values["FALLBACK"]))


def _require_demo(spools: Iterable[Path]) -> None:
    """Refuse spools that no demo made.

    Raises:
        ConfigError: one of them was not made by a demo.
    """
    from fnm_bus.demo import marker
    from fnm_bus.errors import ConfigError

    for spool in spools:
        if marker.read_marker(spool) is None:
            raise ConfigError(
                f"{spool}: this spool was not made by a demo, so the simulated attack"
                " would reach the real topics and the programs that act on them.\n"
                "--print prints the documents only; `fnm-bus demo --keep` starts a"
                " spool for trying; --yes-publish publishes to the real topics"
            )


def _install_hook(directory: Path, spool: Path, fallback: Path) -> Path:
    from fnm_bus.setup import install_hook

    path = directory / "hook"
    install_hook.install(path, spool, fallback, install_hook.best_python())
    return path


def _with_progress(statuses: Iterable[int], total: int) -> Iterator[int]:
    """Yield *statuses*, and show the progress on a terminal."""
    for number, status in enumerate(statuses, 1):
        print_progress(f"{number}/{total}")
        yield status
    print_progress("")
