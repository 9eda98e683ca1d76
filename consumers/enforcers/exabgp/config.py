"""ExaBGP: its configuration, and becoming it.

ExaBGP starts two API processes: the enforcer, and a watchdog that withdraws what the
enforcer leaves standing. Both are started again when they die. ExaBGP keeps to one user
throughout: a process that starts again has to read and write what the first one did.
"""

import os
import pwd
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from consumers.enforcers.backend import UnsupportedMeasure
from consumers.enforcers.exabgp import server
from consumers.enforcers.exabgp import vocabulary as words
from consumers.enforcers.exabgp.server import FAILURE_FILE
from consumers.settings import ExabgpSettings
from fnm_bus import atomic_file
from fnm_bus.errors import ConfigError

# A loop of 2 ms instead of 10: a route is out sooner, for 5 % of a core when idle.
_ENV: Final = """\
[exabgp.api]
ack = true
cli = false
chunk = 1000
encoder = json
respawn = true
show-routes-format = v2
terminate = false

[exabgp.daemon]
daemonize = false
drop = true
user = '{user}'

[exabgp.log]
destination = 'stderr'
level = WARNING

[exabgp.reactor]
speed = 0.2

[exabgp.tcp]
bind = ''
"""

_CONF: Final = """\
process enforcer {{ run {enforcer}; encoder json; respawn true; }}
process watchdog {{ run {watchdog}; encoder json; respawn true; }}

neighbor {neighbor} {{
  router-id {router_id};
  local-address {local_address};
  local-as {local_as};
  peer-as {peer_as};
  connect {port};
  passive false;
  hold-time {hold_time};
  group-updates true;
  adj-rib-in false;
  adj-rib-out true;
  capability {{ graceful-restart disable; route-refresh enable; }}
  family {{ ipv4 unicast; ipv6 unicast; ipv4 flow; ipv6 flow; }}
  api {{
    processes [ enforcer watchdog ];
    neighbor-changes;
    receive {{ parsed; notification; }}
  }}
}}
"""

_ADDRESSES: Final = (
    "neighbor",
    "local_address",
    "router_id",
    "ipv4_next_hop",
    "ipv6_next_hop",
)
_V4: Final = {"router_id", "ipv4_next_hop"}
_V6: Final = {"ipv6_next_hop"}
_QUOTABLE: Final = re.compile(r"[^\"\\\n]+")


class Commands(NamedTuple):
    """What ExaBGP starts: program, as a whole path, and arguments.

    Attributes:
        enforcer: the process with an `ExabgpBackend`.
        watchdog: the process that runs `watchdog.run`.
    """

    enforcer: Sequence[str]
    watchdog: Sequence[str]


def commands(config_file: Path | None) -> Commands:
    """Return the commands of this installation, with its configuration file."""
    # -P: a folder named consumers in the current directory is not ours.
    ours = (sys.executable, "-P", "-m", "consumers", "exabgp")
    file = () if config_file is None else ("--config", str(config_file.absolute()))
    return Commands((*ours, "--api", *file), (*ours, "--watchdog", *file))


def check(settings: ExabgpSettings) -> None:
    """Make sure that ExaBGP takes the settings and the neighbor takes the routes.

    Raises:
        ConfigError: the text lists every problem, one a line.
    """
    found = [it for name in _ADDRESSES for it in _address(settings, name)]
    try:
        words.communities(settings.communities)
    except UnsupportedMeasure as exc:
        found.append(f"consumers.exabgp.{exc}")
    if not settings.port:
        found.append("consumers.exabgp.port: wanted the neighbor's port, got 0")
    if not found and (
        ip_address(settings.neighbor).version
        != ip_address(settings.local_address).version
    ):
        found.append(
            "consumers.exabgp.local_address: wanted an address of the neighbor's"
            f" family, got {settings.local_address} for {settings.neighbor}"
        )
    if found:
        raise ConfigError("\n".join(found))


def conf(settings: ExabgpSettings, started: Commands) -> str:
    """Return exabgp.conf.

    Raises:
        ConfigError: as `check`; or a command cannot be written in it.
    """
    check(settings)
    return _CONF.format(
        enforcer=_quoted(started.enforcer),
        watchdog=_quoted(started.watchdog),
        **settings.model_dump(include=set(ExabgpSettings.model_fields)),
    )


