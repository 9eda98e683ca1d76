"""Deaths and faults at every system call of a program that touches a directory.

strace lists the calls of one run; then there is one run for each of them, in which that
call is the program's last, or fails.
"""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from services.fetch import Unavailable

_LINE: Final = re.compile(r"^(\d+) +(\w+)\((.*)$")
_KILLED: Final = 128 + 9


class Site(NamedTuple):
    """A system call of a program.

    Attributes:
        call: its name.
        number: which of the calls with this name it is, in its process.
        text: its arguments, as strace shows them.
    """

    call: str
    number: int
    text: str


class Run(NamedTuple):
    """How a program ended.

    Attributes:
        status: exit status; -9 when it was killed.
        stderr: what it said.
    """

    status: int
    stderr: bytes


def sites(command: Sequence[str], document: bytes, touching: Path) -> list[Site]:
    """Return the system calls of one run that name *touching* or hold it open.

    Raises:
        Unavailable: strace is missing, or may not trace.
    """
    found, counts = [], Counter[tuple[str, str]]()
    for line in _traced(command, document).splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        process, call, text = match.groups()
        counts[process, call] += 1
        if str(touching) in text:
            found.append(Site(call, counts[process, call], text))
    return found


def runs(
    command: Sequence[str], document: bytes, at: Sequence[Site], fault: str
) -> Iterator[tuple[Site, Run]]:
    """Run the program once for each site, with a fault there; yield how it ended.

    Args:
        command: the program.
        document: its stdin.
        at: the sites.
        fault: strace's words for it: `signal=KILL`, `error=ENOSPC`.
    """
    # Two sites of two processes may have one name and one number: one run is enough.
    for site in {(it.call, it.number): it for it in at}.values():
        inject = f"inject={site.call}:{fault}:when={site.number}"
        done = _strace(command, document, ("-o", "/dev/null", "-e", inject))
        status = -9 if done.returncode in (-9, _KILLED) else done.returncode
        yield site, Run(status, done.stderr)


def _traced(command: Sequence[str], document: bytes) -> str:
    with tempfile.NamedTemporaryFile() as output:
        options = ("-y", "-s", "4096", "-o", output.name)
        done = _strace(command, document, options)
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])
        return Path(output.name).read_text(errors="replace")


def _strace(
    command: Sequence[str], document: bytes, options: Sequence[str]
) -> subprocess.CompletedProcess[bytes]:
    strace = shutil.which("strace")
    if strace is None:
        raise Unavailable("strace is missing: apt-get install strace")
    return subprocess.run(
        [strace, "-f", "-qq", *options, *command],
        input=document,
        capture_output=True,
        check=False,
        timeout=60,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
    )
