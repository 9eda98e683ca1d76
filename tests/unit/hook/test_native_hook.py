"""The native hook's source; the program is tested in tests/integration."""

import re
from pathlib import Path

from fnm_bus.hook import python_hook

SOURCE = Path(python_hook.__file__).with_name("hook.c").read_text()


def test_both_hooks_have_the_same_defaults() -> None:
    block = SOURCE.partition("settings_block[SETTINGS_SIZE] =")[2].partition(";")[0]
    magic, *lines = re.findall(r'"(.*)\\0"', block)
    names = ("SPOOL", "FALLBACK", "RESERVE_BYTES", "RESERVE_INODES")
    names += ("FALLBACK_FILES", "FALLBACK_BYTES")
    assert magic == "fnm-bus native hook 1"
    assert lines == [f"{name}={getattr(python_hook, name)}" for name in names]


def test_both_hooks_have_the_same_constants() -> None:
    defines = dict(
        re.findall(r"^#define (\w+) (.+?)(?: +/\*.*)?$", SOURCE, re.MULTILINE)
    )
    assert int(python_hook.MAX_STDIN) == 64 << 20
    assert defines["MAX_STDIN"] == "((size_t)64 << 20)"
    assert defines["NO_BOOT_ID"] == f'"{python_hook.NO_BOOT_ID}"'
    assert defines["SYSLOG"] == f'"{python_hook.SYSLOG}"'
    numbers = {
        "STORED": python_hook.STORED,
        "TRY_LATER": python_hook.TRY_LATER,
        "TICKS_PER_SECOND": python_hook.TICKS_PER_SECOND,
        "LOG_TIMEOUT": python_hook.LOG_TIMEOUT,
        "MAX_LINE": python_hook._LINE,
    }
    assert {name: int(defines[name]) for name in numbers} == numbers
