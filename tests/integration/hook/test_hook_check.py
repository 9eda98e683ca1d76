"""The installed hook is checked, and what is wrong is said."""

import contextlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.installed_hook import NOBODY, InstalledHook, drains
from support.process import being, wait_until

from fnm_bus.errors import ConfigError
from fnm_bus.setup import check_hook, hook_call, install_hook
from fnm_bus.spool.limits import AdmissionLevel
from fnm_bus.spool.spool import Spool

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can act as another user"
)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"python": Path("/opt/my python/bin/python3")}, "blanks"),
        ({"python": Path("/" + "x" * 130)}, "127 bytes"),
        ({"python": Path("python3")}, "absolute"),
        ({"spool": Path("spool")}, "absolute"),
        ({"path": Path("notify")}, "absolute"),
        ({"path": Path("/tmp/a b")}, "plain characters"),  # noqa: S108 - never made
        ({"path": Path("/tmp/a;b")}, "plain characters"),  # noqa: S108 - never made
    ],
)
def test_a_path_that_cannot_work_is_refused(
    installed: InstalledHook, changes: dict[str, Path], word: str
) -> None:
    paths = {
        "path": installed.path,
        "spool": installed.spool.root,
        "fallback": installed.fallback.root,
        "python": Path("/usr/bin/python3"),
        **changes,
    }
    with pytest.raises(ConfigError, match=word):
        install_hook.install(**paths)


def test_the_instructions_name_the_settings_of_both_editions(
    installed: InstalledHook,
) -> None:
    text = installed.install()
    assert f"sudo fcli set main notify_script_path {installed.path}\n" in text
    assert "notify_script_attack_status_updates enable" in text
    assert f"\nnotify_script_path = {installed.path}\n" in text
    assert (installed.path.stat().st_mode & 0o7777) == 0o755


@pytest.mark.parametrize("content", [b"#!/bin/sh\necho mine\n", b"\x7fELF\xd0\xff"])
def test_another_program_is_not_replaced(
    installed: InstalledHook, content: bytes
) -> None:
    installed.path.write_bytes(content)
    with pytest.raises(ConfigError, match="another program"):
        installed.install()
    assert installed.path.read_bytes() == content
    (finding,) = check_hook.check(installed.path)
    assert "is not an fnm-bus hook" in finding.text
    assert "hook install" in finding.remedy
    assert str(installed.path) not in finding.remedy


def test_an_older_hook_and_an_empty_file_are_replaced(installed: InstalledHook) -> None:
    text = installed.path.read_text()
    installed.path.write_text(text.replace("umask", "mask"))
    installed.install()
    installed.path.write_bytes(b"")
    installed.install()
    assert installed.path.read_text() == text


@pytest.fixture(autouse=True)
def one_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container: there is none for the fallback spool but the spool's."""
    monkeypatch.setattr(check_hook, "_OTHER_FILE_SYSTEMS", ())


