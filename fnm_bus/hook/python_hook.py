"""The hook: the program that FastNetMon starts for every notification.

It reads stdin to the end, stores one entry and exits. This file is the only definition
of the spool's write side; `hook.c` does the same in C, except the drain. `fnm-bus hook
install` writes this source, with the settings below filled in, as a program that needs
nothing but Python's standard library.

The spool is a directory (`fnm_bus.spool.spool` makes it):

    lock                  held by the process that drains; only the owner may open it
    full                  exists while the spool refuses entries: `status` or `all`
    incoming/tmp          notifications while they are written
    incoming/new/0 .. f   entries, by the last digit of their names
    quarantine, state     private to the owner

An entry is named `<boot id>-<start of the process in ticks>-<pid>-<random>`, so names
sort in the order in which FastNetMon started its calls. An entry holds `fnm-bus 1
<number of arguments>`, a NUL, each argument and a NUL, and the unchanged document.

Status 0 means stored and synced. Status 75 means not in the spool; one line on stderr
and in syslog names the path in the fallback spool, or reports the loss. The hook writes
nothing to stdout.
"""

# `posix` instead of `os`: importing `os` costs two milliseconds in each of a thousand
# calls.
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# -- settings, filled in by `fnm-bus hook install` --
SPOOL = "/var/spool/fnm-bus"
FALLBACK = "/run/fnm-bus/spool"
DRAIN: tuple[str, ...] = ()  # command that drains without a relay; () for none
RESERVE_BYTES = 8 << 20  # kept free on the spool's file system; doubled for status
RESERVE_INODES = 64  # kept free on the spool's file system; doubled for status
FALLBACK_FILES = 2_000
FALLBACK_BYTES = 64 << 20
# -- end of the settings --

MAX_STDIN = 64 << 20
"""Largest size of a stored document in bytes. Longer ones are read and refused."""
CHECK_ARGUMENT = "fnm-bus-hook-check"
"""The only argument of a test call; the relay removes its entry without publishing."""
LOCK_FD = "FNM_BUS_LOCK_FD"
"""Environment variable: descriptor of the held spool lock, for the drain command."""
STORED, TRY_LATER = 0, 75
"""Exit status; 75 is EX_TEMPFAIL of sysexits.h."""

TICKS_PER_SECOND = 100
"""USER_HZ, the unit of times in /proc; 100 on every platform that Python runs on."""
NO_BOOT_ID = "0" * 20
"""Begin of the boot id where /proc is hidden; the Unix time of the boot follows."""

LOG_TIMEOUT = 1
"""Longest wait in seconds for stderr, and for syslog."""
SYSLOG = "/dev/log"
DRAIN_TIMEOUT = 60
"""Longest wait in seconds for the drain that a call has started."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CHUNK = 65_536
_LINE = 3_000
"""Longest line in bytes; below PIPE_BUF, so that a write to a pipe is atomic."""
_OUTPUT = 1_000
"""Bytes at the end of a drain's output that are logged."""


def read_small_file(path: str) -> bytes:
    """Return the first bytes of a small file; raise OSError as `open` does."""
    # O_NONBLOCK: opening a planted pipe, or a leased file (fcntl(2)), would block.
    flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
    fd = posix.open(path, flags)
    try:
        return posix.read(fd, 4096)
    finally:
        posix.close(fd)


def uptime_ticks() -> int:
    """Return the ticks since the boot, including suspended time."""
    import time  # noqa: PLC0415 - built in, but needed where /proc is hidden

    nanoseconds = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return nanoseconds * TICKS_PER_SECOND // 1_000_000_000


def boot_id() -> str:
    """Return 32 hexadecimal digits that identify this boot of the kernel.

    Where /proc is hidden they are `NO_BOOT_ID` and the boot's Unix time in ticks (12
    decimal digits), which changes when the system clock jumps.
    """
    try:
        text = read_small_file("/proc/sys/kernel/random/boot_id").decode()
        return text.strip().replace("-", "")
    except OSError:
        import time  # noqa: PLC0415 - as above

        now = time.time_ns() * TICKS_PER_SECOND // 1_000_000_000
        # Negative on a machine whose clock begins at 1970.
        return f"{NO_BOOT_ID}{max(now - uptime_ticks(), 0):012d}"


