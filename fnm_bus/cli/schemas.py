"""`fnm-bus schemas`: the registry, and the ids that are pinned."""

import json as jsonlib
from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, dump, end, out, say, settings

app = typer.Typer(help="Register schemas, and pin their ids.")

REFUSED = 1


@app.command()
def register(*, file: ConfigFile = None) -> None:
    """Register all schemas and write the ids to [registry] schema_ids_file.

    Each id is read back and compared before it is pinned.

    Example:
        fnm-bus schemas register
    """
    from fnm_bus import build

    known = settings(file)
    pins = build.build_registry(known).register(build.topic_names(known).of_framed())
    pins.write(known.registry.schema_ids_file)
    for subject, number in pins.ids.items():
        say(f"{number:>8}  {subject}")
    say(f"fnm-bus: pinned in {known.registry.schema_ids_file}")


@app.command()
def check(*, file: ConfigFile = None, json: Json = False) -> None:
    """Say whether registering would be accepted; change nothing. For CI.

    Example:
        fnm-bus schemas check
    """
    from fnm_bus import build

    known = settings(file)
    found = build.build_registry(known).check(build.topic_names(known).of_framed())
    if json:
        dump(found)
    else:
        for subject, problems in found.items():
            out(f"{subject}: {'; '.join(problems) or 'would be accepted'}")
    end(REFUSED if any(found.values()) else 0)


@app.command("list")
def list_(*, file: ConfigFile = None, json: Json = False) -> None:
    """List the schemas with their fingerprint and the id that is pinned.

    Example:
        fnm-bus schemas list
    """
    from fnm_bus import build
    from fnm_bus.avro import schema
    from fnm_bus.avro import schema_ids as pins

    known = settings(file)
    there = known.registry.url is not None and known.registry.schema_ids_file.exists()
    ids = pins.read(known.registry.schema_ids_file).ids if there else {}
    topics = {
        name: topic for topic, name in build.topic_names(known).of_framed().items()
    }
    rows = [
        {
            "schema": name,
            "fingerprint": schema.fingerprint(name).hex(),
            "subject": pins.registry_subject(topics[name]) if name in topics else None,
            "id": ids.get(pins.registry_subject(topics[name]))
            if name in topics
            else None,
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
def show(
    name: Annotated[str, typer.Argument(help="Full name, fastnetmon.HostEvent.")],
) -> None:
    """Print a schema in one piece, as it is registered.

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
