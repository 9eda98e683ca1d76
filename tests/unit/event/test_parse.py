"""The strict fields of a notification: action, scope, target and structure."""

import tomllib
import tracemalloc
from pathlib import Path
from typing import Any

import jiter
import msgspec
import pytest

from fnm_bus.errors import InvalidNotification
from fnm_bus.event import (
    Event,
    HostEvent,
    HostgroupEvent,
    HostgroupNetwork,
    Receipt,
    StatusEvent,
)
from fnm_bus.event.json_document import MAX_VALUES
from fnm_bus.event.parse import MAX_DOCUMENT, Parsed, parse

HERE = Path(__file__).parents[1]
SAMPLES = sorted((HERE / "samples").glob("*.json"))
CORPUS = HERE / "corpus"
REASONS = tomllib.loads((CORPUS / "invalid.toml").read_text())
RECEIPT = Receipt(event_id="1b4e28ba-2fa1-51d2-883f-0016d3cca427", sensor="test")


def read(arguments: tuple[str, ...] = (), **fields: Any) -> Parsed:
    return parse(msgspec.json.encode(fields), arguments, RECEIPT)


def event_of(**fields: Any) -> Any:
    """Return the event of a valid document, without extra fields."""
    parsed = read(**fields)
    assert parsed.mismatches == ()
    assert parsed.event.extra == {}
    return parsed.event


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_published_document_is_parsed_without_extra(path: Path) -> None:
    parsed = parse(path.read_bytes(), (), RECEIPT)
    assert parsed.mismatches == ()
    assert parsed.event.extra == {}
    assert parsed.event.receipt is RECEIPT


def test_no_published_document_is_missing() -> None:
    assert len(SAMPLES) == 12


def test_the_vendor_ban_has_all_its_packets() -> None:
    document = (HERE / "samples" / "host_ban_vendor_2022.json").read_bytes()
    event = parse(document, (), RECEIPT).event
    assert isinstance(event, HostEvent)
    assert len(event.packet_dump) == 25
    assert len(event.packet_dump_detailed) == 36
    assert event.packet_dump_detailed[0].length == 56_386


@pytest.mark.parametrize("name", sorted(REASONS))
def test_an_invalid_document_has_field_expected_and_actual_value(name: str) -> None:
    expected = REASONS[name]
    with pytest.raises(InvalidNotification) as caught:
        parse((CORPUS / "invalid" / name).read_bytes(), (), RECEIPT)
    error = caught.value
    assert error.field == expected["field"]
    assert expected["wanted"] in error.expected
    assert expected["got"] in error.actual
    assert error.reason.isprintable()
    assert len(error.reason) < 300


def test_every_file_of_the_corpus_has_its_reason() -> None:
    assert {path.name for path in (CORPUS / "invalid").iterdir()} == set(REASONS)


@pytest.mark.parametrize("scope", [None, "", "host", "per_host"])
def test_an_absent_or_empty_scope_is_host(scope: str | None) -> None:
    event = event_of(action="ban", alert_scope=scope, ip="198.51.100.7")
    assert isinstance(event, HostEvent)
    assert event.alert_scope == (scope or None)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"action": "ban", "ip": "198.51.100.7"}, HostEvent),
        ({"action": "unban", "ip": "198.51.100.7"}, HostEvent),
        ({"action": "partial_block", "ip": "198.51.100.7"}, HostEvent),
        ({"action": "partial_unblock", "ip": "198.51.100.7"}, HostEvent),
        ({"action": "a word of 2030", "ip": "198.51.100.7"}, HostEvent),
        ({"action": "ban", "alert_scope": "hostgroup"}, HostgroupEvent),
        ({"action": "unban", "alert_scope": "hostgroup"}, HostgroupEvent),
        ({"action": "attack_status", "ip": "198.51.100.7"}, StatusEvent),
        ({"action": "attack_status", "alert_scope": "hostgroup"}, StatusEvent),
    ],
)
def test_scope_and_action_choose_the_kind_of_event(
    fields: dict[str, Any], kind: type[Event]
) -> None:
    if fields.get("alert_scope") == "hostgroup":
        fields = {**fields, "hostgroup_name": "servers"}
    event = event_of(**fields)
    assert type(event) is kind
    assert event.action == fields["action"]


