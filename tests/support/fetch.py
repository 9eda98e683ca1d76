"""Fetch the servers by Maven into a cache outside the checkout.

A server is fetched beside its place and renamed into it, so that a run which is
stopped, or two runs at once, never leave half of one there.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

KAFKA = "4.3.1"
REGISTRY = "3.3.3"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
_TIMEOUT = 900

_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>fnm-bus</groupId><artifactId>kafka</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
    <version>{KAFKA}</version>
  </dependency></dependencies>
</project>
"""


class Unavailable(Exception):
    """A server is not available on this machine; the text has the reason."""


def kafka() -> Path:
    """Return the directory of Kafka's jars, fetched when absent.

    Raises:
        Unavailable: Maven is missing or failed.
    """
    return _cached(f"kafka-{KAFKA}", _fetch_kafka)


def registry() -> Path:
    """Return the directory with the registry's `quarkus-run.jar`, fetched when absent.

    Raises:
        Unavailable: Maven is missing or failed.
    """
    return _cached(f"apicurio-registry-{REGISTRY}", _fetch_registry)


def _cached(name: str, fetch: Callable[[Path], None]) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = Path(base) / "fnm-bus" / name
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetching-") as scratch:
        half = Path(scratch) / name
        half.mkdir()
        fetch(half)
        try:
            half.rename(place)
        except OSError:
            # Another run was quicker. Anything else than its whole result is an error.
            if not place.is_dir():
                raise
    return place


def _fetch_kafka(place: Path) -> None:
    pom = place.with_name("pom.xml")
    pom.write_text(_POM)
    _maven(
        place.parent,
        f"--file={pom}",
        f"{_PLUGIN}:copy-dependencies",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={place}",
    )


def _fetch_registry(place: Path) -> None:
    _maven(
        place.parent,
        f"{_PLUGIN}:copy",
        f"-Dartifact=io.apicurio:apicurio-registry-app:{REGISTRY}:tar.gz:all",
        f"-DoutputDirectory={place.parent}",
        "-Dmdep.useBaseVersion=true",
    )
    (archive,) = place.parent.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    archive.unlink()


def _maven(where: Path, *arguments: str) -> None:
    program = shutil.which("mvn")
    if program is None:
        raise Unavailable("Maven (mvn) is not installed; it fetches the real servers")
    command = [program, "--batch-mode", "--quiet", "--strict-checksums", *arguments]
    try:
        subprocess.run(
            command,
            cwd=where,
            check=True,
            text=True,
            timeout=_TIMEOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.CalledProcessError as exc:
        raise Unavailable(f"Maven failed:\n{exc.output[-2000:]}") from exc
    except subprocess.TimeoutExpired as exc:
        raise Unavailable(f"Maven took more than {_TIMEOUT} s") from exc
