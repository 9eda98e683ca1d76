"""Clock: time on which leases are counted."""

import time


def now() -> float:
    """Return seconds since this machine started.

    CLOCK_BOOTTIME: nobody can set it, and it goes on while the machine sleeps.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)
