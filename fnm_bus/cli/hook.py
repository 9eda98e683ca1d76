"""`fnm-bus hook`: the file that FastNetMon starts."""

import os
from pathlib import Path
from typing import Annotated

import typer

from fnm_bus.cli.options import (
    ConfigFile,
    Json,
    out_raw,
    print_note,
    settings,
)
from fnm_bus.config.spool_paths import CONFIG

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
        typer.Option(help="User of the relay. Else the spool's owner, or this user."),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Group of the hook's user. Else the spool's group, or the owner's."
        ),
    ] = None,
    native: Annotated[
        bool | None,
        typer.Option(
            "--native/--python",
            help="Write the native hook, a compiled program for many simultaneous"
            " calls; it needs a relay, and no Python. Or write the Python hook."
            " Default: the kind of the existing file, else Python.",
        ),
    ] = None,
    drain: Annotated[
        bool | None,
        typer.Option(
            "--drain/--no-drain",
            help="Let each call drain the spool if no relay runs."
            " Default, except with --native.",
        ),
    ] = None,
) -> None:
    """Write the hook, make the spool, and print FastNetMon's settings.

    Without a binary for this machine in the package, --native compiles one.

    A call that drains uses the hook's own spools and this configuration file, and no
    variable of the environment.

    Examples:
        fnm-bus hook install /usr/local/bin/fnm-bus-hook --owner fnm-bus

        fnm-bus hook install --native /usr/local/bin/fnm-bus-hook --owner fnm-bus
    """
    from fnm_bus.setup import accounts, hook_settings, install_hook
    from fnm_bus.spool.spool import Spool

    configured = settings(file)
    spools = (
        spool or configured.spool.directory,
        fallback or configured.spool.fallback,
    )
    install_hook.check_path(path)
    if native is None:
        native = install_hook.is_native(path)
    if native and drain:
        raise typer.BadParameter("the native hook never drains; leave --drain out")
    for root in spools:
        uid, gid = accounts.spool_ids(root, owner, group)
        Spool(root).make(uid, gid)
        print_note(f"fnm-bus: spool {root}, owner {accounts.user_name(uid)}")
    if native:
        text = install_hook.install_native(path, *spools)
    else:
        command = []
        if drain is not False:
            config = file or os.environ.get(CONFIG)
            command = hook_settings.drain_command(
                configured.notify.drain_timeout, Path(config) if config else None
            )
        python = install_hook.best_python()
        text = install_hook.install(path, *spools, python, command)
    print_note(f"fnm-bus: hook {path}")
    out_raw(text.encode())


@app.command()
def check(path: HookPath, *, json: Json = False) -> None:
    """Check the hook with one call, from FastNetMon's side to the relay's.

    The call's document is marked; the relay removes it and publishes nothing.

    Example:
        fnm-bus hook check /usr/local/bin/fnm-bus-hook
    """
    from fnm_bus.cli.check_results import end_with
    from fnm_bus.setup import check_hook

    end_with(check_hook.check(path), json=json)
