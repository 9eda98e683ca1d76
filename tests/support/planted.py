"""Faults planted in the parser of a process, for unexpected errors."""

import os
from pathlib import Path
from typing import Final

_CODE: Final = """
import os
import resource
import signal

from fnm_bus.relay import pipeline
from fnm_bus.relay.isolation import child

child.MAX_CPU = 1  # second, so that a test does not wait for five
_parse = pipeline.parse


def parse(document, arguments, receipt):
    if b"poison: crash" in document:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"poison: exit" in document:
        os._exit(3)
    if b"poison: fault" in document:
        raise RuntimeError("nobody thought of this")
    if b"poison: hang" in document:
        while True:
            pass
    if b"poison: memory" in document:
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does, out of memory
        bytearray(1 << 30)
    if b"slow" in document and os.path.exists(%(stop)r):
        open(%(began)r, "w").close()
        signal.pause()
    if b"killed outside" in document:
        os.kill(os.getpid(), signal.SIGKILL)
    return _parse(document, arguments, receipt)


pipeline.parse = parse
"""


class Planted:
    """A directory that plants the faults in every Python that has it in its path.

    Attributes:
        path: the value of PYTHONPATH.
        stop: while this file exists, a document with the word slow never ends.
        began: exists when such a document is being read.
    """

    def __init__(self, root: Path) -> None:
        self.stop, self.began = root / "stop", root / "began"
        places = {"stop": str(self.stop), "began": str(self.began)}
        (root / "sitecustomize.py").write_text(_CODE % places)
        inherited = os.environ.get("PYTHONPATH", "")
        self.path = os.pathsep.join(filter(None, (str(root), inherited)))


def poison(kind: str) -> bytes:
    """Return a valid ban that meets the planted fault *kind*."""
    text = f'{{"action":"ban","ip":"192.0.2.66","x":"poison: {kind}"}}'
    return text.encode()
