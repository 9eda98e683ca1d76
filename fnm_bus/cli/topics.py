"""`fnm-bus topics`: create topics, compare them, and list access rights."""

from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, dump, end, out, print_note, settings

app = typer.Typer(help="Create topics, and compare them with the configuration.")

DIFFERENT = 1


@app.command()
def create(*, file: ConfigFile = None) -> None:
    """Create the missing topics; leave existing topics unchanged.

    Partitions and replication come from [topics].

    Example:
        fnm-bus topics create
    """
    from fnm_bus import build
    from fnm_bus.kafka.topic_admin import TopicAdmin
    from fnm_bus.kafka.topics import topic_differences

    configured = settings(file)
    plan = build.topic_plan(configured)
    admin = TopicAdmin(build.kafka_settings(configured))
    created = set(admin.create(plan))
    existing = admin.find([topic for topic in plan if topic.name not in created])
    is_different = False
    for topic in plan:
        if topic.name in created:
            print_note(f"created  {topic.name}  partitions={topic.partitions}")
            continue
        texts = list(topic_differences(topic, existing.get(topic.name)))
        is_different = is_different or bool(texts)
        print_note(f"exists   {topic.name}  {'; '.join(texts) or 'as configured'}")
    end(DIFFERENT if is_different else 0)


@app.command("list")
def list_(*, file: ConfigFile = None, json: Json = False) -> None:
    """List the topics, with differences from the configuration.

    Example:
        fnm-bus topics list
    """
    from fnm_bus import build
    from fnm_bus.kafka.topic_admin import TopicAdmin
    from fnm_bus.kafka.topics import topic_differences

    configured = settings(file)
    plan = build.topic_plan(configured)
    existing = TopicAdmin(build.kafka_settings(configured)).find(plan)
    rows = [(topic, existing.get(topic.name)) for topic in plan]
    if json:
        dump(
            [
                {
                    "topic": topic.name,
                    "partitions": actual.partitions if actual else None,
                    "replication": actual.replication if actual else None,
                    "cleanup": (actual.settings or {}).get("cleanup.policy")
                    if actual
                    else None,
                    "differences": list(topic_differences(topic, actual)),
                }
                for topic, actual in rows
            ]
        )
        return
    for topic, actual in rows:
        text = "; ".join(topic_differences(topic, actual)) or "as configured"
        size = f"{actual.partitions:>4} x {actual.replication}" if actual else ""
        out(f"{topic.name:28}  {size or '   -':8}  {text}")


@app.command()
def acls(
    principal: Annotated[
        list[str],
        typer.Option(
            metavar="PROGRAM=User:NAME",
            help="A program and the principal that it connects as. Repeatable.",
        ),
    ],
    *,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Grant these rights now, as [kafka]'s user."),
    ] = False,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """Print the kafka-acls commands that grant each program exactly its rights.

    Programs: relay, mitigator, exabgp, nftables, notifier, jsonlines, operator, viewer,
    admin. Topics, groups and the transactional id come from the configuration. Run the
    commands, or this command with --apply, as a user with Alter on the cluster.

    Examples:
        fnm-bus topics acls --principal relay=User:fnm-bus-relay

        fnm-bus topics acls --apply --config admin.toml --principal relay=User:relay
        --principal mitigator=User:mitigator
    """
    from fnm_bus import build
    from fnm_bus.kafka import access
    from fnm_bus.kafka.topic_admin import TopicAdmin

    configured = settings(file)
    principals = access.principal_names(principal)
    resources = access.resource_names(
        build.topic_names(configured), configured.consumers
    )
    kafka = build.kafka_settings(configured)
    rights = {program: access.rights_of(program, resources) for program in principals}
    if apply:
        admin = TopicAdmin(kafka)
        for program, name in principals.items():
            admin.grant(name, rights[program])
    if json:
        dump(
            [
                {"program": program, "principal": name, **right._asdict()}
                for program, name in principals.items()
                for right in rights[program]
            ]
        )
    elif apply:
        for program, name in principals.items():
            print_note(f"{name}: {len(rights[program])} rights for {program}")
    else:
        servers = kafka.get("bootstrap.servers", "localhost:9092")
        for line in access.acl_commands(principals, resources, servers):
            out(line)