def test_a_status_has_a_host_or_a_hostgroup() -> None:
    host = event_of(action="attack_status", alert_scope="host", ip="2001:db8::7")
    assert (host.ip, host.hostgroup_name) == ("2001:db8::7", None)
    group = event_of(
        action="attack_status", alert_scope="hostgroup", hostgroup_name="servers"
    )
    assert (group.ip, group.hostgroup_name) == (None, "servers")


@pytest.mark.parametrize("action", ["partial_block", "partial_unblock"])
@pytest.mark.parametrize("ip", ["0.0.0.0", "::"])  # noqa: S104 - "no host", nothing listens
def test_a_partial_document_without_a_host_is_valid(action: str, ip: str) -> None:
    assert event_of(action=action, ip=ip).ip == ip


def test_a_field_of_the_other_scope_is_unknown() -> None:
    host = read(action="ban", ip="198.51.100.7", hostgroup_name="servers")
    assert host.event.extra == {"/hostgroup_name": '"servers"'}
    group = read(
        action="ban", alert_scope="hostgroup", hostgroup_name="g", ip="198.51.100.7"
    )
    assert group.event.extra == {"/ip": '"198.51.100.7"'}
    assert host.mismatches == group.mismatches == ()


def test_empty_fields_of_the_other_scope_are_absent() -> None:
    fields = {"hostgroup_name": "", "parent_hostgroup_name": "", "ip": "192.0.2.1"}
    assert event_of(action="ban", hostgroup_networks=[], **fields).ip == "192.0.2.1"


def test_hostgroup_networks_have_original_and_canonical_text() -> None:
    sent = [r"10.10.1.2/16", "2001:DB8:0::5/32", "192.0.2.7"]
    event = event_of(
        action="ban",
        alert_scope="hostgroup",
        hostgroup_name="servers",
        parent_hostgroup_name="all",
        hostgroup_networks=sent,
    )
    assert event.parent_hostgroup_name == "all"
    assert event.hostgroup_networks == (
        HostgroupNetwork(sent=sent[0], network="10.10.0.0/16"),
        HostgroupNetwork(sent=sent[1], network="2001:db8::/32"),
        HostgroupNetwork(sent=sent[2], network="192.0.2.7/32"),
    )


@pytest.mark.parametrize(
    "document",
    [
        b'{"action":"ban","ip":"198.51.100.7"}',
        b'{\r\n  "ip" : "198.51.100.7",\r\n\t"action":\r\n"ban"\r\n}\r\n\r\n',
        b'\xef\xbb\xbf{"action":"ban","ip":"198.51.100.7"}\n',
        b'\n\n {"\\u0061ction":"b\\u0061n","ip":"198.51.100.7"}',
    ],
)
def test_spacing_line_ends_escapes_and_bom_have_no_effect(document: bytes) -> None:
    assert parse(document, (), RECEIPT) == read(action="ban", ip="198.51.100.7")


def test_escaped_slashes_are_slashes() -> None:
    document = rb'{"action":"ban","ip":"192.0.2.1","attack_details":{"host_network":'
    event = parse(document + rb'"192.0.2.0\/24"}}', (), RECEIPT).event
    assert event.attack_details is not None
    assert event.attack_details.host_network == "192.0.2.0/24"


def test_null_is_absent() -> None:
    fields = {"alert_scope": None, "attack_details": None, "flow_spec_rules": None}
    event = event_of(action="ban", ip="192.0.2.1", packet_dump=None, **fields)
    assert event == event_of(action="ban", ip="192.0.2.1")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("ban", "192.0.2.99"),
        ("192.0.2.99", "incoming", "5", "unban"),
        ("--some", "--flags", "of", "a wrapper", "script"),
    ],
)
def test_a_json_document_overrides_the_arguments(arguments: tuple[str, ...]) -> None:
    parsed = read(arguments, action="ban", ip="198.51.100.7")
    assert parsed == read(action="ban", ip="198.51.100.7")


def test_empty_stdin_is_refused_in_json_mode() -> None:
    with pytest.raises(InvalidNotification) as caught:
        parse(b"", ("ban", "198.51.100.7"), RECEIPT)
    assert caught.value.actual == "nothing"


