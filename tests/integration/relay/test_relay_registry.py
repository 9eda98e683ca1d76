"""The relay with a registry: it needs only the stored schema ids."""

from support.relay_processes import RelayProcesses, ban, silent

from fnm_bus.avro import schema
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.schema_ids import SchemaIds

NAMES = {
    "host": "fastnetmon.HostEvent",
    "hostgroup": "fastnetmon.HostgroupEvent",
    "status": "fastnetmon.StatusEvent",
}


def pins(relays: RelayProcesses, *, swapped: bool = False) -> SchemaIds:
    kinds = list(NAMES)
    texts = [schema.text(NAMES[kind]) for kind in kinds]
    if swapped:
        texts.reverse()
    return SchemaIds(
        "http://registry",
        {f"{relays.topic(kind)}-value": 70 + n for n, kind in enumerate(kinds)},
        {},
        {70 + n: text for n, text in enumerate(texts)},
    )


def use(relays: RelayProcesses, url: str) -> None:
    path = relays.root / "schema-ids.json"
    relays.configure("[registry]", f'url = "{url}"', f'schema_ids_file = "{path}"')


def test_a_cold_start_without_the_registry_publishes_and_reads(
    relays: RelayProcesses,
) -> None:
    pinned = pins(relays)
    pinned.write(relays.root / "schema-ids.json")
    use(relays, "http://127.0.0.1:1")
    relays.codec = Codec(pinned)
    relays.start()
    relays.call(ban("192.0.2.1"))
    (message,) = relays.messages("host", 1)
    assert message.value()[:5] == bytes([0, 0, 0, 0, 70])
    assert relays.codec.decode(message.value()).ip == "192.0.2.1"
    read = relays.run(
        "tail", "--from-beginning", "--until-end", "--json", relays.topic("host")
    )
    assert b'"192.0.2.1"' in read.stdout, read.stderr.decode()


def test_a_silent_registry_delays_no_event(relays: RelayProcesses) -> None:
    pinned = pins(relays)
    pinned.write(relays.root / "schema-ids.json")
    relays.codec = Codec(pinned)
    with silent() as port:
        use(relays, f"http://127.0.0.1:{port}")
        relays.start()
        relays.call(ban("192.0.2.1"))
        assert len(relays.events("host", 1, within=20)) == 1


def test_without_a_pinned_id_dead_letters_are_single_objects(
    relays: RelayProcesses,
) -> None:
    pins(relays).write(relays.root / "schema-ids.json")
    use(relays, "http://127.0.0.1:1")
    relays.start()
    relays.call(b"not JSON")
    (message,) = relays.messages("deadletter", 1)
    assert message.value()[:2] == b"\xc3\x01"


def test_ids_of_other_schemas_stop_the_relay_with_a_remedy(
    relays: RelayProcesses,
) -> None:
    pins(relays, swapped=True).write(relays.root / "schema-ids.json")
    use(relays, "http://127.0.0.1:1")
    name = relays.call(ban("192.0.2.1"))
    ended = relays.run("drain")
    assert ended.returncode == 78
    assert b"schemas register" in ended.stderr
    assert relays.spool.scan() == [name]


def test_without_pins_the_notification_is_stored_all_the_same(
    relays: RelayProcesses,
) -> None:
    use(relays, "http://127.0.0.1:1")
    ended = relays.run("notify", stdin=ban("192.0.2.1"))
    assert ended.returncode == 78
    assert b"schemas register" in ended.stderr
    assert len(relays.spool.scan()) == 1
