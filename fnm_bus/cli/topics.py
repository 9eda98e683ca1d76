"""`fnm-bus topics`: create, compare, and who may use them."""

from typing import Annotated

import typer

from fnm_bus.cli.options import ConfigFile, Json, dump, end, out, say, settings

app = typer.Typer(help="Create topics, and compare them with what is wanted.")

DIFFERENT = 1


@app.command()
def create(*, file: ConfigFile = None) -> None:
    """Create the topics that are missing; change none that exists.

    Partitions and replication are those of [topics].

    Example:
        fnm-bus topics create
    """
    from fnm_bus import build
    from fnm_bus.kafka.topic_admin import TopicAdmin
    from fnm_bus.kafka.topics import planned_topics, topic_differences

    known = settings(file)
    plan = planned_topics(
        build.topic_names(known), known.topics.partitions, known.topics.replication
    )
    admin = TopicAdmin(build.kafka_settings(known))
    made = set(admin.create(plan))
    found = admin.find([it for it in plan if it.name not in made])
    different = False
    for topic in plan:
        if topic.name in made:
            say(f"created  {topic.name}  partitions={topic.partitions}")
            continue
        said = list(topic_differences(topic, found.get(topic.name)))
        different = different or bool(said)
        say(f"exists   {topic.name}  {'; '.join(said) or 'as wanted'}")
    end(DIFFERENT if different else 0)


@app.command("list")
def list_(*, file: ConfigFile = None, json: Json = False) -> None:
    """List the topics, with what is not as wanted.

    Example:
        fnm-bus topics list
    """
    from fnm_bus import build
    from fnm_bus.kafka.topic_admin import TopicAdmin
    from fnm_bus.kafka.topics import planned_topics, topic_differences

    known = settings(file)
    plan = planned_topics(
        build.topic_names(known), known.topics.partitions, known.topics.replication
    )
    found = TopicAdmin(build.kafka_settings(known)).find(plan)
    rows = [(topic, found.get(topic.name)) for topic in plan]
    if json:
        dump(
            [
                {
                    "topic": topic.name,
                    "partitions": there.partitions if there else None,
                    "replication": there.replication if there else None,
                    "cleanup": (there.settings or {}).get("cleanup.policy")
                    if there
                    else None,
                    "differences": list(topic_differences(topic, there)),
                }
                for topic, there in rows
            ]
        )
        return
    for topic, there in rows:
        said = "; ".join(topic_differences(topic, there)) or "as wanted"
        size = f"{there.partitions:>4} x {there.replication}" if there else "   -    "
        out(f"{topic.name:28}  {size}  {said}")


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
        typer.Option("--apply", help="Give these rights now, as [kafka]'s user."),
    ] = False,
    file: ConfigFile = None,
    json: Json = False,
) -> None:
    """Print the kafka-acls commands that give each program exactly its rights.

    Programs: relay, mitigator, exabgp, nftables, webhook, jsonlines, operator, viewer,
    admin. Topics, groups and the transactional id are those of the configuration. Run
    the commands, or this command with --apply, as a user with Alter on the cluster.

    Examples:
        fnm-bus topics acls --principal relay=User:fnm-bus-relay

        fnm-bus topics acls --apply --config admin.toml --principal relay=User:relay
        --principal mitigator=User:mitigator
    """
    from fnm_bus import build
    from fnm_bus.kafka import access
    from fnm_bus.kafka.topic_admin import TopicAdmin

    known = settings(file)
    principals = access.principal_names(principal)
    resources = access.resource_names(build.topic_names(known), known.consumers)
    kafka = build.kafka_settings(known)
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
            say(f"{name}: {len(rights[program])} rights for {program}")
    else:
        servers = kafka.get("bootstrap.servers", "localhost:9092")
        for line in access.acl_commands(principals, resources, servers):
            out(line)
