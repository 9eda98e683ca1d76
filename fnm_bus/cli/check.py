"""`fnm-bus check`: look at everything between FastNetMon and Kafka."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fnm_bus.cli.options import ConfigFile, Json, dump, end, settings
from fnm_bus.config.load import LoadedSettings, load, shown
from fnm_bus.config.secrets import MASK
from fnm_bus.setup.check_result import CheckResult


def check(*, file: ConfigFile = None, json: Json = False) -> None:
    """Look at everything: spool, relay, Kafka, topics, registry, FastNetMon.

    Each line passed or failed, with what to do. Changes nothing. Ends with status 1
    when something failed.

    Examples:
        fnm-bus check

        fnm-bus check --json
    """
    from fnm_bus.cli.findings import show
    from fnm_bus.setup.check_all import examine

    known = settings(file)
    group = _group_of(known.spool.directory)
    findings = [*exposed_secrets(load(file), group), *examine(known)]
    if json:
        dump([finding._asdict() for finding in findings])
    else:
        show(findings)
    end(0 if all(finding.ok for finding in findings) else 1)


def exposed_secrets(
    loaded: LoadedSettings[Any], group: int | None
) -> Iterator[CheckResult]:
    """Yield each file with a secret that other users may read.

    Args:
        loaded: the configuration, with where each value comes from.
        group: of the spool: FastNetMon's user is in it, who needs no secret; or None.
    """
    for file, keys in sorted(_secrets_by_file(loaded).items()):
        readers = _readers(file, group)
        if readers:
            yield CheckResult(
                ok=False,
                what=f"{file}: {readers} can read it, and it has {', '.join(keys)}",
                remedy="write the secret to a file of mode 400 that only the service's"
                " user can read, and name that file in [kafka_files]",
            )


def _secrets_by_file(loaded: LoadedSettings[Any]) -> Mapping[Path, list[str]]:
    files: dict[Path, list[str]] = {}
    for row in shown(loaded):
        if row.key.startswith("kafka_files."):
            files.setdefault(Path(str(row.value)), []).append(row.key)
        elif MASK in str(row.value):  # a variable's name is no file's
            files.setdefault(Path(row.source), []).append(row.key)
    return files


def _readers(file: Path, group: int | None) -> str:
    try:
        facts = file.stat()
        ways = [it.stat().st_mode for it in file.resolve().parents]
    except OSError:  # whoever needs it complains of it
        return ""
    if facts.st_mode & stat.S_IROTH and all(way & stat.S_IXOTH for way in ways):
        return "all users"
    if facts.st_mode & stat.S_IRGRP and facts.st_gid == group and group:
        return "the spool's group, so FastNetMon's user,"
    return ""


def _group_of(directory: Path) -> int | None:
    try:
        return directory.stat().st_gid
    except OSError:  # a spool that is missing is reported elsewhere
        return None