def env(user: str) -> str:
    """Return exabgp.env, for an ExaBGP that runs as *user*."""
    return _ENV.format(user=user)


def run(
    settings: ExabgpSettings,
    config_file: Path | None,
    started: Commands | None = None,
    check_enforcer: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Become ExaBGP; its files are in $RUNTIME_DIRECTORY, else beside the snapshot.

    Args:
        settings: the session, and the user to become.
        config_file: of fnm-bus, for the API processes; None: where they look for it.
        started: the API processes; else those of this installation.
        check_enforcer: raises ConfigError if the enforcer could not start; called as
            the user. ExaBGP would start it again and again.

    Raises:
        ConfigError: the settings are wrong, ExaBGP is not installed, the user cannot
            be taken, or the files cannot be written.
    """
    program = Path(sys.executable).with_name("exabgp")  # comes with the package
    text = conf(settings, started or commands(config_file))
    if not program.exists():
        raise ConfigError(f"{program} is missing; install fnm-bus[exabgp]")
    user = _become(settings.user)
    beside = settings.snapshot.absolute().with_suffix(".run")
    place = Path(os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or beside)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_enforcer()
        (place / "failure").unlink(missing_ok=True)
        atomic_file.replace(place / "exabgp.conf", text.encode(), 0o600)
        atomic_file.replace(place / "exabgp.env", env(user).encode(), 0o600)
    except OSError as exc:
        raise ConfigError(f"{place}: {exc.strerror}") from exc
    # Variables of this kind would win over the file.
    kept = {k: v for k, v in os.environ.items() if not k.lower().startswith("exabgp")}
    kept[FAILURE_FILE] = str(place / "failure")
    arguments = (
        *(sys.executable, "-P", "-m", server.__name__),
        *("--env-file", str(place / "exabgp.env")),
        *("server", str(place / "exabgp.conf")),
    )
    try:
        os.execve(sys.executable, arguments, kept)  # noqa: S606 - no shell is wanted
    except OSError as exc:
        text = f"{sys.executable}: {user} cannot start it: {exc.strerror}"
        raise ConfigError(text) from exc


@contextmanager
def recorded_failure() -> Iterator[None]:
    """In a process of ExaBGP: leave the reason of a ConfigError for ExaBGP's end."""
    try:
        yield
    except ConfigError as exc:
        if name := os.environ.get(FAILURE_FILE):
            with suppress(OSError):
                atomic_file.replace(Path(name), str(exc).encode(), 0o600)
        raise


def _become(user: str | None) -> str:
    """Take on *user*, if that is not who we are; return its name.

    ExaBGP itself would keep root's groups, and let its first processes be root.
    """
    try:
        if user is None:
            return _own_name()
        wanted = pwd.getpwnam(user)
        if os.geteuid() != wanted.pw_uid:
            os.initgroups(user, wanted.pw_gid)
            os.setgid(wanted.pw_gid)
            os.setuid(wanted.pw_uid)
    except KeyError as exc:
        raise ConfigError(f"consumers.exabgp.user: there is no user {user}") from exc
    except OSError as exc:
        raise ConfigError(
            f"consumers.exabgp.user: cannot become {user}: {exc.strerror}; start as"
            " root, or as that user"
        ) from exc
    return user


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # ExaBGP looks nobody up unless it is of root's user or group.
        if os.geteuid() and os.getegid():
            return str(os.geteuid())
        raise ConfigError(
            f"user {os.geteuid()} has no name, and is of group 0: ExaBGP refuses that;"
            " start it as another group"
        ) from None


def _address(settings: ExabgpSettings, name: str) -> list[str]:
    text = getattr(settings, name)
    fits = (4,) if name in _V4 else (6,) if name in _V6 else (4, 6)
    try:
        if ip_address(text).version in fits and "%" not in text:
            return []
    except ValueError:
        pass
    wanted = " or ".join(f"IPv{it}" for it in fits)
    return [f"consumers.exabgp.{name}: wanted an {wanted} address, got {text}"]


def _quoted(command: Sequence[str]) -> str:
    for it in command:
        if not _QUOTABLE.fullmatch(it):
            raise ConfigError(f"ExaBGP cannot be told to run {it!r}: use another path")
    return " ".join(f'"{it}"' for it in command)
