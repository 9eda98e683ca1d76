"""The relay with a registry: only its pinned ids are needed, whatever else it does."""

import pytest
from support.relay_processes import RelayProcesses, ban, silent

from fnm_bus.avro import schema
from fnm_bus.avro.codec import Codec
from fnm_bus.avro.registry import Registry
from fnm_bus.avro.schema_ids import SchemaIds

NAMES = {
    "host": "fastnetmon.HostEvent",
    "hostgroup": "fastnetmon.HostgroupEvent",
    "status": "fastnetmon.StatusEvent",
}


def pins(plant: RelayProcesses, *, swapped: bool = False) -> SchemaIds:
    kinds = list(NAMES)
    texts = [schema.text(NAMES[kind]) for kind in kinds]
    if swapped:
        texts.reverse()
    return SchemaIds(
        "http://registry",
        {f"{plant.topic(kind)}-value": 70 + n for n, kind in enumerate(kinds)},
        {},
        {70 + n: text for n, text in enumerate(texts)},
    )


def use(plant: RelayProcesses, url: str) -> None:
    path = plant.root / "schema-ids.json"
    plant.configure("[registry]", f'url = "{url}"', f'pins = "{path}"')


def test_with_the_registry_down_events_are_published_and_read_from_a_cold_start(
    plant: RelayProcesses,
) -> None:
    pinned = pins(plant)
    pinned.write(plant.root / "schema-ids.json")
    use(plant, "http://127.0.0.1:1")
    plant.codec = Codec(pinned)
    plant.start()
    plant.call(ban("192.0.2.1"))
    (message,) = plant.messages("host", 1)
    assert message.value()[:5] == bytes([0, 0, 0, 0, 70])
    assert plant.codec.decode(message.value()).ip == "192.0.2.1"
    read = plant.run(
        "tail", "--from-beginning", "--exit", "--json", plant.topic("host")
    )
    assert b'"192.0.2.1"' in read.stdout, read.stderr.decode()


def test_a_registry_that_never_answers_holds_up_nobody(plant: RelayProcesses) -> None:
    pinned = pins(plant)
    pinned.write(plant.root / "schema-ids.json")
    plant.codec = Codec(pinned)
    with silent() as port:
        use(plant, f"http://127.0.0.1:{port}")
        plant.start()
        plant.call(ban("192.0.2.1"))
        assert len(plant.events("host", 1, within=20)) == 1


def test_without_a_pinned_id_dead_letters_are_single_objects(
    plant: RelayProcesses,
) -> None:
    pins(plant).write(plant.root / "schema-ids.json")
    use(plant, "http://127.0.0.1:1")
    plant.start()
    plant.call(b"not JSON")
    (message,) = plant.messages("deadletter", 1)
    assert message.value()[:2] == b"\xc3\x01"


def test_pins_of_other_schemas_stop_the_relay_and_name_the_remedy(
    plant: RelayProcesses,
) -> None:
    pins(plant, swapped=True).write(plant.root / "schema-ids.json")
    use(plant, "http://127.0.0.1:1")
    name = plant.call(ban("192.0.2.1"))
    ended = plant.run("relay", "--once")
    assert ended.returncode == 78
    assert b"schemas register" in ended.stderr
    assert plant.spool.scan() == [name]


def test_without_pins_the_notification_is_stored_all_the_same(
    plant: RelayProcesses,
) -> None:
    use(plant, "http://127.0.0.1:1")
    ended = plant.run("notify", stdin=ban("192.0.2.1"))
    assert ended.returncode == 78
    assert b"schemas register" in ended.stderr
    assert len(plant.spool.scan()) == 1


@pytest.mark.kafka
@pytest.mark.registry
def test_registered_published_and_read_by_id(
    real_plant: RelayProcesses, registry: str
) -> None:
    use(real_plant, registry)
    done = real_plant.run("schemas", "register")
    assert done.returncode == 0, done.stderr.decode()
    assert real_plant.run("schemas", "check").returncode == 0
    # A reader without pins, who asks the registry.
    real_plant.codec = Codec(lookup=Registry(registry).schema_of)
    real_plant.start()
    real_plant.call(ban("2001:db8::1", "attack_status"))
    (message,) = real_plant.messages("status", 1)
    assert message.value()[0] == 0
    assert real_plant.codec.decode(message.value()).ip == "2001:db8::1"
