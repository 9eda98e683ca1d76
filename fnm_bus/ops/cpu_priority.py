"""Priority: who drains lets the detector and its hooks go first."""

import os

from fnm_bus.ops.log import get_logger

log = get_logger(__name__)


def lower(nice: int) -> None:
    """Lower the priority of this process on the CPU to *nice*, unless it is so already.

    To be called before there are threads: each has a priority of its own, and inherits
    that of who started it (sched(7)). Where it is not allowed, nothing is lost: a
    systemd unit that refuses the call can say `Nice=` itself.

    Args:
        nice: from 0, as all others, to 19, when nobody else wants the CPU.
    """
    try:
        if os.getpriority(os.PRIO_PROCESS, 0) < nice:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as exc:
        log.info("cpu_priority_unchanged", error=exc)
