"""Write a file so that it survives a power loss, and is never incomplete."""

import os
from pathlib import Path


def replace(path: Path, data: bytes, mode: int = 0o640) -> None:
    """Replace the content of *path*; readers see the old bytes or the new ones.

    Raises:
        OSError: nothing was changed, or the change may not survive a power loss.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def make_parents(path: Path) -> None:
    """Create the missing directories above *path*, which every user may pass.

    Raises:
        OSError: a directory cannot be created.
    """
    before = os.umask(0o022)  # root's may be 077 on a hardened machine
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    finally:
        os.umask(before)


def sync(directory: Path) -> None:
    """Make names that were added to *directory* survive a power loss."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
