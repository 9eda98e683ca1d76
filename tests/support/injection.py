"""Deaths and faults at every system call of a program that touches a directory.

strace lists the calls of one run; then there is one run for each of them, in which that
call is the process's last, or fails.
"""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from support.fetch import Unavailable

_LINE: Final = re.compile(r"^(?:(\d+) +)?(\w+)\((.*)$", re.MULTILINE)
_IN_VAIN: Final = re.compile(r'AT_FDCWD<[^>]*>(?=, "/)')
_ALL: Final = ("-y", "-s", "4096")
_FAST: Final = "--seccomp-bpf"
"""Only calls that are asked for cost time; a signal is not delivered with it."""


class Site(NamedTuple):
    """A system call of a process.

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
        faults: the calls that failed, or killed it, as strace shows them.
    """

    status: int
    stderr: bytes
    faults: tuple[str, ...]


Ended = tuple[subprocess.CompletedProcess[bytes], str]
"""How a program ended, and what strace wrote."""


class Traced(Protocol):
    """Something that runs a program once with strace's *options*; see `whole`."""

    def __call__(self, *options: str) -> Ended:
        """Run it."""


def whole(command: Sequence[str], document: bytes, *, threads: bool = False) -> Traced:
    """Trace the process that is started, and no other program that it starts.

    Args:
        command: the program and its arguments.
        document: its stdin.
        threads: whether its threads are traced as well, and then its children are.
    """

    def once(*options: str) -> Ended:
        with tempfile.NamedTemporaryFile() as output:
            more = [_FAST] if any("error=" in it for it in options) else []
            more = ["-f", *more] if threads else []
            strace = [*_strace(output.name), *more, *options]
            done = _run([*strace, *command], document)
            return done, Path(output.name).read_text(errors="replace")

    return once


def sites(traced: Traced, touching: Path) -> list[Site]:
    """Return the system calls of one run that name *touching* or hold it open.

    With `Path()`, return all of them.

    Raises:
        Unavailable: strace is missing, or may not trace.
    """
    # Not where the text of a script, as it is read, names the directory.
    named = re.compile(rf'[<"]{re.escape(str(touching))}[/>"]')
    found, counts = [], Counter[tuple[str, str]]()
    done, shown = traced(*_ALL)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace")[-2000:])
    for process, call, text in _LINE.findall(shown):
        counts[process, call] += 1
        # Where a process is does not matter to an absolute path.
        if touching == Path() or named.search(_IN_VAIN.sub("", text)):
            found.append(Site(call, counts[process, call], text))
    return found


def runs(traced: Traced, at: Sequence[Site], fault: str) -> Iterator[tuple[Site, Run]]:
    """Run the program once for each site, with a fault there; yield how it ended.

    Args:
        traced: how to run it.
        at: the sites.
        fault: strace's words for it: `signal=KILL`, `error=ENOSPC`.
    """
    # Two sites of two threads may have one name and one number: one run is enough.
    for site in {(it.call, it.number): it for it in at}.values():
        inject = f"inject={site.call}:{fault}:when={site.number}"
        done, shown = traced("-y", "-e", f"trace={site.call}", "-e", inject)
        faults = (it for it in shown.splitlines() if "(INJECTED)" in it)
        yield site, Run(done.returncode, done.stderr, tuple(faults))


def _strace(output: str) -> list[str]:
    strace = shutil.which("strace")
    if strace is None:
        raise Unavailable("strace is missing: apt-get install strace")
    return [strace, "-qq", "-o", output]


def _run(command: Sequence[str], document: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        input=document,
        capture_output=True,
        check=False,
        timeout=60,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
    )
