"""Start ExaBGP: this process becomes ExaBGP, as the configured user.

ExaBGP keeps one user throughout: a restarted API process has to read and write the
files of the first one.
"""

import os
import pwd
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from consumers.enforcers.exabgp import conf_files, server
from consumers.enforcers.exabgp.conf_files import Commands
from consumers.enforcers.exabgp.server import FAILURE_FILE
from consumers.settings import ExabgpSettings
from fnm_bus import atomic_file
from fnm_bus.errors import ConfigError


def run(
    settings: ExabgpSettings,
    config_file: Path | None,
    commands: Commands | None = None,
    check_enforcer: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Become ExaBGP; its files are in $RUNTIME_DIRECTORY, else beside the snapshot.

    Args:
        settings: the session and the user.
        config_file: fnm-bus's configuration, for the API processes; None: the default.
        commands: the API processes; None: those of this installation.
        check_enforcer: raises ConfigError if the enforcer cannot start; called as the
            user. Without this check ExaBGP would restart the enforcer repeatedly.

    Raises:
        ConfigError: the settings are wrong, ExaBGP is not installed, the user cannot
            be changed, or the files cannot be written.
    """
    program = Path(sys.executable).with_name("exabgp")  # installed by the package
    commands = commands or conf_files.api_commands(config_file)
    text = conf_files.conf_text(settings, commands)
    if not program.exists():
        raise ConfigError(f"{program} is missing; install fnm-bus[exabgp]")
    user = _switch_user(settings.user)
    default = settings.snapshot.absolute().with_suffix(".run")
    directory = Path(os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or default)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_enforcer()
        (directory / "failure").unlink(missing_ok=True)
        atomic_file.replace(directory / "exabgp.conf", text.encode(), 0o600)
        env = conf_files.env_text(user).encode()
        atomic_file.replace(directory / "exabgp.env", env, 0o600)
    except OSError as exc:
        raise ConfigError(f"{directory}: {exc.strerror}") from exc
    # ExaBGP's variables would override the file.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().startswith("exabgp")
    }
    environment[FAILURE_FILE] = str(directory / "failure")
    arguments = (
        *(sys.executable, "-P", "-m", server.__name__),
        *("--env-file", str(directory / "exabgp.env")),
        *("server", str(directory / "exabgp.conf")),
    )
    try:
        os.execve(sys.executable, arguments, environment)  # noqa: S606 - without a shell
    except OSError as exc:
        text = f"{sys.executable}: {user} cannot start it: {exc.strerror}"
        raise ConfigError(text) from exc


@contextmanager
def recorded_failure() -> Iterator[None]:
    """In a process of ExaBGP, write a ConfigError to the file of `server`."""
    try:
        yield
    except ConfigError as exc:
        if name := os.environ.get(FAILURE_FILE):
            with suppress(OSError):
                atomic_file.replace(Path(name), str(exc).encode(), 0o600)
        raise


def _switch_user(user: str | None) -> str:
    """Switch to *user*, unless it is the current user; return the user's name.

    ExaBGP's own switch keeps root's groups, and starts the first processes as root.
    """
    try:
        if user is None:
            return _current_user()
        entry = pwd.getpwnam(user)
        if os.geteuid() != entry.pw_uid:
            os.initgroups(user, entry.pw_gid)
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
    except KeyError as exc:
        raise ConfigError(f"consumers.exabgp.user: user {user} does not exist") from exc
    except OSError as exc:
        raise ConfigError(
            f"consumers.exabgp.user: cannot switch to {user}: {exc.strerror}; start as"
            f" root or as {user}"
        ) from exc
    return user


def _current_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # ExaBGP looks up the name only as root or with root's group.
        if os.geteuid() and os.getegid():
            return str(os.geteuid())
        raise ConfigError(
            f"user {os.geteuid()} has no name and group 0, which ExaBGP refuses;"
            " start it with another group"
        ) from None
