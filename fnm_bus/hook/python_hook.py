"""The hook: the program that FastNetMon starts for every notification.

It reads stdin to the end, stores what came, and is gone. This file is the one
definition of the spool's write side; `fnm-bus hook install` writes its source, with
the settings below filled in, as a program that needs Python's standard library only.

The spool is a directory (`fnm_bus.spool.spool` makes it):

    lock                  held by whoever drains; only the owner may open it
    full                  exists while the spool refuses: holds `status` or `all`, and
                          a line break; the hook in shell looks at its length only
    incoming/tmp          notifications while they are written
    incoming/new/0 .. f   entries, by the last digit of their names
    quarantine, state     the owner's

An entry is named `<boot id>-<start of the process in ticks>-<pid>-<random>`, so the
names sort as FastNetMon started its calls. It holds `fnm-bus 1 <number of arguments>`,
a NUL, each argument and a NUL, the document as it came, and one byte 4 (EOT), without
which it is not whole: power was lost while the hook in shell stored it.

What it promises: status 0 means on disk, durably; 75 means not, and one line on stderr
and in syslog says whether the fallback spool has it. Nothing is ever on stdout.
"""

# `posix` and not `os`: nothing else is imported, `os` alone would cost two
# milliseconds for each of a thousand calls.
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# -- settings, filled in by `fnm-bus hook install` --
SPOOL = "/var/spool/fnm-bus"
FALLBACK = "/run/fnm-bus/spool"
DRAIN: tuple[str, ...] = ()  # command that drains where no relay does; () for none
RESERVE_BYTES = 8 << 20  # stays free on the spool's file system; twice that for status
RESERVE_INODES = 64  # likewise
FALLBACK_FILES = 2_000
FALLBACK_BYTES = 64 << 20
# -- end of the settings --

MAX_STDIN = 64 << 20
"""Bytes of stdin that are kept; more is read and refused, so memory is bounded."""
CHECK_ARGUMENT = "fnm-bus-hook-check"
"""The only argument of a call that only proves the way: removed, never published."""
LOCK_FD = "FNM_BUS_LOCK_FD"
"""Environment variable: the spool's lock, held, handed to the command that drains."""
END = b"\4"
"""The last byte of an entry, which is no end of any JSON or text."""
STORED, TRY_LATER = 0, 75
"""Exit status; 75 is EX_TEMPFAIL of sysexits.h."""

TICKS_PER_SECOND = 100
"""USER_HZ, the unit of times in /proc; 100 on every platform that Python runs on."""
NO_BOOT_ID = "0" * 20
"""How the boot id begins where /proc is hidden; the Unix time of the boot follows."""

SAY_WITHIN = 1
"""Seconds that stderr, and syslog, may take."""
SYSLOG = "/dev/log"
DRAIN_WITHIN = 60
"""Seconds for which a call waits for the drain that it has started."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CHUNK = 65_536
_LINE = 3_000
"""Bytes of a line: less than PIPE_BUF, which a pipe takes without a wait."""
_OUTPUT = 1_000
"""Bytes of a drain's output that are reported, the last ones."""


def slurp(path: str) -> bytes:
    """Return the first bytes of a small file; raise OSError as `open` does."""
    # A pipe in its place, or a lease (fcntl(2)), could be waited for.
    flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
    fd = posix.open(path, flags)
    try:
        return posix.read(fd, 4096)
    finally:
        posix.close(fd)


def uptime() -> int:
    """Return the ticks since the boot, suspended time included."""
    import time  # noqa: PLC0415 - built in, but needed by fall-backs only

    nanoseconds = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return nanoseconds * TICKS_PER_SECOND // 1_000_000_000


def boot_id() -> str:
    """Return 32 hexadecimal digits that name this boot of the kernel.

    Where /proc is hidden they are zeros and the boot's Unix time in ticks (decimal,
    12 digits), which is exact only as long as the clock does not jump.
    """
    try:
        text = slurp("/proc/sys/kernel/random/boot_id").decode()
        return text.strip().replace("-", "")
    except OSError:
        import time  # noqa: PLC0415 - as above

        now = time.time_ns() * TICKS_PER_SECOND // 1_000_000_000
        return f"{NO_BOOT_ID}{now - uptime():012d}"


def started(pid: "int | str" = "self") -> int:
    """Return when a process was started, in ticks since the boot.

    It is field 22 of /proc/PID/stat (proc(5)), so the time at which FastNetMon forked,
    not the one at which Python woke up. Where /proc is hidden it is the time now.

    Raises:
        OSError: another process is asked for, and there is none of that pid.
    """
    try:
        stat = slurp(f"/proc/{pid}/stat")
    except OSError:
        if pid != "self":
            raise
        return uptime()
    # The second field is the program's name, which may hold blanks and brackets.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def entry_name() -> str:
    """Return the name of the entry that this process is about to store."""
    return f"{boot_id()}-{started():012d}-{posix.getpid():07d}-{posix.urandom(4).hex()}"