def process_start_ticks(pid: "int | str" = "self") -> int:
    """Return the start time of a process in ticks since the boot.

    It is field 22 of /proc/PID/stat (proc(5)): the time at which FastNetMon forked the
    process. Where /proc is hidden, "self" gives the current time.

    Raises:
        OSError: *pid* is not "self", and its /proc/PID/stat cannot be read.
    """
    try:
        stat = read_small_file(f"/proc/{pid}/stat")
    except OSError:
        if pid != "self":
            raise
        return uptime_ticks()
    # The second field is the program's name, which may contain blanks and brackets.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def new_entry_name() -> str:
    """Return a name for the entry of this process."""
    process = f"{process_start_ticks():012d}-{posix.getpid():07d}"
    return f"{boot_id()}-{process}-{posix.urandom(4).hex()}"


def encode_entry(arguments: "Sequence[str]", document: bytes) -> bytes:
    """Return the bytes of an entry, with the arguments' original bytes."""
    encoding = sys.getfilesystemencoding()
    head = [b"fnm-bus 1 %d" % len(arguments)]
    head += [argument.encode(encoding, "surrogateescape") for argument in arguments]
    return b"\0".join([*head, document])


def read_stdin(arguments: "Sequence[str]") -> bytes:
    """Read stdin to the end and return the document.

    For `unban` in text mode the document is empty and stdin is not read: FastNetMon
    Community leaves its own stdin connected, which may be a terminal.

    Raises:
        OSError: stdin cannot be read, or has more than `MAX_STDIN` bytes.
    """
    if len(arguments) == 4 and arguments[3] == "unban":  # noqa: PLR2004 - IP direction pps action
        return b""
    # A parent with an event loop may have set O_NONBLOCK.
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
        raise OSError(f"stdin holds {size} bytes; the limit is {MAX_STDIN}")
    return b"".join(chunks)


def open_dir_nofollow(root: str, *names: str) -> int:
    """Return a descriptor of a directory below *root*, without following links.

    Root may run the hook, and the spool's owner could plant a link to any directory.

    Raises:
        OSError: one of the directories is missing, or is not a directory.
    """
    flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
    fd = posix.open(root, flags)
    for name in names:
        parent = fd
        try:
            fd = posix.open(name, flags | posix.O_NOFOLLOW, dir_fd=parent)
        finally:
            posix.close(parent)
    return fd


def write_new_file(directory: int, name: str, data: bytes) -> None:
    """Write and sync a new file with mode 0640; remove it on an error.

    Raises:
        OSError: the file exists, or cannot be written; an existing file is not changed.
    """
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW
    fd = posix.open(name, flags | posix.O_CLOEXEC, 0o640, dir_fd=directory)
    try:
        try:
            posix.fchmod(fd, 0o640)  # for the relay's group, independently of the umask
            rest = memoryview(data)
            while rest:
                rest = rest[posix.write(fd, rest) :]
            posix.fsync(fd)
        finally:
            posix.close(fd)
    except OSError:
        unlink_quietly(name, directory)
        raise


def unlink_quietly(path: str, directory: "int | None" = None) -> bool:
    """Remove a file, ignoring errors; return whether it was removed."""
    try:
        posix.unlink(path, dir_fd=directory)
    except OSError:  # the relay removes files in tmp later
        return False
    return True


def store_entry(root: str, name: str, data: bytes) -> str:
    """Store and sync *data* as an entry of the spool at *root*; return its path.

    Raises:
        OSError: the entry is not stored, or may not survive a power loss; the error
            names the path.
    """
    path = f"{root}/incoming/new/{name[-1]}"
    try:
        # Opened first: without a free descriptor no entry becomes visible.
        bucket = open_dir_nofollow(root, "incoming", "new", name[-1])
        try:
            path = f"{root}/incoming/tmp"
            temporary = open_dir_nofollow(root, "incoming", "tmp")
            try:
                path = f"{root}/incoming/tmp/{name}"
                write_new_file(temporary, name, data)
                path = f"{root}/incoming/new/{name[-1]}/{name}"
                try:
                    posix.rename(name, name, src_dir_fd=temporary, dst_dir_fd=bucket)
                except OSError:
                    unlink_quietly(name, temporary)
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
    """Raise OSError if the spool's limits refuse *document*."""
    status = b"attack_status" in document
    try:
        full = read_small_file(f"{root}/full").strip()
    except (FileNotFoundError, PermissionError):  # fstatvfs below reports the second
        full = b""
    if full == b"all" or (full and status):
        # Not the word in the file: the spool's owner could write any.
        raise OSError(f"{root}: at its limit: {'all' if full == b'all' else 'status'}")
    try:
        temporary = open_dir_nofollow(root, "incoming", "tmp")
        try:
            free = posix.fstatvfs(temporary)
        finally:
            posix.close(temporary)
    except OSError as error:
        path = f"{root}/incoming/tmp"
        raise OSError(error.errno, error.strerror, path) from error
    factor = 2 if status else 1
    if free.f_bavail * free.f_frsize < RESERVE_BYTES * factor:
        raise OSError(f"{root}: only the reserve of {RESERVE_BYTES} bytes is free")
    # File systems with dynamic inodes report 0.
    if free.f_files and free.f_favail < RESERVE_INODES * factor:
        raise OSError(f"{root}: only the reserve of {RESERVE_INODES} inodes is free")


