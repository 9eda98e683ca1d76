"""The name of an entry: boot id, start of the call in ticks, pid and a random part.

`fnm_bus.hook.python_hook.new_entry_name` and the native hook make these names.
"""

import re
from typing import Final

_NAME: Final = re.compile(
    # A larger uptime than 31 years comes from a person, and would use up the room above
    # it.
    r"[0-9a-f]{32}-0[0-9]{11}-[0-9]{7}-[0-9a-f]{8}"
)
_CLOCK_BOOT: Final = re.compile("0{20}([0-9]{12})")
_BOOT: Final = slice(0, 32)
_TICKS: Final = slice(33, 45)
_PID: Final = slice(46, 53)


def is_entry_name(text: str) -> bool:
    """Return whether *text* has the form of an entry's name."""
    return _NAME.fullmatch(text) is not None


def boot_of(name: str) -> str:
    """Return the boot id in an entry's name."""
    return name[_BOOT]


def ticks_of(name: str) -> int:
    """Return the start of the call in an entry's name, in ticks since the boot."""
    return int(name[_TICKS])


def pid_of(name: str) -> int:
    """Return the pid in an entry's name."""
    return int(name[_PID])


def clock_of(boot: str) -> int | None:
    """Return the boot's Unix time in ticks from a boot id that was made without /proc.

    None for the kernel's boot ids.
    """
    match = _CLOCK_BOOT.fullmatch(boot)
    return None if match is None else int(match[1])
