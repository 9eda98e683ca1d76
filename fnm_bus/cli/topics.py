"""`fnm-bus topics`: create and compare."""

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
    from fnm_bus import wiring
    from fnm_bus.topics import Admin, differences, wanted

    known = settings(file)
    plan = wanted(
        wiring.topics(known), known.topics.partitions, known.topics.replication
    )
    admin = Admin(wiring.kafka(known))
    made = set(admin.create(plan))
    found = admin.find([it for it in plan if it.name not in made])
    different = False
    for topic in plan:
        if topic.name in made:
            say(f"created  {topic.name}  partitions={topic.partitions}")
            continue
        said = list(differences(topic, found.get(topic.name)))
        different = different or bool(said)
        say(f"exists   {topic.name}  {'; '.join(said) or 'as wanted'}")
    end(DIFFERENT if different else 0)


@app.command("list")
def list_(*, file: ConfigFile = None, json: Json = False) -> None:
    """List the topics, with what is not as wanted.

    Example:
        fnm-bus topics list
    """
    from fnm_bus import wiring
    from fnm_bus.topics import Admin, differences, wanted

    known = settings(file)
    plan = wanted(
        wiring.topics(known), known.topics.partitions, known.topics.replication
    )
    found = Admin(wiring.kafka(known)).find(plan)
    rows = [(topic, found.get(topic.name)) for topic in plan]
    if json:
        dump(
            [
                {
                    "topic": topic.name,
                    "partitions": there.partitions if there else None,
                    "replication": there.replication if there else None,
                    "cleanup": topic.settings["cleanup.policy"] if there else None,
                    "differences": list(differences(topic, there)),
                }
                for topic, there in rows
            ]
        )
        return
    for topic, there in rows:
        said = "; ".join(differences(topic, there)) or "as wanted"
        size = f"{there.partitions:>4} x {there.replication}" if there else "   -    "
        out(f"{topic.name:28}  {size}  {said}")