def check_fallback_limits(root: str) -> None:
    """Raise OSError if the fallback spool has reached its limits."""
    files = size = 0
    for digit in "0123456789abcdef":
        bucket = open_dir_nofollow(root, "incoming", "new", digit)
        try:
            with posix.scandir(bucket) as entries:
                for entry in entries:
                    try:
                        size += entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:  # the relay has published it
                        continue
                    files += 1
                    if files >= FALLBACK_FILES or size >= FALLBACK_BYTES:
                        usage = f"{files} files or more, {size} bytes or more"
                        raise OSError(f"{root}: full, {usage}")
        finally:
            posix.close(bucket)


def store_or_fallback(
    spool: str, fallback: str, arguments: "Sequence[str]", document: bytes
) -> tuple[str, str]:
    """Store a notification in the spool, or in the fallback spool on an error.

    Returns:
        The entry's path, and the error of the spool or "". The entry has the same name
        in both spools, so that a copy in each has one `event_id`.

    Raises:
        OSError: both spools failed; the text has both errors.
    """
    name, data = new_entry_name(), encode_entry(arguments, document)
    try:
        check_room(spool, document)
        return store_entry(spool, name, data), ""
    except OSError as error:
        problem = str(error)
    try:
        check_fallback_limits(fallback)
        return store_entry(fallback, name, data), problem
    except OSError as error:
        raise OSError(f"{problem}; fallback: {error}") from error


def log_error(line: str) -> None:
    """Write one line to stderr and to syslog, each within `LOG_TIMEOUT`.

    The reader of either may hang. syslog(3) would wait for its reader without a limit,
    and FastNetMon waits for this process.
    """
    line = "fnm-bus hook: " + " ".join(line.split())
    # A drain's output may contain terminal control sequences.
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
    data = text.encode()[:_LINE]
    if problem := write_stderr(data):
        data += f"; stderr failed: {problem}".encode("utf-8", "backslashreplace")
    send_to_syslog(data)


def write_stderr(line: bytes) -> str:
    """Write a line to stderr; return the error, or ""."""
    try:
        import select  # noqa: PLC0415 - needed for errors only

        poll = select.poll()
        poll.register(2, select.POLLOUT)
        if not poll.poll(1000 * LOG_TIMEOUT):
            return "its reader hangs"
        posix.write(2, line + b"\n")
    except (ImportError, OSError) as error:  # stderr may be closed
        return str(error)
    return ""


def send_to_syslog(line: bytes) -> bool:
    """Send a line to syslog; return whether syslog received it."""
    try:
        import _socket  # noqa: PLC0415 - needed for errors only

        priority = 27  # LOG_DAEMON, LOG_ERR
        data = b"<%d>fnm-bus[%d]: %s" % (priority, posix.getpid(), line)
        for kind, end in ((_socket.SOCK_DGRAM, b""), (_socket.SOCK_STREAM, b"\0")):
            connection = _socket.socket(_socket.AF_UNIX, kind)
            try:
                connection.settimeout(LOG_TIMEOUT)
                connection.connect(SYSLOG)
                connection.send(data + end)
            except OSError:  # another socket type, not running, or hanging
                continue
            finally:
                connection.close()
            return True
    except (ImportError, OSError):  # the module or a free descriptor is missing
        return False
    return False


def try_lock(root: str) -> int:
    """Take the spool's lock; return its descriptor, or -1.

    -1 means that another process drains, or that this process may not drain.
    """
    # O_NONBLOCK: a lease of the owner (fcntl(2)) would block this call.
    flags = posix.O_RDWR | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
    try:
        fd = posix.open(f"{root}/lock", flags)
    except OSError:  # this user is not the owner, or the spool is missing
        return -1
    import fcntl  # noqa: PLC0415 - needed by the owner and root only

    # The drain gets the rights of the lock file's owner, which must be the spool's.
    owner = posix.stat(root).st_uid
    if posix.fstat(fd).st_uid == owner and posix.geteuid() in (0, owner):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a relay or another call's drain holds it
            posix.close(fd)
            return -1
        if posix.fstat(fd).st_nlink:
            return fd
    posix.close(fd)
    return -1


