"""Lines in the Common Event Format."""

import re
from datetime import UTC, datetime

import pytest

from consumers.siem.cef import cef_line
from fnm_bus import __version__
from fnm_bus.avro import schema
from fnm_bus.avro.examples import example_records
from fnm_bus.event import AnyRecord, AttackDetails, HostEvent, Receipt
from fnm_bus.kafka.reader import ConsumedRecord

AT = datetime(2026, 11, 22, 3, 14, 7, 118204, tzinfo=UTC)
RECEIPT = Receipt(
    event_id="e60db861-6ae4-5fbf-830a-4c5ea962bf21", received_at=AT, sensor="fra1"
)


def line(event: AnyRecord | None) -> str:
    record = ConsumedRecord("host", 3, 17, AT, b"::1", (), b"x", event, "")
    return cef_line(record).decode()


def parsed(text: str) -> tuple[list[str], dict[str, str]]:
    """Return header and extension as the format's description reads them."""
    assert text.endswith("\n")
    *header, extension = re.split(r"(?<!\\)(?:\\\\)*\|", text[:-1], maxsplit=7)
    found = re.findall(r"(\w+)=((?:\\.|[^\\=])*)(?=\s\w+=|$)", extension)
    plain = {key: re.sub(r"\\(.)", r"\1", value) for key, value in found}
    return header, plain


def test_ban_is_a_line_with_the_keys_of_cef() -> None:
    details = AttackDetails(
        attack_uuid="u",
        attack_detection_threshold_direction="incoming",
        attack_protocol="udp",
        host_group="customers = all",
        total_incoming_pps=0,
        total_incoming_traffic_bits=8_000,
    )
    event = HostEvent(
        receipt=RECEIPT, action="ban", ip="203.0.113.25", attack_details=details
    )
    assert line(event) == (
        f"CEF:0|fnm-bus|fnm-bus|{__version__}|host.ban|host ban|8|rt=1795317247118"
        " externalId=e60db861-6ae4-5fbf-830a-4c5ea962bf21 cat=host act=ban dvchost=fra1"
        " dst=203.0.113.25 deviceDirection=0 proto=UDP"
        " cs1Label=hostgroup cs1=customers \\= all cs2Label=attack cs2=u"
        " cs5Label=trace cs5=e60db8616ae45fbf830a4c5ea962bf21"
        " cn1Label=packets per second cn1=0 cn2Label=bits per second cn2=8000"
        " msg=fra1: ban of 203.0.113.25\n"
    )


@pytest.mark.parametrize(
    ("direction", "ip", "key"),
    [
        ("incoming", "192.0.2.1", "dst"),
        ("outgoing", "192.0.2.1", "src"),
        ("incoming", "2001:db8::1", "c6a3"),
        ("outgoing", "2001:db8::1", "c6a2"),
    ],
)
def test_address_has_the_key_of_its_version_and_direction(
    direction: str, ip: str, key: str
) -> None:
    details = AttackDetails(attack_detection_threshold_direction=direction)
    event = HostEvent(receipt=RECEIPT, action="ban", ip=ip, attack_details=details)
    _, extension = parsed(line(event))
    assert extension[key] == ip
    assert len({"dst", "src", "c6a2", "c6a3"} & extension.keys()) == 1


@pytest.mark.parametrize("full_name", schema.RECORDS)
def test_every_example_is_one_line_of_cef(full_name: str) -> None:
    for event in example_records(full_name).values():
        text = line(event)
        assert text.count("\n") == 1
        header, extension = parsed(text)
        assert header[:3] == ["CEF:0", "fnm-bus", "fnm-bus"]
        assert {"rt", "externalId", "cat"} <= extension.keys()


@pytest.mark.parametrize(
    "odd", ["a=b", "a\\b", "a|b", "x\nCEF:0|forged", "a src=192.0.2.1", "\x1b[2J"]
)
def test_text_of_others_forges_no_field(odd: str) -> None:
    event = HostEvent(receipt=Receipt(sensor=odd), action=odd, ip="::1")
    text = line(event)
    assert text.count("\n") == 1
    assert "\x1b" not in text
    header, extension = parsed(text)
    assert len(header) == 7
    assert "src" not in extension


def test_tombstone_is_a_line() -> None:
    header, extension = parsed(line(None))
    assert header[4] == "tombstone"
    assert extension["externalId"] == "host/3/17"