def pack(arguments: "Sequence[str]", document: bytes) -> bytes:
    """Return the bytes of an entry; arguments as the kernel passed them."""
    encoding = sys.getfilesystemencoding()
    head = [b"fnm-bus 1 %d" % len(arguments)]
    head += [text.encode(encoding, "surrogateescape") for text in arguments]
    return b"\0".join([*head, document]) + END


def read_stdin(arguments: "Sequence[str]") -> bytes:
    """Return what is on stdin, read to the end; b"" for `unban` of the text mode.

    There FastNetMon Community leaves its own stdin connected, which may be a terminal.

    Raises:
        OSError: stdin cannot be read, or held more than `MAX_STDIN` bytes.
    """
    if len(arguments) == 4 and arguments[3] == "unban":  # noqa: PLR2004 - IP direction pps action
        return b""
    # A parent with a loop of events may have left it so that reading does not wait.
    posix.set_blocking(0, True)
    chunks: list[bytes] = []
    size = 0
    while chunk := posix.read(0, _CHUNK):
        size += len(chunk)
        if size > MAX_STDIN:
            chunks.clear()
        else:
            chunks.append(chunk)
    if size > MAX_STDIN:
        raise OSError(f"stdin holds {size} bytes, at most {MAX_STDIN} are kept")
    return b"".join(chunks)


def enter(root: str, *names: str) -> int:
    """Return a descriptor of a directory of the spool at *root*.

    Below the root no link is followed: the spool's owner could have put one there, and
    root, who may write anywhere, may run this.

    Raises:
        OSError: one of them is missing, or is no directory.
    """
    flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
    fd = posix.open(root, flags)
    for name in names:
        above = fd
        try:
            fd = posix.open(name, flags | posix.O_NOFOLLOW, dir_fd=above)
        finally:
            posix.close(above)
    return fd


def write(directory: int, name: str, data: bytes) -> None:
    """Write a new file that others cannot read, durably; remove it when that fails.

    Raises:
        OSError: as the system says; an existing file or link is never written to.
    """
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW
    fd = posix.open(name, flags | posix.O_CLOEXEC, 0o640, dir_fd=directory)
    try:
        try:
            posix.fchmod(fd, 0o640)  # whatever the umask is: the relay's group reads it
            rest = memoryview(data)
            while rest:
                rest = rest[posix.write(fd, rest) :]
            posix.fsync(fd)
        finally:
            posix.close(fd)
    except OSError:
        forget(name, directory)
        raise


def forget(path: str, directory: "int | None" = None) -> bool:
    """Remove a file if that can be done; return whether it was."""
    try:
        posix.unlink(path, dir_fd=directory)
    except OSError:  # what stays in tmp is removed by the relay, later
        return False
    return True


def store(root: str, name: str, data: bytes) -> str:
    """Make *data* an entry of the spool at *root*, durably; return its path.

    Raises:
        OSError: it is not in the spool, or not certain to survive a loss of power; it
            names the path.
    """
    path = f"{root}/incoming/new/{name[-1]}"
    try:
        # First, so that nothing is visible yet when there is no file descriptor left.
        bucket = enter(root, "incoming", "new", name[-1])
        try:
            path = f"{root}/incoming/tmp"
            temporary = enter(root, "incoming", "tmp")
            try:
                path = f"{root}/incoming/tmp/{name}"
                write(temporary, name, data)
                path = f"{root}/incoming/new/{name[-1]}/{name}"
                try:
                    posix.rename(name, name, src_dir_fd=temporary, dst_dir_fd=bucket)
                except OSError:
                    forget(name, temporary)
                    raise
            finally:
                posix.close(temporary)
            posix.fsync(bucket)
        finally:
            posix.close(bucket)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    return path


def check_room(root: str, document: bytes) -> None:
    """Raise OSError when the spool's limits refuse *document*."""
    status = b"attack_status" in document
    try:
        full = slurp(f"{root}/full").strip()
    except (FileNotFoundError, PermissionError):  # the second is met once more below
        full = b""
    if full == b"all" or (full and status):
        raise OSError(f"{root}: at its limit: {full.decode('utf-8', 'replace')}")
    try:
        temporary = enter(root, "incoming", "tmp")
        try:
            free = posix.fstatvfs(temporary)
        finally:
            posix.close(temporary)
    except OSError as error:
        path = f"{root}/incoming/tmp"
        raise OSError(error.errno, error.strerror, path) from error
    share = 2 if status else 1
    if free.f_bavail * free.f_frsize < RESERVE_BYTES * share:
        raise OSError(f"{root}: no room but for a reserve of {RESERVE_BYTES} bytes")
    # Some file systems make inodes as they need them and say 0.
    if free.f_files and free.f_favail < RESERVE_INODES * share:
        raise OSError(f"{root}: no inodes but for a reserve of {RESERVE_INODES}")


