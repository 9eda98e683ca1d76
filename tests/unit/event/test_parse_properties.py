"""Properties of every document, tested with generated documents."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jiter
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from fnm_bus.errors import InvalidNotification
from fnm_bus.event import (
    AttackDetails,
    FlowDetails,
    FlowSpecRule,
    PacketSample,
    Receipt,
)
from fnm_bus.event.identifiers import parse_address
from fnm_bus.event.parse import Parsed, parse

RECEIPT = Receipt()
SAMPLES = sorted((Path(__file__).parents[1] / "samples").glob("*.json"))
EMPTY = (None, "", [], {})

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 2**31, 2**63 - 1, 2**63])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def fitting(  # noqa: PLR0911 - one for each type
    kind: inspect.Type,
) -> st.SearchStrategy[Any]:
    """Return values that fit a field of an event."""
    match kind:
        case inspect.UnionType(types=types):
            return st.one_of(map(fitting, types))
        case inspect.NoneType():
            return st.none()
        case inspect.StrType():
            return st.text(max_size=8)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=least, le=most):
            return st.integers(least, most)
        case inspect.VarTupleType(item_type=item):
            return st.lists(fitting(item) | values, max_size=3)
        case inspect.DictType(value_type=item):
            names = st.text(max_size=4)
            return st.dictionaries(names, fitting(item) | values, max_size=3)
        case inspect.StructType(cls=cls):
            return objects(cls)
    raise TypeError(kind)


def objects(*kinds: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with some of the records' fields, mostly valid."""
    by_name = {
        field.name: fitting(field.type)
        for kind in kinds
        for field in inspect.type_info(kind).fields  # type: ignore[attr-defined]
        if field.name != "flow"
    }
    some = st.lists(st.sampled_from(sorted(by_name)), max_size=6, unique=True)
    fields = some.flatmap(
        lambda names: st.fixed_dictionaries({n: by_name[n] for n in names})
    )
    wrong = st.dictionaries(
        st.sampled_from(sorted(by_name)) | st.text(), values, max_size=2
    )
    return st.builds(lambda a, b: {**a, **b}, fields, wrong)


PACKET = {
    "ip_version": "ipv4",
    "source_ip": "192.0.2.1",
    "destination_ip": "",
    "fragmentation": False,
    "packets": 1,
    "length": 54,
    "ip_length": 40,
    "ttl": 64,
    "sample_ratio": 1,
    "protocol": "udp",
}
packets = objects(PacketSample, FlowDetails).map(lambda fields: {**PACKET, **fields})
addresses = (st.ip_addresses() | st.ip_addresses(v=6)).map(
    lambda ip: ip.exploded.upper()
)
networks = st.lists(st.ip_addresses().map(lambda ip: f"{ip}/20") | values, max_size=3)
optional = {
    "attack_details": objects(AttackDetails),
    "flow_spec_rules": st.lists(objects(FlowSpecRule), max_size=2),
    "packet_dump": st.lists(st.text(max_size=5) | values, max_size=3) | values,
    "packet_dump_detailed": st.lists(packets | values, max_size=3) | values,
    "parent_hostgroup_name": st.text(max_size=5) | values,
    "hostgroup_networks": networks | values,
}
others = st.dictionaries(st.text(max_size=5), values, max_size=2)
actions = st.sampled_from(["ban", "unban", "partial_block", "attack_status", "new"])
hosts = st.fixed_dictionaries(
    {"action": actions, "ip": addresses},
    optional={
        **optional,
        "alert_scope": st.sampled_from(["host", "per_host", "", None]),
        "hostgroup_name": values,
    },
)
hostgroups = st.fixed_dictionaries(
    {
        "action": actions,
        "alert_scope": st.just("hostgroup"),
        "hostgroup_name": st.just("servers"),
    },
    optional={**optional, "ip": values},
)
documents = st.builds(lambda a, b: {**b, **a}, hosts | hostgroups, others)


def read(document: dict[str, Any]) -> Parsed:
    return parse(json.dumps(document).encode(), (), RECEIPT)


def step(path: str, name: str | int) -> str:
    return path + "/" + str(name).replace("~", "~0").replace("/", "~1")


