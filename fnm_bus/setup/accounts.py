"""Users and groups: who owns the spool, and who adds entries to it."""

import grp
import os
import pwd
from pathlib import Path

from fnm_bus.errors import ConfigError, SpoolError


def spool_ids(spool: Path, owner: str | None, group: str | None) -> tuple[int, int]:
    """Return the user id and the group id of a spool.

    Args:
        spool: the directory. If it exists, values that are not given stay.
        owner: user of the relay; else the spool's owner, or this process's user.
        group: group of the hook's user; else the spool's group, or the owner's.

    Raises:
        ConfigError: there is no such user or group.
        SpoolError: the spool cannot be examined.
    """
    try:
        if owner is None and spool.is_dir():
            # Another owner would take the spool away from its relay.
            status = spool.stat()
            gid = grp.getgrnam(group).gr_gid if group else status.st_gid
            return status.st_uid, gid
        user = pwd.getpwnam(owner) if owner else pwd.getpwuid(os.geteuid())
        gid = grp.getgrnam(group).gr_gid if group else user.pw_gid
    except KeyError as exc:
        raise ConfigError(f"--owner, --group: {exc.args[0]}") from exc
    except OSError as exc:
        raise SpoolError(f"{spool}: {exc.strerror}") from exc
    return user.pw_uid, gid


def user_name(uid: int) -> str:
    """Return a user's name, or its number where there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container
        return f"user {uid}"


def group_name(gid: int) -> str:
    """Return a group's name, or its number where there is no name."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def can_add_entries(user: str, owner: int, group: int) -> bool:
    """Return whether FastNetMon's user can add entries to a spool.

    Args:
        user: name of FastNetMon's user.
        owner: user id of the spool.
        group: group id of the spool.

    Raises:
        ConfigError: there is no such user.
    """
    try:
        account = pwd.getpwnam(user)
    except KeyError as exc:
        raise ConfigError(f"--fastnetmon-user: {exc.args[0]}") from exc
    groups = os.getgrouplist(user, account.pw_gid)
    return account.pw_uid in {0, owner} or group in groups
