"""Check an installed hook: the file, its interpreter, its spools, and one call."""

import os
import stat
import subprocess
from pathlib import Path
from typing import Final

from fnm_bus.errors import ConfigError
from fnm_bus.setup import compile_hook, hook_call, native_binary, python_script
from fnm_bus.setup.check_result import CheckResult
from fnm_bus.spool import layout
from fnm_bus.spool.spool import Spool

_PYTHON_TIMEOUT: Final = 30.0
"""Seconds for the start of the interpreter: disks can be slow."""
_OTHER_FILE_SYSTEMS: Final = ("/run", "/var/lib", "/srv")
"""Candidates for the fallback spool that only root can write to, the best one first."""


def check(path: Path) -> list[CheckResult]:
    """Check the hook at *path*, and send one notification through it.

    The notification is marked (`python_hook.CHECK_ARGUMENT`) and never published. A
    relay removes and counts it; without a relay this function removes it.

    Root starts the hook and then gives up its rights for those of the spool's owner.
    """
    try:
        values, results = _examine(path, path.read_bytes())
    except FileNotFoundError:
        remedy = f"run: fnm-bus hook install {path}"
        return [CheckResult(ok=False, text=f"{path}: does not exist", remedy=remedy)]
    except (OSError, ConfigError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        remedy = "name the file that `fnm-bus hook install` wrote"
        return [CheckResult(ok=False, text=f"{path}: {reason}", remedy=remedy)]
    spool, fallback = Spool(str(values["SPOOL"])), Spool(str(values["FALLBACK"]))
    return [
        _check_file(path),
        *results,
        _check_spool(spool, "spool"),
        _check_spool(fallback, "fallback spool"),
        _check_file_systems(path, spool, fallback),
        *hook_call.check(path, spool, fallback, drains=bool(values["DRAIN"])),
    ]


def _examine(path: Path, content: bytes) -> tuple[dict[str, object], list[CheckResult]]:
    """Return the settings of a hook, and the results for its kind."""
    if native_binary.is_native(content):
        hook = native_binary.read(content)
        source = compile_hook.SOURCE.read_bytes()
        is_same = native_binary.is_compiled_from(hook, source)
        return hook.settings, [_version_result(path, is_same=is_same)]
    text = content.decode("utf-8", "replace")
    interpreter, values = python_script.read_settings(text)
    return values, [
        _check_python(interpreter),
        _version_result(path, is_same=_is_current(interpreter, values, text)),
    ]


def _check_file(path: Path) -> CheckResult:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode not in {0o755, 0o555} or status.st_uid not in {0, os.geteuid()}:
        text = f"{path}: mode {mode:o}, owner {status.st_uid}"
        remedy = f"chown root:root {path} && chmod 755 {path}"
        return CheckResult(ok=False, text=text, remedy=remedy)
    if directory := _shared_parent(path):
        text = f"{path}: users other than root can replace it, in {directory}"
        remedy = f"chown root:root {directory} && chmod go-w {directory}, or move the"
        return CheckResult(ok=False, text=text, remedy=f"{remedy} hook")
    return CheckResult(ok=True, text=f"{path}: mode {mode:o}, owner {status.st_uid}")


def _shared_parent(path: Path) -> Path | None:
    """Return a directory above *path* whose entries another user can replace.

    FastNetMon may be root, who would execute that user's hook and write to that user's
    spool.
    """
    for directory in path.resolve().parents:
        status = directory.stat()
        shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if shared or status.st_uid not in (0, os.geteuid()):
            return directory
    return None


def _check_python(python: str) -> CheckResult:
    code = "import posix, sys; sys.exit(sys.version_info < (3, 9))"
    try:
        status = subprocess.run(  # noqa: S603 - the interpreter that the hook names
            [python, "-IS", "-c", code],
            check=False,
            timeout=_PYTHON_TIMEOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        ).returncode
        trouble = "is older than Python 3.9" if status else ""
    except (OSError, subprocess.TimeoutExpired) as exc:
        trouble = str(exc)
    if not trouble and not _is_executable_by_all(Path(python)):
        trouble = "other users cannot start it"
    remedy = "install python3 for all users, then the hook again"
    return CheckResult(
        not trouble, f"{python}: {trouble or 'runs'}", trouble and remedy
    )


def _is_executable_by_all(path: Path) -> bool:
    path = path.resolve()
    return all(p.stat().st_mode & stat.S_IXOTH for p in (path, *path.parents))


def _is_current(interpreter: str, values: dict[str, object], text: str) -> bool:
    try:
        return python_script.source(Path(interpreter), values) == text
    except ConfigError:
        return False


def _version_result(path: Path, *, is_same: bool) -> CheckResult:
    if is_same:
        return CheckResult(ok=True, text=f"{path}: of this version of fnm-bus")
    return CheckResult(
        ok=False,
        text=f"{path}: of another version of fnm-bus, or changed by hand",
        remedy=f"run: fnm-bus hook install {path}",
    )


def _check_spool(spool: Spool, kind: str) -> CheckResult:
    remedy = "run `fnm-bus hook install` as root with --owner and --group"
    try:
        owner = (spool.root / "lock").lstat()
    except PermissionError as exc:
        remedy = "add this user to the spool's group, as FastNetMon's user"
        return CheckResult(ok=False, text=f"{kind}: {exc}", remedy=remedy)
    except OSError as exc:
        return CheckResult(ok=False, text=f"{kind}: {exc}", remedy=remedy)
    if faults := layout.find_faults(spool.root, owner.st_uid, owner.st_gid):
        return CheckResult(ok=False, text=f"{kind}: {'; '.join(faults)}", remedy=remedy)
    if directory := _shared_parent(spool.root):
        return CheckResult(
            ok=False,
            text=f"{kind} {spool.root}: users other than root can replace it, in"
            f" {directory}",
            remedy=f"chown root {directory} && chmod go-w {directory}",
        )
    return CheckResult(ok=True, text=f"{kind}: {spool.root}, owner {owner.st_uid}")


def _check_file_systems(path: Path, spool: Spool, fallback: Spool) -> CheckResult:
    try:
        directories = [spool.root / "incoming/tmp", *spool.buckets()]
        devices = {directory.stat().st_dev for directory in directories}
        fallback_device = fallback.root.stat().st_dev
    except OSError as exc:
        return CheckResult(ok=False, text=f"file systems: {exc}", remedy="see above")
    if len(devices) > 1:
        text = f"{spool.root}: its directories are on several file systems"
        return CheckResult(ok=False, text=text, remedy="mount one for all of them")
    if fallback_device not in devices:
        text = "spool and fallback spool: on two file systems"
        return CheckResult(ok=True, text=text)
    text = f"{fallback.root}: on the spool's file system, so it fails with it"
    for directory in _OTHER_FILE_SYSTEMS:
        if _device(directory) not in {*devices, None}:
            remedy = (
                f"`fnm-bus hook install {path} --fallback {directory}/fnm-bus/spool`"
            )
            return CheckResult(ok=False, text=text, remedy=f"run {remedy}")
    # As in most containers: without an alternative this is not a fault.
    return CheckResult(ok=True, text=f"{text}; this machine has no other file system")


def _device(directory: str) -> int | None:
    """Return the device of a directory's file system; None if there is no directory."""
    try:
        return Path(directory).stat().st_dev
    except OSError:
        return None