def check_fallback(root: str) -> None:
    """Raise OSError when the fallback spool holds as much as it may."""
    files = size = 0
    for digit in "0123456789abcdef":
        bucket = enter(root, "incoming", "new", digit)
        try:
            with posix.scandir(bucket) as entries:
                for entry in entries:
                    try:
                        size += entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:  # the relay has it now
                        continue
                    files += 1
                    if files >= FALLBACK_FILES or size >= FALLBACK_BYTES:
                        text = f"full, {files} files or more, {size} bytes or more"
                        raise OSError(f"{root}: {text}")
        finally:
            posix.close(bucket)


def keep(
    spool: str, fallback: str, arguments: "Sequence[str]", document: bytes
) -> tuple[str, str]:
    """Store a notification, in the fallback spool if need be.

    Returns:
        The entry's path, and what is wrong with the spool, "" when nothing is. The
        entry has one name, so one `event_id`, even if it comes to be in both spools.

    Raises:
        OSError: neither spool took it; the text says why.
    """
    name, data = entry_name(), pack(arguments, document)
    try:
        check_room(spool, document)
        return store(spool, name, data), ""
    except OSError as error:
        trouble = str(error)
    try:
        check_fallback(fallback)
        return store(fallback, name, data), trouble
    except OSError as error:
        raise OSError(f"{trouble}; fallback: {error}") from error


def say(line: str) -> None:
    """Write one line to stderr and to syslog, as far as these take it in `SAY_WITHIN`.

    Whoever reads them may be stuck, and syslog(3) would wait for its reader without
    end, and FastNetMon for this process.
    """
    line = "fnm-bus hook: " + " ".join(line.split())
    # What a drain has written may be meant for the terminal of whoever reads this.
    text = "".join(it if it.isprintable() else repr(it)[1:-1] for it in line)
    data = text.encode()[:_LINE]
    if trouble := write_stderr(data):
        data += f"; no stderr: {trouble}".encode("utf-8", "backslashreplace")
    send_to_syslog(data)


def write_stderr(line: bytes) -> str:
    """Write a line to stderr; return why that cannot be done, or ""."""
    try:
        import select  # noqa: PLC0415 - only when something is wrong

        ready = select.poll()
        ready.register(2, select.POLLOUT)
        if not ready.poll(1000 * SAY_WITHIN):
            return "nobody reads it"
        posix.write(2, line + b"\n")
    except (ImportError, OSError) as error:  # it may be closed
        return str(error)
    return ""


def send_to_syslog(line: bytes) -> bool:
    """Send a line to syslog; return whether it was taken."""
    try:
        import _socket  # noqa: PLC0415 - only when something is wrong

        priority = 27  # LOG_DAEMON, LOG_ERR
        data = b"<%d>fnm-bus[%d]: %s" % (priority, posix.getpid(), line)
        for kind, end in ((_socket.SOCK_DGRAM, b""), (_socket.SOCK_STREAM, b"\0")):
            log = _socket.socket(_socket.AF_UNIX, kind)
            try:
                log.settimeout(SAY_WITHIN)
                log.connect(SYSLOG)
                log.send(data + end)
            except OSError:  # not of this kind, nobody there, or stuck
                continue
            finally:
                log.close()
            return True
    except (ImportError, OSError):  # no such module, no descriptor left
        return False
    return False


def take_lock(root: str) -> int:
    """Return the spool's lock, held, or -1: another drains, or it is not for us."""
    # A lease that the owner has on it (fcntl(2)) could keep this call waiting.
    flags = posix.O_RDWR | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
    try:
        fd = posix.open(f"{root}/lock", flags)
    except OSError:  # not the owner's process, or no spool: the relay's business
        return -1
    import fcntl  # noqa: PLC0415 - only where this process may drain

    # Another's file in its place would give root's rights, or his, to the drain.
    owner = posix.stat(root).st_uid
    if posix.fstat(fd).st_uid == owner and posix.geteuid() in (0, owner):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a relay, or another call's drain
            posix.close(fd)
            return -1
        if posix.fstat(fd).st_nlink:
            return fd
    posix.close(fd)
    return -1


def pause_left(root: str) -> float:
    """Return the seconds for which no drain is to be tried, after one that failed."""
    try:
        boot, until, _failures = slurp(f"{root}/state/backoff").split()
        if boot.decode() != boot_id():
            return 0.0
        return max(0.0, (int(until) - uptime()) / TICKS_PER_SECOND)
    except (OSError, ValueError):  # none, or no longer readable: one attempt too many
        return 0.0