def backoff_seconds_left(root: str) -> float:
    """Return the seconds until the next drain may be tried after a failure."""
    try:
        boot, until, _failures = read_small_file(f"{root}/state/backoff").split()
        if boot.decode() != boot_id():
            return 0.0
        return max(0.0, (int(until) - uptime_ticks()) / TICKS_PER_SECOND)
    except (OSError, ValueError):  # missing or damaged: costs one extra attempt
        return 0.0


def become_owner(uid: int, gid: int) -> None:
    """Change from root to the spool's owner; do nothing for other users."""
    if posix.geteuid() != 0 or uid == 0:
        return
    import pwd  # noqa: PLC0415 - needed by root before a drain only

    try:
        posix.initgroups(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # the owner has no name, as in a container
        posix.setgroups([gid])
    posix.setgid(gid)
    posix.setuid(uid)


def exec_drain(lock: int) -> None:
    """Replace this process by the drain command, with the rights of the spool's owner.

    The command inherits the lock, so at most one drain runs. It inherits no other
    descriptor, environment variable or terminal of FastNetMon, except stderr, which is
    a pipe to the hook.

    Raises:
        OSError: the command cannot be started.
    """
    while lock <= 2:  # noqa: PLR2004 - 0 to 2 are stdin to stderr
        lock = posix.dup(lock)
    owner = posix.fstat(lock)
    posix.setsid()
    posix.umask(0o077)
    become_owner(owner.st_uid, owner.st_gid)
    posix.chdir("/")
    null = posix.open("/dev/null", posix.O_RDWR)
    for fd in (0, 1):
        posix.dup2(null, fd)
    for fd in open_descriptors():
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


def open_descriptors() -> "list[int]":
    """Return this process's open descriptors; 0 to 1023 where /proc is hidden."""
    try:
        return [int(name) for name in posix.listdir("/proc/self/fd")]
    except OSError:
        return list(range(1024))  # the usual soft limit


def run_drain(lock: int) -> str:
    """Drain in a child process; return its error, or "".

    The result does not change the exit status of this call. The wait is limited because
    the spool's owner could stop the child.

    Raises:
        OSError: the child cannot be started.
    """
    import select  # noqa: PLC0415 - needed for a drain only

    reading, writing = posix.pipe()
    child = posix.fork()
    if not child:
        try:
            lock = posix.dup(lock)  # the descriptor may be 2 if stderr was closed
            posix.dup2(writing, 2)
            exec_drain(lock)
        except OSError as error:
            posix.write(2, str(error).encode("utf-8", "backslashreplace"))
        posix._exit(TRY_LATER)  # noqa: SLF001 - main is for the parent
    posix.close(lock)
    posix.close(writing)
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    output, is_open = b"", True
    deadline = uptime_ticks() + DRAIN_TIMEOUT * TICKS_PER_SECOND
    while (ticks_left := deadline - uptime_ticks()) > 0:
        if is_open and poll.poll(ticks_left * 1000 // TICKS_PER_SECOND):
            is_open = bool(chunk := posix.read(reading, _CHUNK))
            output = (output + chunk)[-_OUTPUT:]
            continue
        pid, status = posix.waitpid(child, posix.WNOHANG)
        if pid:
            if not status:
                return ""
            text = output.decode("utf-8", "backslashreplace")
            return f"status {posix.waitstatus_to_exitcode(status)}: {text}"
        select.poll().poll(10)  # stderr is closed, so the child exits soon
    return f"the drain has not ended within {DRAIN_TIMEOUT} s"


def main() -> int:
    """Store the notification on stdin; return the exit status."""
    arguments = sys.argv[1:]
    status = STORED
    try:
        document = read_stdin(arguments)
        path, problem = store_or_fallback(SPOOL, FALLBACK, arguments, document)
        if problem:
            log_error(f"{problem}; kept in the fallback spool: {path}")
            status = TRY_LATER
    except OSError as error:
        log_error(f"this notification is lost: {error}")
        status = TRY_LATER
    except Exception as error:  # noqa: BLE001 - any error is logged as one line
        log_error(f"this notification is lost: {error!r}")
        status = TRY_LATER
    try:
        if DRAIN and (lock := try_lock(SPOOL)) >= 0 and not backoff_seconds_left(SPOOL):
            problem = run_drain(lock)
            if problem:
                log_error(f"cannot drain the spool: {problem}")
    except OSError as error:
        log_error(f"cannot drain the spool: {error}")
    return status


if __name__ == "__main__":
    posix._exit(main())  # noqa: SLF001 - the interpreter's shutdown costs time
