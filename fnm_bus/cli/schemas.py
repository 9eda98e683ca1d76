"""`fnm-bus schemas`: the registry, and the file with the schema ids."""

import json as jsonlib
from typing import Annotated, Literal

import typer

from fnm_bus.cli.options import (
    ConfigFile,
    Json,
    dump,
    end,
    out,
    out_raw,
    print_note,
    settings,
)

app = typer.Typer(help="Register schemas, and list their ids.")

REFUSED = 1


@app.command()
def register(*, file: ConfigFile = None) -> None:
    """Register all schemas and write the ids to [registry] schema_ids_file.

    Each id is read back and compared before it is written.

    Example:
        fnm-bus schemas register
    """
    from fnm_bus import build

    configured = settings(file)
    path = configured.registry.schema_ids_file
    ids = build.build_registry(configured).register(
        build.topic_names(configured).of_framed()
    )
    ids.write(path)
    for subject, number in ids.ids.items():
        print_note(f"{number:>8}  {subject}")
    print_note(f"fnm-bus: schema ids written to {path}")


@app.command()
def check(*, file: ConfigFile = None, json: Json = False) -> None:
    """Check whether the registry would accept the schemas; change nothing. For CI.

    Example:
        fnm-bus schemas check
    """
    from fnm_bus import build

    configured = settings(file)
    subjects = build.topic_names(configured).of_framed()
    problems = build.build_registry(configured).check(subjects)
    if json:
        dump(problems)
    else:
        for subject, texts in problems.items():
            out(f"{subject}: {'; '.join(texts) or 'would be accepted'}")
    end(REFUSED if any(problems.values()) else 0)


@app.command("list")
def list_(*, file: ConfigFile = None, json: Json = False) -> None:
    """List the schemas with their fingerprints and ids.

    Example:
        fnm-bus schemas list
    """
    from fnm_bus import build
    from fnm_bus.avro import schema, schema_ids

    configured = settings(file)
    path = configured.registry.schema_ids_file
    has_ids = configured.registry.url is not None and path.exists()
    ids = schema_ids.read(path).ids if has_ids else {}
    subjects = {
        name: schema_ids.registry_subject(topic)
        for topic, name in build.topic_names(configured).of_framed().items()
    }
    rows = [
        {
            "schema": name,
            "fingerprint": schema.fingerprint(name).hex(),
            "subject": subjects.get(name),
            "id": ids.get(subjects.get(name, "")),
        }
        for name in schema.RECORDS
    ]
    if json:
        dump(rows)
        return
    for row in rows:
        out(
            f"{row['schema']:28}  {row['fingerprint']}  {row['id'] or '-':>8}  "
            f"{row['subject'] or 'always a single object'}"
        )


@app.command()
def ddl(
    engine: Annotated[
        Literal["flink", "clickhouse", "duckdb", "spark"],
        typer.Argument(help="The engine that executes the statements."),
    ],
    topic: Annotated[
        str | None, typer.Argument(help="Name of a topic. Else all topics.")
    ] = None,
    *,
    file: ConfigFile = None,
) -> None:
    """Print SQL that reads the topics.

    Examples:
        fnm-bus schemas ddl flink > tables.sql

        fnm-bus schemas ddl clickhouse fastnetmon.host.v1
    """
    from fnm_bus import build
    from fnm_bus.kafka.ddl.statements import statements
    from fnm_bus.kafka.ddl.topic_table import topic_tables

    configured = settings(file)
    source = build.table_source(configured)
    tables = topic_tables(
        build.topic_names(configured), registry=source.registry_url is not None
    )
    chosen = [table for table in tables if topic in (None, table.topic)]
    if not chosen:
        names = ", ".join(table.topic for table in tables)
        raise typer.BadParameter(f"{topic}: wanted one of {names}")
    out_raw(statements(engine, chosen, source).encode())


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Full name, fastnetmon.HostEvent.")],
) -> None:
    """Print a schema as it is registered, with all nested types.

    Example:
        fnm-bus schemas show fastnetmon.HostEvent > HostEvent.avsc
    """
    from fnm_bus.avro import schema

    full_name = name if "." in name else f"{schema.NAMESPACE}.{name}"
    if full_name not in schema.RECORDS:
        raise typer.BadParameter(f"{name}: wanted one of {', '.join(schema.RECORDS)}")
    for line in jsonlib.dumps(jsonlib.loads(schema.text(full_name)), indent=2).split(
        "\n"
    ):
        out(line)
