"""`fnm-bus hook`: the file that FastNetMon starts."""

import grp
import os
import pwd
import sys
from pathlib import Path
from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, dump, end, out_raw, say, settings
from fnm_bus.config.spool_paths import CONFIG
from fnm_bus.errors import ConfigError, SpoolError

app = typer.Typer(help="Install and check the file that FastNetMon starts.")

HookPath = Annotated[Path, typer.Argument(help="The file, an absolute path.")]


@app.command()
def install(  # noqa: PLR0913 - one parameter for each option
    path: HookPath,
    *,
    file: ConfigFile = None,
    spool: Annotated[
        Path | None, typer.Option(help="The spool. Else [spool] directory.")
    ] = None,
    fallback: Annotated[
        Path | None, typer.Option(help="The fallback spool. Else [spool] fallback.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(
            help="User of the relay. Else the spool's owner, or who runs this."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Group of the hook's user. Else the spool's, or the owner's."
        ),
    ] = None,
    drain: Annotated[
        bool | None,
        typer.Option(
            "--drain/--no-drain",
            help="Let a call drain the spool by itself where no relay runs."
            " Done by default, but not with --shell.",
        ),
    ] = None,
    shell: Annotated[
        bool,
        typer.Option(
            "--shell",
            help="Write the hook in POSIX shell: quicker where many calls come at once."
            " It needs coreutils and no Python, and a relay: it implies --no-drain.",
        ),
    ] = False,
    busybox: Annotated[
        bool,
        typer.Option(
            "--busybox",
            help="As --shell, run by busybox, which starts no program for what it has"
            " itself: the quickest.",
        ),
    ] = False,
) -> None:
    """Write the hook, make the spool, and print FastNetMon's settings.

    A call that drains uses the hook's own spools and this configuration file, and no
    variable of the environment.

    Example:
        fnm-bus hook install /usr/local/bin/fnm-bus-hook --owner fnm-bus
    """
    if (shell or busybox) and drain:
        raise typer.BadParameter("--shell: this hook never drains; leave --drain out")
    from fnm_bus.setup import install_hook as installing
    from fnm_bus.spool.spool import Spool

    known = settings(file)
    directory = spool or known.spool.directory
    second = fallback or known.spool.fallback
    installing.check_path(path)
    for one in (directory, second):
        uid, gid = _ids(one, owner, group)
        Spool(one).make(uid, gid)
        say(f"fnm-bus: spool {one}, of {_name(uid)}")
    # The timeout is short: FastNetMon's call waits for the drain.
    seconds = str(known.notify.drain_timeout)
    command = [sys.executable, "-I", "-m", "fnm_bus", "drain", "--timeout", seconds]
    # The drain has an empty environment, except for the hook's spools and lock.
    named = file or os.environ.get(CONFIG)
    command += ["--config", str(Path(named).resolve())] if named else []
    if shell or busybox or drain is False:
        command = []
    if busybox:
        interpreter = installing.busybox()
    else:
        interpreter = installing.SHELL if shell else installing.best_python()
    text = installing.install(path, directory, second, interpreter, command)
    say(f"fnm-bus: hook {path}")
    out_raw(text.encode())


@app.command()
def check(path: HookPath, *, json: Json = False) -> None:
    """Prove the hook with one call, from FastNetMon's side to the relay's.

    The call's document is marked; the relay removes it and publishes nothing.

    Example:
        fnm-bus hook check /usr/local/bin/fnm-bus-hook
    """
    from fnm_bus.cli.findings import show
    from fnm_bus.setup.check_hook import check as prove

    findings = prove(path)
    if json:
        dump([finding._asdict() for finding in findings])
    else:
        show(findings)
    end(0 if all(finding.ok for finding in findings) else 1)


def _ids(spool: Path, owner: str | None, group: str | None) -> tuple[int, int]:
    """Return the owner and group of a spool: as told, else those that it has."""
    try:
        if owner is None and spool.is_dir():
            # Another owner would take it away from the relay that drains it.
            facts = spool.stat()
            there = grp.getgrnam(group).gr_gid if group else facts.st_gid
            return facts.st_uid, there
        user = pwd.getpwnam(owner) if owner else pwd.getpwuid(os.geteuid())
        gid = grp.getgrnam(group).gr_gid if group else user.pw_gid
    except KeyError as exc:
        raise ConfigError(f"--owner, --group: {exc.args[0]}") from exc
    except OSError as exc:
        raise SpoolError(f"{spool}: {exc.strerror}") from exc
    return user.pw_uid, gid


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container
        return f"user {uid}"
