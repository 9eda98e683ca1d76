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
        faults: the calls that failed. In a program of several processes the call of
            one name and number may be made by more than one of them.
    """

    status: int
    stderr: bytes
    faults: tuple[str, ...]


def sites(command: Sequence[str], document: bytes, touching: Path) -> list[Site]:
    """Return the system calls of one run that name *touching* or hold it open.

    Raises:
        Unavailable: strace is missing, or may not trace.
    """
    # Not where the text of a script, as it is read, names the directory.
    named = re.compile(rf'[<"]{re.escape(str(touching))}[/>"]')
    found, counts = [], Counter[tuple[str, str]]()
    done, shown = _strace(command, document, ("-y", "-s", "4096"))
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])
    for line in shown.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        process, call, text = match.groups()
        counts[process, call] += 1
        if named.search(text):
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
        done, shown = _strace(command, document, ("-y", "-e", inject))
        status = -9 if done.returncode in (-9, _KILLED) else done.returncode
        faults = (it for it in shown.splitlines() if it.endswith("(INJECTED)"))
        yield site, Run(status, done.stderr, tuple(faults))


def _strace(
    command: Sequence[str], document: bytes, options: Sequence[str]
) -> tuple[subprocess.CompletedProcess[bytes], str]:
    strace = shutil.which("strace")
    if strace is None:
        raise Unavailable("strace is missing: apt-get install strace")
    with tempfile.NamedTemporaryFile() as output:
        done = subprocess.run(
            [strace, "-f", "-qq", "-o", output.name, *options, *command],
            input=document,
            capture_output=True,
            check=False,
            timeout=60,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
        )
        return done, Path(output.name).read_text(errors="replace")
