"""ExaBGP's configuration files, exabgp.conf and exabgp.env, from the settings.

ExaBGP starts two API processes: the enforcer, and the watchdog that withdraws expired
routes. ExaBGP restarts each of them when it dies.
"""

import re
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from consumers.enforcers.exabgp.vocabulary import canonical_communities
from consumers.settings import ExabgpSettings
from fnm_bus.errors import ConfigError

# A loop of 2 ms instead of 10 announces routes sooner, for 5 % of an idle core.
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

_IP_VERSIONS: Final = {
    "neighbor": (4, 6),
    "local_address": (4, 6),
    "router_id": (4,),
    "ipv4_next_hop": (4,),
    "ipv6_next_hop": (6,),
}
"""Setting → allowed IP versions."""
_QUOTABLE: Final = re.compile(r"[^\"\\\n]+")


class Commands(NamedTuple):
    """The commands of the API processes: absolute path and arguments."""

    enforcer: Sequence[str]
    watchdog: Sequence[str]


def api_commands(config_file: Path | None) -> Commands:
    """Return the commands of this installation, with its configuration file."""
    # -P: a folder named consumers in the current directory must not be imported.
    program = (sys.executable, "-P", "-m", "consumers", "exabgp")
    file = () if config_file is None else ("--config", str(config_file.absolute()))
    return Commands((*program, "--api", *file), (*program, "--watchdog", *file))


def check_settings(settings: ExabgpSettings) -> None:
    """Make sure that ExaBGP and its neighbor accept the settings.

    Raises:
        ConfigError: the text lists every problem, one a line.
    """
    problems = [
        problem
        for name in _IP_VERSIONS
        if (problem := _address_problem(settings, name))
    ]
    try:
        canonical_communities(settings.communities)
    except ValueError as exc:
        problems.append(f"consumers.exabgp.{exc}")
    if not settings.port:
        problems.append("consumers.exabgp.port: set the neighbor's port, not 0")
    if not problems and (
        ip_address(settings.neighbor).version
        != ip_address(settings.local_address).version
    ):
        problems.append(
            f"consumers.exabgp.local_address: {settings.local_address} is of another IP"
            f" version than the neighbor {settings.neighbor}"
        )
    if problems:
        raise ConfigError("\n".join(problems))


def conf_text(settings: ExabgpSettings, commands: Commands) -> str:
    """Return exabgp.conf.

    Raises:
        ConfigError: as for `check_settings`; or a command cannot be quoted.
    """
    check_settings(settings)
    return _CONF.format(
        enforcer=_quoted(commands.enforcer),
        watchdog=_quoted(commands.watchdog),
        **settings.model_dump(include=set(ExabgpSettings.model_fields)),
    )


def env_text(user: str) -> str:
    """Return exabgp.env, for an ExaBGP that runs as *user*."""
    return _ENV.format(user=user)


def _address_problem(settings: ExabgpSettings, name: str) -> str:
    text, versions = getattr(settings, name), _IP_VERSIONS[name]
    try:
        if ip_address(text).version in versions and "%" not in text:
            return ""
    except ValueError:
        pass
    kinds = " or ".join(f"IPv{version}" for version in versions)
    return f"consumers.exabgp.{name}: {text!r} is not an {kinds} address"


def _quoted(command: Sequence[str]) -> str:
    for word in command:
        if not _QUOTABLE.fullmatch(word):
            raise ConfigError(f"exabgp.conf cannot contain {word!r}: use another path")
    return " ".join(f'"{word}"' for word in command)
