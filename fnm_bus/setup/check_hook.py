"""Prove that an installed hook works, or say what is wrong and what to do."""

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from fnm_bus.errors import ConfigError, FnmBusError
from fnm_bus.hook import python_hook
from fnm_bus.setup import install_hook
from fnm_bus.setup.check_result import CheckResult
from fnm_bus.spool import layout
from fnm_bus.spool.entry_name import pid_of
from fnm_bus.spool.spool import Spool

_DOCUMENT: Final = b'{"fnm-bus": "this only proves the way"}\n'
"""No notification: were it ever taken for one, it would be invalid."""
_HOOK_WITHIN: Final = 30.0
"""Seconds for the hook and for its interpreter: disks can be slow."""
_RELAY_WITHIN: Final = 10.0
"""Seconds for the relay to take the entry."""
_ELSEWHERE: Final = ("/run", "/var/lib", "/srv")
"""Where another file system may be that only root can write to, the best one first."""
_NAP: Final = 0.02
_TOOLS: Final = ("tee", "sync", "link", "rm", "cat", "stat")
_TOOLS_PATH: Final = "/usr/bin:/bin:/usr/sbin:/sbin"
"""What the hook in shell sets as its PATH."""


def check(path: Path) -> list[CheckResult]:
    """Look at the hook at *path* and send one notification through it.

    The notification is marked (`python_hook.CHECK_ARGUMENT`): a relay removes and
    counts it, else it is removed here. It is never published.

    Root starts the hook and then gives its rights up for those of the spool's owner.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        interpreter, values = install_hook.read_settings(text)
    except FileNotFoundError:
        remedy = f"run: fnm-bus hook install {path}"
        return [
            CheckResult(ok=False, what=f"{path}: there is no such file", remedy=remedy)
        ]
    except (OSError, ConfigError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc
        remedy = "name the file that `fnm-bus hook install` wrote"
        return [CheckResult(ok=False, what=f"{path}: {why}", remedy=remedy)]
    spool, fallback = Spool(str(values["SPOOL"])), Spool(str(values["FALLBACK"]))
    speaks_shell = install_hook.speaks_shell(Path(interpreter))
    runs = _shell(interpreter) if speaks_shell else _python(interpreter)
    found = [_file(path), runs, _version(path, interpreter, values, text)]
    found += [_directories(spool, "spool"), _directories(fallback, "fallback spool")]
    found.append(_file_systems(path, spool, fallback))
    return [*found, *_call(path, spool, fallback, drains=bool(values["DRAIN"]))]


def _file(path: Path) -> CheckResult:
    facts = path.stat()
    mode = stat.S_IMODE(facts.st_mode)
    ok = mode in (0o755, 0o555) and facts.st_uid in (0, os.geteuid())
    remedy = f"chown root:root {path} && chmod 755 {path}"
    what = f"{path}: mode {mode:o}, owner {facts.st_uid}"
    if ok and (loose := _replaceable_in(path)):
        ok = False
        what = f"{path}: users other than root can replace it, in {loose}"
        remedy = f"chown root:root {loose} && chmod go-w {loose}, or move the hook"
    return CheckResult(ok, what, "" if ok else remedy)


def _replaceable_in(path: Path) -> Path | None:
    """Return a directory above *path* in which another could replace what is next.

    FastNetMon may be root, who would execute the hook and write to the spool that
    another put there.
    """
    for directory in path.resolve().parents:
        facts = directory.stat()
        shared = facts.st_mode & 0o022 and not facts.st_mode & stat.S_ISVTX
        if shared or facts.st_uid not in (0, os.geteuid()):
            return directory
    return None


def _python(python: str) -> CheckResult:
    want = "import posix, sys; sys.exit(sys.version_info < (3, 9))"
    try:
        status = subprocess.run(  # noqa: S603 - the interpreter that the hook names
            [python, "-IS", "-c", want],
            check=False,
            timeout=_HOOK_WITHIN,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        ).returncode
        trouble = "is older than Python 3.9" if status else ""
    except (OSError, subprocess.TimeoutExpired) as exc:
        trouble = str(exc)
    if not trouble and not _open_to_all(Path(python)):
        trouble = "other users cannot start it"
    remedy = "install python3 for all users, then the hook again"
    return CheckResult(
        not trouble, f"{python}: {trouble or 'runs'}", trouble and remedy
    )


def _open_to_all(path: Path) -> bool:
    path = path.resolve()
    return all(it.stat().st_mode & stat.S_IXOTH for it in (path, *path.parents))


def _shell(shell: str) -> CheckResult:
    if not os.access(shell, os.X_OK):
        remedy = f"install {Path(shell).name}, or the hook again"
        return CheckResult(ok=False, what=f"{shell}: is missing", remedy=remedy)
    missing = [it for it in _TOOLS if shutil.which(it, path=_TOOLS_PATH) is None]
    what = f"{shell}: has {', '.join(_TOOLS)}"
    if missing:
        what = f"{shell}: not in {_TOOLS_PATH}: {', '.join(missing)}"
    return CheckResult(not missing, what, "install coreutils" if missing else "")


def _version(
    path: Path, interpreter: str, values: dict[str, object], text: str
) -> CheckResult:
    try:
        same = install_hook.source(Path(interpreter), values) == text
    except ConfigError:
        same = False
    if same:
        return CheckResult(ok=True, what=f"{path}: of this version of fnm-bus")
    return CheckResult(
        ok=False,
        what=f"{path}: of another version of fnm-bus, or changed by hand",
        remedy=f"run: fnm-bus hook install {path}",
    )


def _directories(spool: Spool, kind: str) -> CheckResult:
    remedy = "run `fnm-bus hook install` as root with --owner and --group"
    try:
        owner = (spool.root / "lock").lstat()
    except PermissionError as exc:
        remedy = "let this user into the spool's group, as FastNetMon's has to be"
        return CheckResult(ok=False, what=f"{kind}: {exc}", remedy=remedy)
    except OSError as exc:
        return CheckResult(ok=False, what=f"{kind}: {exc}", remedy=remedy)
    if faults := layout.find_faults(spool.root, owner.st_uid, owner.st_gid):
        return CheckResult(ok=False, what=f"{kind}: {'; '.join(faults)}", remedy=remedy)
    if loose := _replaceable_in(spool.root):
        what = f"{kind} {spool.root}: users other than root can replace it, in {loose}"
        return CheckResult(
            ok=False, what=what, remedy=f"chown root {loose} && chmod go-w {loose}"
        )
    return CheckResult(ok=True, what=f"{kind}: {spool.root}, owner {owner.st_uid}")


def _file_systems(path: Path, spool: Spool, fallback: Spool) -> CheckResult:
    try:
        directories = [spool.root / "incoming/tmp", *spool.buckets()]
        devices = {directory.stat().st_dev for directory in directories}
        other = fallback.root.stat().st_dev
    except OSError as exc:
        return CheckResult(ok=False, what=f"file systems: {exc}", remedy="see above")
    if len(devices) > 1:
        what = f"{spool.root}: its directories are on several file systems"
        return CheckResult(ok=False, what=what, remedy="mount one for all of them")
    if other not in devices:
        what = "spool and fallback spool: on two file systems"
        return CheckResult(ok=True, what=what)
    what = f"{fallback.root}: on the spool's file system, so it fails with it"
    for directory in _ELSEWHERE:
        if _device(directory) not in {*devices, None}:
            remedy = (
                f"`fnm-bus hook install {path} --fallback {directory}/fnm-bus/spool`"
            )
            return CheckResult(ok=False, what=what, remedy=f"run {remedy}")
    # As in most containers. There is nothing to choose, so this is no fault.
    return CheckResult(ok=True, what=f"{what}; there is no other one here")


def _device(directory: str) -> int | None:
    """Return on which file system a directory is; None where there is none."""
    try:
        return Path(directory).stat().st_dev
    except OSError:
        return None


def _call(
    path: Path, spool: Spool, fallback: Spool, *, drains: bool
) -> list[CheckResult]:
    # Held, so that the hook stores and does not drain: that would take its time.
    lock = python_hook.try_lock(str(spool.root))
    try:
        relay = _relay(spool, mine=lock >= 0, drains=drains)
        try:
            taken = relay.ok and lock < 0
            return [relay, _notify(path, spool, fallback, relay=taken)]
        except (FnmBusError, OSError) as exc:
            return [relay, CheckResult(ok=False, what=str(exc), remedy="see above")]
    finally:
        if lock >= 0:
            os.close(lock)


def _relay(spool: Spool, *, mine: bool, drains: bool) -> CheckResult:
    if mine:
        what = "no relay runs" + (": each call drains the spool itself" * drains)
        remedy = "" if drains else "start it: systemctl enable --now fnm-bus-relay"
        return CheckResult(drains, what, remedy)
    try:
        if spool.is_locked():
            return CheckResult(ok=True, what="a relay runs (the spool's lock is held)")
    except FnmBusError as exc:
        if isinstance(exc.__cause__, PermissionError):
            what = "the lock is for the spool's owner: the call tells if a relay runs"
            return CheckResult(ok=True, what=what)
        return CheckResult(ok=False, what=f"relay: {exc}", remedy="run this as root")
    return CheckResult(ok=False, what="no relay runs", remedy="run this as root")


def _notify(path: Path, spool: Spool, fallback: Spool, *, relay: bool) -> CheckResult:
    with subprocess.Popen(  # noqa: S603 - the hook, as FastNetMon would start it
        [str(path), python_hook.CHECK_ARGUMENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={},
    ) as process:
        try:
            out, err = process.communicate(_DOCUMENT, timeout=_HOOK_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            spool.become_owner()
            _remove_entries((spool, fallback), process.pid)
            what = f"the hook did not end within {_HOOK_WITHIN:.0f} s"
            return CheckResult(
                ok=False, what=what, remedy="is the disk slow, or stuck?"
            )
    # What is removed now is removed by names that the spool's owner can give to others.
    spool.become_owner()
    if process.returncode or out:
        _remove_entries((spool, fallback), process.pid)
        what = f"the hook ended with {process.returncode}: {err.decode()!r:.500}"
        return CheckResult(ok=False, what=what, remedy="this line says what is wrong")
    deadline = time.monotonic() + _RELAY_WITHIN
    while name := _entry(spool, process.pid):
        if not relay:
            _remove(spool, name)
            return CheckResult(ok=True, what="a notification was stored, and removed")
        if time.monotonic() > deadline:
            _remove(spool, name)
            what = f"the relay did not take a notification within {_RELAY_WITHIN:.0f} s"
            return CheckResult(ok=False, what=what, remedy="does it run? see its log")
        time.sleep(_NAP)
    if relay:
        return CheckResult(
            ok=True, what="a notification was stored, and the relay took it"
        )
    what = "the hook ended with 0 and left nothing"
    return CheckResult(
        ok=False, what=what, remedy="does somebody else empty the spool?"
    )


def _remove_entries(spools: Iterable[Spool], pid: int) -> None:
    """Remove the call's notification wherever it is stored, as far as that works."""
    for spool in spools:
        with suppress(FnmBusError, OSError):
            if name := _entry(spool, pid):
                _remove(spool, name)


def _remove(spool: Spool, name: str) -> None:
    spool.remove_temporary(name)
    spool.remove(name)


def _entry(spool: Spool, pid: int) -> str | None:
    for name in spool.scan():
        if pid_of(name) == pid:
            try:
                if spool.read(name).is_check:
                    return name
            except FileNotFoundError:
                continue
    return None
