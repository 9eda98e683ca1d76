"""Java: Apicurio's deserializer, and classes generated from the schema files."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import fetch, recipes
from support.reader_topics import ReaderTopics, Sent

SCHEMAS = Path(__file__).parents[2] / "schemas" / "avro"


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which Maven built both programs."""
    if shutil.which("mvn") is None or shutil.which("javac") is None:
        pytest.skip("Maven (mvn) or a Java development kit (javac) is not installed")
    jars = fetch.maven_dependencies(recipes.programs()["pom.xml"])
    project = tmp_path_factory.mktemp("java")
    recipes.write("pom.xml", project)
    for name in ("Generic.java", "Generated.java"):
        recipes.write(name, project / "src" / "main" / "java")
    avro = project / "src" / "main" / "avro"
    avro.mkdir(parents=True)
    for file in SCHEMAS.glob("*.avsc"):
        shutil.copy(file, avro)
    (project / "target").mkdir()
    (project / "target" / "dependency").symlink_to(jars)
    command = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", "compile"]
    subprocess.run(command, cwd=project, check=True, timeout=900)
    return project


def read(
    topics: ReaderTopics, project: Path, name: str, sent: Sequence[Sent]
) -> list[dict[str, object]]:
    """Return the records of a program."""
    brokers, registry, *names = topics.arguments(sent)
    own_api = registry.replace("/apis/ccompat/v7", "/apis/registry/v3")
    path = "target/classes:target/dependency/*"
    command = ["java", "-cp", path, name, brokers, own_api, *names]
    return recipes.lines_of(command, len(sent), cwd=project)


def latin1(value: object) -> bytes:
    """Return bytes that Avro printed as text, one character for each."""
    return str(value).encode("latin-1")


def test_generic_records_are_read_by_their_writers_schema(
    reader_topics: ReaderTopics, classes: Path
) -> None:
    sent = reader_topics.framed()
    records = read(reader_topics, classes, "Generic", sent)
    recipes.assert_equal(records, sent, latin1)


def test_generated_classes_read_both_framings(
    reader_topics: ReaderTopics, classes: Path
) -> None:
    records = read(reader_topics, classes, "Generated", reader_topics.sent)
    recipes.assert_equal(records, reader_topics.sent, latin1, resolved=True)
