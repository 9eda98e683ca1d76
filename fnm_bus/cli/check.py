"""`fnm-bus check`: check everything between FastNetMon and Kafka."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fnm_bus.cli.options import ConfigFile, Json, settings
from fnm_bus.config.load import LoadedSettings, load, setting_rows
from fnm_bus.config.secrets import MASK
from fnm_bus.setup.check_result import CheckResult


def check(*, file: ConfigFile = None, json: Json = False) -> None:
    """Check everything: spool, relay, Kafka, topics, registry, FastNetMon.

    Prints a line for each check, with a remedy if it failed. Changes nothing. Exits
    with status 1 if a check failed.

    Examples:
        fnm-bus check

        fnm-bus check --json
    """
    from fnm_bus.cli.check_results import end_with

    end_with(list(check_all(file)), json=json)


def check_all(file: Path | None) -> Iterator[CheckResult]:
    """Yield the result of each check."""
    from fnm_bus.setup.check_all import examine

    configured = settings(file)
    group = _group_of(configured.spool.directory)
    yield from exposed_secrets(load(file), group)
    yield from examine(configured)


def exposed_secrets(
    loaded: LoadedSettings[Any], group: int | None
) -> Iterator[CheckResult]:
    """Yield each file with a secret that other users can read.

    Args:
        loaded: the configuration, with the source of each value.
        group: the spool's group, or None. FastNetMon's user is in it and needs no
            secret.
    """
    for file, keys in sorted(_secrets_by_file(loaded).items()):
        readers = _readers(file, group)
        if readers:
            yield CheckResult(
                ok=False,
                text=f"{file}: {readers} can read it, and it has {', '.join(keys)}",
                remedy="write the secret to a file of mode 400 that only the service's"
                " user can read, and name that file in [kafka_files]",
            )


def _secrets_by_file(loaded: LoadedSettings[Any]) -> Mapping[Path, list[str]]:
    files: dict[Path, list[str]] = {}
    for row in setting_rows(loaded):
        if row.key.startswith("kafka_files."):
            files.setdefault(Path(str(row.value)), []).append(row.key)
        elif MASK in str(row.value):  # the source may be a variable: no such file
            files.setdefault(Path(row.source), []).append(row.key)
    return files


def _readers(file: Path, group: int | None) -> str:
    try:
        status = file.stat()
        parents = [parent.stat().st_mode for parent in file.resolve().parents]
    except OSError:  # the program that needs the file reports the error
        return ""
    if status.st_mode & stat.S_IROTH and all(mode & stat.S_IXOTH for mode in parents):
        return "all users"
    if status.st_mode & stat.S_IRGRP and status.st_gid == group and group:
        return "the spool's group, so FastNetMon's user,"
    return ""


def _group_of(directory: Path) -> int | None:
    try:
        return directory.stat().st_gid
    except OSError:  # another check reports a missing spool
        return None