def test_a_check_names_a_file_system_for_the_fallback_spool(
    installed: InstalledHook, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = installed.directory / "missing"
    monkeypatch.setattr(
        check_hook, "_OTHER_FILE_SYSTEMS", (str(missing), str(small_disk))
    )
    [fault] = [
        it for it in check_hook.check(installed.path) if "file system" in it.text
    ]
    assert not fault.ok
    assert f"--fallback {small_disk}/fnm-bus/spool" in fault.remedy


def test_a_check_asks_for_no_file_system_that_is_not_there(
    installed: InstalledHook,
) -> None:
    [finding] = [
        it for it in check_hook.check(installed.path) if "file system" in it.text
    ]
    assert finding.ok
    assert "no other file system" in finding.text


def test_a_check_finds_a_directory_in_which_others_can_replace_the_hook(
    installed: InstalledHook,
) -> None:
    loose = installed.directory / "loose"
    loose.mkdir()
    path = loose / "deeper" / "notify"
    path.parent.mkdir()
    shutil.copy(installed.path, path)
    loose.chmod(0o777)
    [fault] = [it for it in check_hook.check(path) if "replace it" in it.text]
    assert not fault.ok
    assert f"chmod go-w {loose}," in fault.remedy


def test_a_check_finds_a_directory_in_which_others_can_replace_the_spool(
    installed: InstalledHook,
) -> None:
    loose = installed.directory / "loose"
    loose.mkdir()
    installed.spool.root.rename(loose / "spool")
    installed.spool = Spool(loose / "spool")
    installed.install()
    loose.chmod(0o777)
    [fault] = [it for it in check_hook.check(installed.path) if "replace it" in it.text]
    assert (fault.ok, f"{loose}/spool" in fault.text) == (False, True)
    assert str(loose) in fault.remedy


@needs_root
def test_root_removes_a_check_s_entry_as_the_spool_s_owner(
    shared: InstalledHook,
) -> None:
    """He could have put a directory of another's in the place of his own."""

    def check() -> None:
        findings = check_hook.check(shared.path)
        assert "a notification was stored, and removed" in findings[-1].text
        assert os.getresuid() == (1234, 1234, 1234)

    shared.install(("/bin/true",))
    shared.use("/usr/bin/python3")
    being(0, 0, check)
    assert shared.entries() == []


def wrong(findings: list[check_hook.CheckResult]) -> str:
    return "\n".join(it.text for it in findings if not it.ok)


def test_a_check_without_a_relay_stores_one_and_takes_it_away(
    installed: InstalledHook,
) -> None:
    told = drains(installed)
    findings = check_hook.check(installed.path)
    assert "removed" in findings[-1].text
    assert findings[-1].ok
    assert not told.exists()
    assert installed.entries() == []


TAKES = """
import sys
from fnm_bus.spool.spool import Spool
from fnm_bus.spool.watch import Watch
spool = Spool(sys.argv[1])
with spool.lock(), Watch(spool.buckets()) as watch:
    print("held", flush=True)
    while watch.wait(60) and watch.has_changed():
        for name in spool.scan():
            spool.remove(name)
"""


def test_a_check_with_a_relay_waits_until_that_took_it(
    installed: InstalledHook,
) -> None:
    argv = [sys.executable, "-c", TAKES, installed.spool.root]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as relay:
        try:
            assert relay.stdout is not None
            assert relay.stdout.readline() == b"held\n"
            findings = check_hook.check(installed.path)
        finally:
            relay.kill()
    assert "the relay took it" in findings[-1].text


@needs_root
@pytest.mark.parametrize("relay", [True, False])
def test_a_check_by_fastnetmon_s_user_sees_what_that_user_can(
    shared: InstalledHook, monkeypatch: pytest.MonkeyPatch, *, relay: bool
) -> None:
    if not relay:
        monkeypatch.setattr(hook_call, "_RELAY_TIMEOUT", 0.5)

    def check() -> None:
        findings = check_hook.check(shared.path)
        last = "the relay took it" if relay else "did not take a notification"
        assert last in findings[-1].text
        faults = [*filter(lambda it: not it.ok, findings)]
        assert len(faults) == (not relay), faults

    def takes() -> None:
        wait_until(lambda: bool(shared.spool.scan()), 30, "a notification")
        for name in shared.spool.scan():
            shared.spool.remove(name)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(being, NOBODY, 2345, check)
        if relay:
            being(1234, 2345, takes)
        done.result()
    assert shared.entries() == []


def test_another_run_of_pytest_does_not_close_the_shared_spool(
    shared: InstalledHook, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert tmp_path_factory.getbasetemp() not in shared.directory.parents


@needs_root
def test_a_check_finds_an_owner_who_is_not_root(installed: InstalledHook) -> None:
    os.chown(installed.path, NOBODY, NOBODY)
    assert f"owner {NOBODY}" in wrong(check_hook.check(installed.path))


def test_a_check_finds_a_spool_on_several_file_systems(
    installed: InstalledHook, small_disk: Path
) -> None:
    bucket = installed.spool.root / "incoming/new/7"
    (small_disk / "bucket").mkdir()
    subprocess.run(["mount", "--bind", small_disk / "bucket", bucket], check=True)
    try:
        assert "are on several file systems" in wrong(check_hook.check(installed.path))
    finally:
        subprocess.run(["umount", bucket], check=True)


def test_a_check_finds_a_python_that_only_one_can_start(
    installed: InstalledHook,
) -> None:
    private = installed.directory / "private"
    private.mkdir(mode=0o700)
    python = shutil.copy("/usr/bin/python3", private)
    text = installed.path.read_text().split("\n", 1)[1]
    installed.path.write_text(f"#!{python} -IS\n{text}")
    assert "other users cannot start it" in wrong(check_hook.check(installed.path))


@needs_root
def test_a_check_by_a_stranger_says_which_group_is_missing(
    shared: InstalledHook,
) -> None:
    def check() -> None:
        assert "Permission denied" in wrong(check_hook.check(shared.path))

    being(NOBODY, NOBODY, check)
    assert shared.entries() == []


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("absent", "does not exist"),
        ("no hook", "not an fnm-bus hook"),
        ("no python", "nowhere"),
        ("mode", "mode 775"),
        ("changed", "changed by hand"),
        ("spool", "No such file"),
        ("rights", "mode"),
        ("full", "ended with 75"),
        ("relay", "no relay runs"),
    ],
)
def test_a_check_says_what_is_wrong_and_what_to_do(
    installed: InstalledHook, how: str, word: str
) -> None:
    text = installed.path.read_text()
    if how == "absent":
        installed.path.unlink()
    elif how == "no hook":
        installed.path.write_text("#!/bin/sh\ncat > /dev/null\n")
    elif how == "no python":
        installed.path.write_text("#!/nowhere -IS\n" + text.split("\n", 1)[1])
    elif how == "mode":
        installed.path.chmod(0o775)
    elif how == "changed":
        installed.path.write_text(text + "\n")
    elif how == "spool":
        installed.spool.root.rename(installed.directory / "moved")
    elif how == "rights":
        (installed.spool.root / "incoming/tmp").chmod(0o777)
    elif how == "full":
        installed.spool.refuse(AdmissionLevel.ALL)
    findings = check_hook.check(installed.path)
    assert word in wrong(findings)
    assert all(it.remedy for it in findings if not it.ok)
    with contextlib.suppress(FileNotFoundError):
        assert not list((installed.spool.root / "incoming/new").glob("?/*"))