def same(left: Any, right: Any) -> bool:
    """Compare as JSON: true is not 1, and 1.0 is not 1."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def lost(sent: Any, field: Any, path: str, extra: dict[str, str]) -> Iterator[str]:
    """Yield the path of each value that is neither in extra nor in the event."""
    if isinstance(field, dict) and "sent" in field:
        field = field["sent"]
    if path in extra:
        is_same = same(json.loads(extra[path]), sent)
    elif sent in EMPTY and not isinstance(sent, bool | int | float):
        is_same = True
    elif isinstance(sent, dict):
        yield from lost_fields(sent, field, path, extra)
        return
    elif isinstance(sent, list):
        yield from lost_members(sent, field, path, extra)
        return
    else:
        is_same = same(parse_address(sent, path) if path == "/ip" else sent, field)
    if not is_same:
        yield path


def lost_fields(
    sent: dict[str, Any], field: Any, path: str, extra: dict[str, str]
) -> Iterator[str]:
    field = field if isinstance(field, dict) else {}
    for name, value in sent.items():
        flow = field.get("flow") or {}
        inner = field[name] if name in field else flow.get(name)
        yield from lost(value, inner, step(path, name), extra)


def lost_members(
    sent: list[Any], field: Any, path: str, extra: dict[str, str]
) -> Iterator[str]:
    left = iter(field or [])
    for index, value in enumerate(sent):
        here = step(path, index)
        yield from lost(value, None if here in extra else next(left, None), here, extra)
    if next(left, None) is not None:
        yield f"{path}: more than was sent"


def lost_of(document: dict[str, Any], parsed: Parsed) -> list[str]:
    event = msgspec.to_builtins(parsed.event)
    return list(lost(document, event, "", event["extra"]))


@given(documents)
def test_no_value_of_a_document_is_lost(document: dict[str, Any]) -> None:
    assert lost_of(document, read(document)) == []


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_no_value_of_a_published_document_is_lost(path: Path) -> None:
    document = jiter.from_json(path.read_bytes())
    assert lost_of(document, parse(path.read_bytes(), (), RECEIPT)) == []


@given(documents)
def test_every_mismatch_names_the_field_with_its_value(
    document: dict[str, Any],
) -> None:
    parsed = read(document)
    for mismatch in parsed.mismatches:
        if mismatch.kept_in == "extra":
            assert mismatch.path in parsed.event.extra
        else:
            place = int(
                mismatch.kept_in.removeprefix("hostgroup_networks[").split("]")[0]
            )
            index = int(mismatch.path.removeprefix("/hostgroup_networks/"))
            assert mismatch.kept_in.endswith("].sent")
            sent = parsed.event.hostgroup_networks[place].sent  # type: ignore[union-attr]
            assert sent == document["hostgroup_networks"][index]
        assert mismatch.actual.isprintable()
        assert len(mismatch.actual) < 300


@given(documents)
def test_an_event_is_valid_by_its_own_type(document: dict[str, Any]) -> None:
    event = read(document).event
    plain = msgspec.to_builtins(event, builtin_types=(Receipt,))
    assert msgspec.convert(plain, type(event), strict=True) == event


@given(documents, st.randoms(use_true_random=False), st.sampled_from([None, 0, "\t"]))
def test_order_of_keys_and_spacing_have_no_effect(
    document: dict[str, Any], random: Any, indent: Any
) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            names = list(value)
            random.shuffle(names)
            return {name: shuffled(value[name]) for name in names}
        return [shuffled(v) for v in value] if isinstance(value, list) else value

    other = json.dumps(shuffled(document), indent=indent, ensure_ascii=False)
    again = parse(other.replace("\n", "\r\n").encode(), (), RECEIPT)
    first = read(document)
    assert lost_of(document, again) == []
    assert again.mismatches == first.mismatches
    assert again.event.extra.keys() == first.event.extra.keys()
    assert msgspec.structs.replace(again.event, extra={}) == msgspec.structs.replace(
        first.event, extra={}
    )


@given(
    st.dictionaries(
        st.sampled_from(AttackDetails.__struct_fields__[15:]), st.integers(0, 2**63 - 1)
    )
)
def test_counters_survive_exactly(counters: dict[str, int]) -> None:
    parsed = read({"action": "ban", "ip": "192.0.2.1", "attack_details": counters})
    assert parsed.event.attack_details == AttackDetails(**counters)
    assert parsed.mismatches == ()


@given(st.binary(max_size=200) | values.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_become_an_event_or_an_error(document: bytes) -> None:
    try:
        parsed = parse(document, (), RECEIPT)
    except InvalidNotification as error:
        assert error.reason.isprintable()  # noqa: PT017 - both ways out are allowed
        assert len(error.reason) < 500  # noqa: PT017 - as above
    else:
        assert parsed.event.action


@given(documents, st.data())
def test_a_damaged_document_becomes_an_event_or_an_error(
    document: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps(document).encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    damaged = text[:start] + data.draw(st.binary(max_size=3)) + text[end:]
    try:
        parsed = parse(damaged, (), RECEIPT)
    except InvalidNotification as error:
        assert error.reason.isprintable()  # noqa: PT017 - both ways out are allowed
    else:
        assert parsed.event.action


@given(st.binary(max_size=300), st.lists(st.text(max_size=20), min_size=4, max_size=5))
def test_text_mode_becomes_an_event_or_an_error(
    document: bytes, arguments: list[str]
) -> None:
    arguments[0] = "192.0.2.1" if len(arguments) == 4 else arguments[0]
    try:
        parsed = parse(document, arguments, RECEIPT)
    except InvalidNotification as error:
        assert error.reason.isprintable()  # noqa: PT017 - both ways out are allowed
    else:
        assert parsed.event.action == arguments[3]
