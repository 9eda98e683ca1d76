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

FLINK = "2.2.1"
_FLINK_JARS = (
    *(
        f"org.apache.flink:{name}:{FLINK}"
        for name in (
            "flink-clients",
            "flink-connector-files",
            "flink-table-api-java-bridge",
            "flink-table-planner-loader",
            "flink-table-runtime",
        )
    ),
    "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",
    "org.apache.flink:flink-sql-avro-confluent-registry:2.0.0",
)
SPARK = "4.2.0"
CHDB = "4.4.0"
DUCKDB = "1.5.5"
"""DuckDB, and its extension: DuckDB loads one of its own version only."""
FLINK_DIRECTORY = f"flink-{FLINK}"
SPARK_DIRECTORY = f"spark-{SPARK}"
SQL_ENGINES = f"sql-engines-{CHDB}-{DUCKDB}"
_SPARK_JARS = tuple(
    f"org.apache.spark:{name}_2.13:{SPARK}"
    for name in ("spark-avro", "spark-sql", "spark-sql-kafka-0-10")
)

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>fnm-bus</groupId><artifactId>servers</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>{dependencies}</dependencies>
</project>
"""
_DEPENDENCY = """
    <dependency>
      <groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>
    </dependency>"""


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


def flink() -> Path:
    """Return the directory of Flink's jars, fetched when absent.

    Raises:
        Unavailable: Maven is missing or failed.
    """
    return _cached(FLINK_DIRECTORY, _fetch_flink)


def spark() -> Path:
    """Return the directory of Spark's jars, fetched when absent.

    Raises:
        Unavailable: Maven is missing or failed.
    """
    return _cached(SPARK_DIRECTORY, _fetch_spark)


def sql_engines() -> Path:
    """Return a directory with DuckDB and ClickHouse for Python, fetched when absent.

    Raises:
        Unavailable: they cannot be installed.
    """
    return _cached(SQL_ENGINES, _fetch_sql_engines)


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


def maven_dependencies(pom: str) -> Path:
    """Return a directory with the jars of a Maven project, fetched when absent.

    Maven's own repository then has the project's plugins, too.

    Args:
        pom: the project's `pom.xml`.

    Raises:
        Unavailable: Maven is missing or failed.
    """
    name = directory_name("readers-java", (pom,))
    return _cached(name, lambda place: _fetch_maven_dependencies(place, pom))


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
    _fetch_jars(place, f"org.apache.kafka:kafka_2.13:{KAFKA}")


def _fetch_flink(place: Path) -> None:
    _fetch_jars(place, *_FLINK_JARS)


def _fetch_spark(place: Path) -> None:
    _fetch_jars(place, *_SPARK_JARS)


def _fetch_jars(place: Path, *artifacts: str) -> None:
    """Fetch artifacts, as `group:name:version`, with all that they depend on."""
    pom = place.with_name("pom.xml")
    listed = (_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts)
    pom.write_text(_POM.format(dependencies="".join(listed)))
    _maven(
        place.parent,
        f"--file={pom}",
        f"{_PLUGIN}:copy-dependencies",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={place}",
    )


def _fetch_maven_dependencies(place: Path, pom: str) -> None:
    project = place.parent
    (project / "pom.xml").write_text(pom)
    (project / "src" / "main" / "avro").mkdir(parents=True)
    option = f"-DoutputDirectory={place}"
    _maven(project, "compile", "dependency:copy-dependencies", option)


def _fetch_sql_engines(place: Path) -> None:
    packages = (
        f"chdb=={CHDB}",
        f"duckdb=={DUCKDB}",
        f"duckdb-extension-avro=={DUCKDB}",
    )
    _install_packages(place, *packages)


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
    _install_packages(place, f"cloudevents=={CLOUDEVENTS}")


def _install_packages(place: Path, *packages: str) -> None:
    """Install packages for the Python of the tests."""
    uv = shutil.which("uv")
    # An environment that uv made has no pip.
    pip = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    interpreter = ["--python", sys.executable] if uv else []
    options = ["install", "--quiet", *interpreter, "--target", place]
    _run("pip", [*pip, *options, *packages], place.parent)


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
