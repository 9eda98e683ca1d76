from pathlib import Path

import pytest
from typer.testing import CliRunner

from fnm_bus.cli.app import app


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "fnm-bus.toml"
    file.write_text(
        'sensor = "fra1"\n'
        "[registry]\n"
        'url = "http://user:hidden@registry:8081"\n'
        f'schema_ids_file = "{tmp_path}/ids.json"\n'
        '[topics]\nhost = "acme.host"\n'
    )
    return file


def test_ddl_prints_the_tables_of_the_configured_topics(config: Path) -> None:
    shown = CliRunner().invoke(
        app, ["schemas", "ddl", "flink", "--config", str(config)]
    )

    assert shown.exit_code == 0, shown.output
    assert "'topic' = 'acme.host'" in shown.stdout
    assert "'topic' = 'fastnetmon.mitigation.v1'" in shown.stdout
    assert "'value.avro-confluent.url' = 'http://registry:8081'" in shown.stdout


def test_ddl_prints_one_topic_on_request(config: Path) -> None:
    shown = CliRunner().invoke(
        app, ["schemas", "ddl", "clickhouse", "acme.host", "--config", str(config)]
    )

    assert shown.exit_code == 0, shown.output
    assert "hidden" not in shown.stdout
    assert "CREATE TABLE host_queue" in shown.stdout
    assert "mitigation" not in shown.stdout


def test_ddl_refuses_an_unknown_topic(config: Path) -> None:
    shown = CliRunner().invoke(
        app, ["schemas", "ddl", "duckdb", "other", "--config", str(config)]
    )

    assert shown.exit_code == 2
    assert "acme.host" in shown.output


def test_ddl_for_spark_needs_pinned_schema_ids(config: Path) -> None:
    shown = CliRunner().invoke(
        app, ["schemas", "ddl", "spark", "acme.host", "--config", str(config)]
    )

    assert shown.exit_code != 0
    assert "no schema id is pinned" in str(shown.exception)
