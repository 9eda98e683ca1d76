"""A server as a process that never outlives the run of the tests."""

import os
import random
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseServer

# Asks the kernel to end this process when pytest dies, however that comes about, and
# becomes the server. Between fork and exec of a process with threads only another
# program may do this safely.
_LEASH = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone already")
os.execv(sys.argv[2], sys.argv[2:])
"""

_CLAIMS: list[socket.socket] = []
_TAIL = 3000
_STEP = 0.05


def free_port() -> int:
    """Return an unused port of loopback.

    It lies below the range from which the kernel takes the ports of outgoing
    connections (/proc/sys/net/ipv4/ip_local_port_range), so that a server which is
    started again finds it free again. No other process of tests gets the same one.
    """
    for port in random.sample(range(20_000, 32_000), 200):
        # A name of the kernel's, which is free again when this process ends.
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0fnm-bus-test-port-{port}")
        except OSError:
            claim.close()
            continue
        _CLAIMS.append(claim)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 20000 and 32000")


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Call *ready* until it returns true; no event announces these states.

    Raises:
        TimeoutError: it did not within *seconds*; the text is *what*.
    """
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(_STEP)


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    """Serve in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    with server:
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def being(uid: int, gid: int, act: Callable[[], None]) -> None:
    """Do something as another user, in a process of its own.

    To change the user of this one would be to interrupt all its threads, and
    librdkafka's mock cluster, which other tests use, does not survive that.
    """
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            act()
        except BaseException:  # noqa: BLE001 - this is not the process of the tests
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def accepts(port: int) -> bool:
    """Return whether a server accepts connections on *port* of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Server:
    """One process, its output in a file.

    Args:
        command: program and arguments; the program as a path.
        log: file that gets what it prints.
        environment: added to that of this process.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = command
        self._log = log
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `wait` returns when it serves."""
        leash = [sys.executable, "-IS", "-c", _LEASH, str(os.getpid())]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*leash, *self._command],
                cwd=self._log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
            )

    def wait(self, ready: Callable[[], bool], seconds: float = 300) -> None:
        """Wait until *ready* returns true.

        Raises:
            RuntimeError: it ended, or was not ready in time; with the end of its log.
        """

        def ready_or_dead() -> bool:
            return not self.alive or ready()

        try:
            wait_until(ready_or_dead, seconds, self._log.stem)
        except TimeoutError as exc:
            raise RuntimeError(f"{exc}\n{self.tail()}") from exc
        if not self.alive:
            raise RuntimeError(f"{self._log.stem} ended\n{self.tail()}")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The number of the process.

        Raises:
            RuntimeError: it was never started.
        """
        if self._process is None:
            raise RuntimeError(f"{self._log.stem} was not started")
        return self._process.pid

    def kill(self) -> None:
        """End it at once (SIGKILL) and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def output(self) -> str:
        """Return everything that it printed."""
        return self._log.read_text(errors="replace")

    def tail(self) -> str:
        """Return the end of what it printed."""
        return self._log.read_text(errors="replace")[-_TAIL:]


def child_ids(parent: int, word: str) -> list[int]:
    """Return the ids of a process's children with *word* on their command line."""
    ids = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (path / "cmdline").read_bytes().split(b"\0")
            status = (path / "stat").read_text().rpartition(")")[2].split()
            if word.encode() in line and int(status[1]) == parent:
                ids.append(int(path.name))
    return ids
