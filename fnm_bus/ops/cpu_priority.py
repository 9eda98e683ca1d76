"""CPU priority: the detector and its hooks come before the process that drains."""

import os

from fnm_bus.ops.log import get_logger

log = get_logger(__name__)


def lower(nice: int) -> None:
    """Lower the CPU priority of this process to *nice*, unless it is lower already.

    Call it before the first thread starts: each thread has its own priority, inherited
    from the thread that started it (sched(7)). If the call is not permitted, the
    priority stays; a systemd unit that forbids the call can set `Nice=`.

    Args:
        nice: from 0, normal, to 19, the lowest priority.
    """
    try:
        if os.getpriority(os.PRIO_PROCESS, 0) < nice:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as exc:
        log.info("cpu_priority_unchanged", error=exc)