def become_owner(uid: int, gid: int) -> None:
    """Give root's rights up for those of the spool's owner; nothing if not root."""
    if posix.geteuid() != 0 or uid == 0:
        return
    import pwd  # noqa: PLC0415 - only for root, and only before a drain

    try:
        posix.initgroups(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # an owner without a name, as in a container
        posix.setgroups([gid])
    posix.setgid(gid)
    posix.setuid(uid)


def drain(lock: int) -> None:
    """Become the command that drains the spool, as its owner.

    It inherits the lock, so there is one such process at a time, however many calls
    come in. Nothing else of FastNetMon's gets to the owner: no descriptor, no
    environment, no terminal. Its stderr stays: it is the caller's pipe.

    Raises:
        OSError: the command cannot be started.
    """
    while lock <= 2:  # noqa: PLR2004 - stdin to stderr, where one of them was closed
        lock = posix.dup(lock)
    owner = posix.fstat(lock)
    posix.setsid()
    posix.umask(0o077)
    become_owner(owner.st_uid, owner.st_gid)
    posix.chdir("/")
    null = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1):
        posix.dup2(null, fd)
    for fd in descriptors():
        if fd > 2 and fd != lock:  # noqa: PLR2004 - as above
            posix.closerange(fd, fd + 1)
    posix.set_inheritable(lock, True)  # noqa: FBT003 - its only signature
    environment = {
        "PATH": PATH,
        LOCK_FD: str(lock),
        "FNM_BUS_SPOOL__DIRECTORY": SPOOL,
        "FNM_BUS_SPOOL__FALLBACK": FALLBACK,
    }
    posix.execve(DRAIN[0], DRAIN, environment)


def descriptors() -> "list[int]":
    """Return the numbers of this process's open files; where /proc is hidden, some."""
    try:
        return [int(name) for name in posix.listdir("/proc/self/fd")]
    except OSError:
        return list(range(1024))  # the usual limit of a process


def run_drain(lock: int) -> str:
    """Drain in a process of its own; return why that failed, or "".

    How it ends is not what became of this call's notification. The spool's owner could
    stop that process, so it is not waited for without end.

    Raises:
        OSError: no process can be started.
    """
    import select  # noqa: PLC0415 - only before a drain

    reading, writing = posix.pipe()
    child = posix.fork()
    if not child:
        try:
            lock = posix.dup(lock)  # so that it is not 2, where stderr was closed
            posix.dup2(writing, 2)
            drain(lock)
        except OSError as error:
            posix.write(2, str(error).encode("utf-8", "backslashreplace"))
        posix._exit(TRY_LATER)  # noqa: SLF001 - main is for the parent
    posix.close(lock)
    posix.close(writing)
    ready = select.poll()
    ready.register(reading, select.POLLIN)
    output, more, end = b"", True, uptime() + DRAIN_WITHIN * TICKS_PER_SECOND
    while (left := end - uptime()) > 0:
        if more and ready.poll(left * 1000 // TICKS_PER_SECOND):
            more = bool(chunk := posix.read(reading, _CHUNK))
            output = (output + chunk)[-_OUTPUT:]
            continue
        ended, status = posix.waitpid(child, posix.WNOHANG)
        if ended:
            if not status:
                return ""
            text = output.decode("utf-8", "backslashreplace")
            return f"status {posix.waitstatus_to_exitcode(status)}: {text}"
        select.poll().poll(10)  # it has closed its stderr, so its end is near
    return f"the drain has not ended within {DRAIN_WITHIN} s"


def main() -> int:
    """Store the notification on stdin; return the exit status."""
    arguments = sys.argv[1:]
    status = STORED
    try:
        document = read_stdin(arguments)
        path, trouble = keep(SPOOL, FALLBACK, arguments, document)
        if trouble:
            say(f"{trouble}; kept in the fallback spool: {path}")
            status = TRY_LATER
    except OSError as error:
        say(f"this notification is lost: {error}")
        status = TRY_LATER
    except Exception as error:  # noqa: BLE001 - whatever it is, it is said in one line
        say(f"this notification is lost: {error!r}")
        status = TRY_LATER
    try:
        if DRAIN and (lock := take_lock(SPOOL)) >= 0 and not pause_left(SPOOL):
            trouble = run_drain(lock)
            if trouble:
                say(f"cannot drain the spool: {trouble}")
    except OSError as error:
        say(f"cannot drain the spool: {error}")
    return status


if __name__ == "__main__":
    posix._exit(main())  # noqa: SLF001 - nothing to flush; the interpreter's own end costs time