def test_a_document_of_3_mb_is_parsed() -> None:
    fields = jiter.from_json((HERE / "samples/host_ban_vendor_2022.json").read_bytes())
    fields["packet_dump"] *= 200
    fields["packet_dump_detailed"] *= 200
    document = msgspec.json.encode(fields)
    assert 2_500_000 < len(document) < MAX_DOCUMENT
    parsed = parse(document, (), RECEIPT)
    assert len(parsed.event.packet_dump) == 5_000
    assert len(parsed.event.packet_dump_detailed) == 7_200
    assert parsed.mismatches == ()


@pytest.mark.parametrize("size", [MAX_DOCUMENT + 1, 50_000_000])
def test_an_oversized_document_is_refused_before_parsing(size: int) -> None:
    with pytest.raises(InvalidNotification) as caught:
        parse(b"{" * size, ("192.0.2.1", "incoming", "1", "ban"), RECEIPT)
    assert caught.value.expected == f"at most {MAX_DOCUMENT} bytes"
    assert caught.value.actual == f"{size} bytes"


def test_a_document_of_the_limit_is_parsed() -> None:
    document = b'{"action":"ban","ip":"192.0.2.1"}'
    assert parse(document.ljust(MAX_DOCUMENT), (), RECEIPT).event.action == "ban"


BAN = b'{"action":"ban","ip":"192.0.2.1",%s}'


@pytest.mark.parametrize(
    "document",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        BAN % (b'"x":' + b"[" * 201 + b"]" * 201),
        b"1" * 100_000,
        BAN % (b'"x":' + b"1" * 100_000),
        BAN % (b'"attack_details":{"total_incoming_pps":-%s}' % (b"9" * 100_000)),
        BAN % (b'"flow_spec_rules":[%s{}]' % (b"{}," * 200_000)),
        b'{"a":' + b" " * 4_000_000,
        b"{" + b"\n" * 4_000_000 + b"x",
        b'{"action":"' + b"a" * 4_000_000 + b'"}',
        b'{"action":"ban","ip":"' + b":" * 4_000_000 + b'"}',
        b'{"action":"ban","ip":"' + b"1" * 4_000_000 + b'"}',
    ],
    ids=lambda document: repr(document[:24]),
)
def test_absurd_documents_are_refused_at_once(document: bytes) -> None:
    with pytest.raises(InvalidNotification) as caught:
        parse(document, (), RECEIPT)
    assert len(caught.value.reason) < 400


def test_a_hundred_thousand_unknown_keys_are_kept() -> None:
    keys = b",".join(b'"%d":%d' % (n, n) for n in range(100_000))
    extra = parse(BAN % keys, (), RECEIPT).event.extra
    assert len(extra) == 100_000
    assert extra["/99999"] == "99999"


def test_a_hostgroup_of_fifty_thousand_networks_is_an_event() -> None:
    networks = [f"2001:db8:{n:x}::/48" for n in range(50_000)]
    fields = {
        "action": "ban",
        "alert_scope": "hostgroup",
        "hostgroup_name": "all customers",
        "hostgroup_networks": networks,
    }
    event = parse(msgspec.json.encode(fields), (), RECEIPT).event
    assert isinstance(event, HostgroupEvent)
    assert len(event.hostgroup_networks) == 50_000


def test_too_many_values_are_refused_before_decoding() -> None:
    document = BAN % (b'"x":[' + b"{}," * MAX_VALUES + b"{}]")
    tracemalloc.start()
    with pytest.raises(InvalidNotification) as caught:
        parse(document, (), RECEIPT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.expected == f"at most {MAX_VALUES} values"
    assert peak < 2 * len(document)


def test_the_smallest_document_of_too_many_values_is_refused() -> None:
    with pytest.raises(InvalidNotification) as caught:
        parse(b"[" * MAX_VALUES, (), RECEIPT)
    assert caught.value.expected == f"at most {MAX_VALUES} values"


def test_too_much_extra_memory_is_refused() -> None:
    # A long name with many small values below it: each path in extra would repeat it.
    inside = b",".join(b'"%d":1' % n for n in range(1000))
    detailed = b'{"%s":{%s}}' % (b"n" * 1_000_000, inside)
    details = b'{"attack_detection_flexible_thresholds_detailed":%s}' % detailed
    with pytest.raises(InvalidNotification) as caught:
        parse(BAN % (b'"attack_details":%s' % details), (), RECEIPT)
    assert "unknown or misfit values" in caught.value.expected
