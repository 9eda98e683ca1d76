"""A spool in a directory, with its hook."""

import os
from pathlib import Path

from fnm_bus.hook import python_hook
from fnm_bus.spool.sequence import BootEpochs
from fnm_bus.spool.spool import Spool

BOOT = "b" * 32


def name(ticks: int, digit: str = "0", pid: int = 7) -> str:
    return f"{BOOT}-{ticks:012d}-{pid:07d}-0000000{digit}"


class Box:
    """A spool with its hook."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = Spool(root, BootEpochs(root / "state/epochs.json", BOOT))
        self.spool.make(os.geteuid(), os.getegid())

    def store(self, entry: str, document: bytes = b"{}", *arguments: str) -> str:
        python_hook.store_entry(
            str(self.root), entry, python_hook.encode_entry(arguments, document)
        )
        return entry
