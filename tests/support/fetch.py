"""Fetch the servers by Maven into a cache outside the checkout.

A server is fetched beside its place and renamed into it, so that a run which is
stopped, or two runs at once, never leave half of one there.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

KAFKA = "4.3.1"
REGISTRY = "3.3.3"
CLOUDEVENTS = "2.2.0"
ASYNCAPI = ("@asyncapi/parser@3.6.3", "@asyncapi/avro-schema-parser@3.0.24")
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


def cloudevents() -> Path:
    """Return a directory with the CloudEvents SDK for Python, fetched when absent.

    Raises:
        Unavailable: it cannot be installed.
    """
    return _cached(f"readers-cloudevents-{CLOUDEVENTS}", _fetch_cloudevents)


def node_modules(*packages: str) -> Path:
    """Return a directory whose `node_modules` has npm packages, fetched when absent.

    Args:
        packages: each with its exact version, such as `avsc@5.7.9`.

    Raises:
        Unavailable: npm is missing or failed.
    """
    name = directory_name("readers-node", packages)
    return _cached(name, lambda place: _fetch_node_modules(place, packages))


def go_modules(*modules: str) -> Path:
    """Return a directory with `go.mod` and `go.sum`, made when absent.

    Args:
        modules: each with its exact version, as `go get` takes them.

    Raises:
        Unavailable: Go is missing or failed.
    """
    name = directory_name("readers-go", modules)
    return _cached(name, lambda place: _fetch_go_modules(place, modules))


def cache() -> Path:
    """Return the directory of everything that is fetched."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fnm-bus"


def directory_name(kind: str, versions: tuple[str, ...]) -> str:
    """Return the name of a directory; other versions have another one."""
    digest = hashlib.sha256("\n".join(versions).encode()).hexdigest()
    return f"{kind}-{digest[:12]}"


def _cached(name: str, fetch: Callable[[Path], None]) -> Path:
    place = cache() / name
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


def _fetch_cloudevents(place: Path) -> None:
    package = f"cloudevents=={CLOUDEVENTS}"
    uv = shutil.which("uv")
    # An environment that uv made has no pip.
    pip = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    interpreter = ["--python", sys.executable] if uv else []
    options = ["install", "--quiet", *interpreter, "--target", place]
    _run("pip", [*pip, *options, package], place.parent)


def _fetch_node_modules(place: Path, packages: tuple[str, ...]) -> None:
    (place / "package.json").write_text('{"private": true}\n')
    options = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts")
    _run("npm", ["npm", "install", *options, *packages], place)


def _fetch_go_modules(place: Path, modules: tuple[str, ...]) -> None:
    _run("Go", ["go", "mod", "init", "readers"], place)
    _run("Go", ["go", "get", *modules], place)


def _maven(where: Path, *arguments: str) -> None:
    program = shutil.which("mvn")
    if program is None:
        raise Unavailable("Maven (mvn) is not installed; it fetches the real servers")
    options = ("--batch-mode", "--quiet", "--strict-checksums")
    _run("Maven", [program, *options, *arguments], where)


def _run(name: str, command: Sequence[str | Path], where: Path) -> None:
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
    except FileNotFoundError as exc:
        raise Unavailable(f"{name} is not installed: {command[0]}") from exc
    except subprocess.CalledProcessError as exc:
        raise Unavailable(f"{name} failed:\n{exc.output[-2000:]}") from exc
    except subprocess.TimeoutExpired as exc:
        raise Unavailable(f"{name} took more than {_TIMEOUT} s") from exc
