"""Text mode: Community's calls, and Advanced's obsolete ones."""

from typing import Any

import msgspec
import pytest

from fnm_bus.errors import InvalidNotification
from fnm_bus.event import AttackDetails, HostEvent, Receipt, TextMode
from fnm_bus.event.parse import FieldMismatch, Parsed, parse

RECEIPT = Receipt(sensor="test")
UDP = (
    "2026-11-22 10:00:00.000001 203.0.113.5:53 > 198.51.100.7:4444 protocol: udp "
    "frag: 0  packets: 1 size: 512 bytes ttl: 64 sample ratio: 1 "
)
TCP6 = (
    "2026-11-22 10:00:00.000002 2001:db8::5:53 > fd00::0001:80 protocol: tcp "
    "flags: syn,ack frag: 0  packets: 1 size: 60 bytes ttl: 64 sample ratio: 1 "
)
# The labels, units and order of Community 1.2.6 and later; values made up.
REPORT = f"""IP: 198.51.100.7
Attack type: udp_flood
Initial attack power: 44244 packets per second
Peak attack power: 44250 packets per second
Attack direction: incoming
Attack protocol: udp
Total incoming traffic: 162 mbps
Total outgoing traffic: 0 mbps
Total incoming pps: 44244 packets per second
Total outgoing pps: 0 packets per second
Total incoming flows: 37 flows per second
Total outgoing flows: 0 flows per second
Incoming dropped traffic: 0 mbps
Incoming dropped pps: 3 packets per second
Incoming ip fragmented traffic: 0 mbps
Incoming ip fragmented pps: 1 packets per second
Incoming syn tcp pps: 2 packets per second
Incoming udp traffic: 353 mbps
Incoming udp pps: 96256 packets per second


Attack traffic dump

{UDP}
{TCP6}


Flow dump

UDP flows: 1
198.51.100.7:14134 < 203.0.113.5:123 493568 bytes 1024 packets
"""
DETAILS = AttackDetails(
    attack_type="udp_flood",
    attack_direction="incoming",
    attack_protocol="udp",
    initial_attack_power=44_244,
    peak_attack_power=44_250,
    total_incoming_traffic_bits=162_000_000,
    total_outgoing_traffic_bits=0,
    total_incoming_pps=44_244,
    total_outgoing_pps=0,
    total_incoming_flows=37,
    total_outgoing_flows=0,
    incoming_dropped_traffic_bits=0,
    incoming_ip_fragmented_traffic_bits=0,
    incoming_udp_traffic_bits=353_000_000,
    incoming_dropped_pps=3,
    incoming_ip_fragmented_pps=1,
    incoming_syn_tcp_pps=2,
    incoming_udp_pps=96_256,
)
BAN = ("198.51.100.7", "incoming", "44244", "ban")


def read(document: str | bytes, arguments: tuple[str, ...] = BAN) -> Any:
    """Return the parsed event of a host."""
    data = document.encode() if isinstance(document, str) else document
    parsed = parse(data, arguments, RECEIPT)
    assert isinstance(parsed.event, HostEvent)
    return parsed


def test_a_ban_has_its_report_figures_and_packets() -> None:
    assert read(REPORT) == Parsed(
        HostEvent(
            receipt=RECEIPT,
            action="ban",
            ip="198.51.100.7",
            attack_details=DETAILS,
            packet_dump=(UDP, TCP6),
            text_mode=TextMode(direction="incoming", power_pps=44_244, report=REPORT),
        ),
        (),
    )


def test_windows_line_ends_have_no_effect() -> None:
    windows = read(REPORT.replace("\n", "\r\n")).event
    unix = read(REPORT).event
    assert windows.attack_details == DETAILS
    assert windows.packet_dump == unix.packet_dump
    assert windows.text_mode.report == REPORT.replace("\n", "\r\n")


@pytest.mark.parametrize("document", [b"", b"\n", b"\xef\xbb\xbf"])
def test_an_unban_needs_no_report(document: bytes) -> None:
    event = read(document, (*BAN[:3], "unban")).event
    assert (event.action, event.ip) == ("unban", "198.51.100.7")
    assert event.attack_details is None


def test_a_ban_without_a_report_is_a_ban() -> None:
    assert read("").event.action == "ban"


def test_attack_details_are_an_event_of_their_own() -> None:
    event = read(REPORT, (*BAN[:3], "attack_details")).event
    assert event.action == "attack_details"
    assert event.attack_details == DETAILS


@pytest.mark.parametrize(
    ("argument", "ip"), [("fd00::0001", "fd00::1"), ("2001:DB8::7", "2001:db8::7")]
)
def test_the_address_comes_from_the_arguments(argument: str, ip: str) -> None:
    report = REPORT.replace("IP: 198.51.100.7", "IP: 0.0.0.0")
    event = read(report, (argument, *BAN[1:])).event
    assert event.ip == ip


@pytest.mark.parametrize(
    "ip",
    ["", "198.51.100.7/32", "fe80::1%eth0", "198.51.100.07", "198.51.100.7\n", "7"],
)
def test_an_unfit_address_is_refused(ip: str) -> None:
    with pytest.raises(InvalidNotification) as caught:
        read(REPORT, (ip, *BAN[1:]))
    assert caught.value.field == "argument 1"


@pytest.mark.parametrize("action", ["", " ", "ban\n", "\udcff", "x" * 1025])
def test_an_unfit_action_is_refused(action: str) -> None:
    with pytest.raises(InvalidNotification) as caught:
        read(REPORT, (*BAN[:3], action))
    assert caught.value.field == "argument 4"
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize(
    "power", ["", "-5", "1.5", "many", "9223372036854775808", "٣", "9" * 100_000]
)
def test_a_power_without_a_number_is_null(power: str) -> None:
    parsed = read("", ("198.51.100.7", "incoming", power, "ban"))
    assert parsed.event.text_mode == TextMode(direction="incoming", power_pps=None)
    assert parsed.mismatches[0].path == "/text_mode/power_pps"
    assert parsed.event.extra == {}


def test_the_greatest_power_is_exact() -> None:
    event = read("", ("198.51.100.7", "incoming", str(2**63 - 1), "ban")).event
    assert event.text_mode.power_pps == 2**63 - 1


@pytest.mark.parametrize("direction", ["", "in\ncoming", "\udcff", "x" * 65])
def test_an_unfit_direction_is_empty(direction: str) -> None:
    parsed = read("", ("198.51.100.7", direction, "5", "ban"))
    assert parsed.event.text_mode == TextMode(power_pps=5)
    (mismatch,) = parsed.mismatches
    assert mismatch.path == "/text_mode/direction"
    assert mismatch.actual.isprintable()


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ("-5 packets per second", "'-5 packets per second'"),
        ("9223372036854775808 packets per second", "'9223372036854775808 packets"),
        ("5 mbps", "'5 mbps'"),
        ("5 flows per second", "'5 flows per second'"),
        ("5", "'5'"),
        ("", "''"),
        ("9" * 5000 + " packets per second", "'9999"),
    ],
)
def test_a_misfit_figure_is_only_in_the_report(line: str, got: str) -> None:
    report = f"Attack type: syn_flood\nTotal incoming pps: {line}\n"
    parsed = read(report)
    assert parsed.event.attack_details == AttackDetails(attack_type="syn_flood")
    (mismatch,) = parsed.mismatches
    assert mismatch.path == "/attack_details/total_incoming_pps"
    assert mismatch.expected == "0 to 9223372036854775807 packets per second"
    assert mismatch.actual.startswith(f"the text {got}")
    assert mismatch.kept_in == "text_mode.report"


@pytest.mark.parametrize(
    ("mbps", "bits"),
    [
        ("0", 0),
        ("162", 162_000_000),
        ("12000", 12_000_000_000),
        ("9223372036854", 9_223_372_036_854_000_000),  # the largest that fits
    ],
)
def test_traffic_in_whole_megabits_becomes_bits(mbps: str, bits: int) -> None:
    parsed = read(f"Total incoming traffic: {mbps} mbps\n")
    assert parsed.event.attack_details == AttackDetails(
        total_incoming_traffic_bits=bits
    )
    assert parsed.mismatches == ()


@pytest.mark.parametrize(
    "figure",
    ["9223372036855 mbps", "-1 mbps", "1.5 mbps", "5 mb", "5 packets per second", ""],
)
def test_misfit_traffic_is_only_in_the_report(figure: str) -> None:
    parsed = read(f"Total incoming traffic: {figure}\n")
    assert parsed.event.attack_details is None
    (mismatch,) = parsed.mismatches
    assert mismatch.path == "/attack_details/total_incoming_traffic_bits"
    assert mismatch.expected == "0 to 9223372036854 mbps"
    assert mismatch.kept_in == "text_mode.report"


def test_a_report_of_12_gbit_becomes_12_gbit() -> None:
    report = (
        "IP: 203.0.113.243\nAttack type: udp_flood\n"
        "Initial attack power: 1063900 packets per second\n"
        "Peak attack power: 1063900 packets per second\n"
        "Attack direction: incoming\nAttack protocol: udp\n"
        "Total incoming traffic: 12000 mbps\nTotal outgoing traffic: 3 mbps\n"
        "Total incoming pps: 1063900 packets per second\n"
        "Total outgoing pps: 1200 packets per second\n"
    )
    event = read(report, ("203.0.113.243", "incoming", "1063900", "ban")).event
    assert event.attack_details.total_incoming_traffic_bits == 12_000_000_000
    assert event.attack_details.total_outgoing_traffic_bits == 3_000_000


def test_a_report_cut_within_a_line_is_an_event() -> None:
    report = (
        "IP: 203.0.113.106\nAttack type: syn_flood\n"
        "Total incoming traffic: 62 mbps\nTotal incoming pps: 37753 packet"
    )
    parsed = read(report, ("203.0.113.106", "incoming", "37753", "ban"))
    assert parsed.event.extra == {}
    (mismatch,) = parsed.mismatches
    assert str(mismatch) == (
        "mismatch: /attack_details/total_incoming_pps: wanted 0 to"
        " 9223372036854775807 packets per second, got the text '37753 packet';"
        " kept in text_mode.report"
    )


def test_a_mismatch_in_the_arguments_names_the_argument() -> None:
    parsed = read("", ("198.51.100.7", "\n", "many", "ban"))
    fields = {mismatch.path: mismatch.kept_in for mismatch in parsed.mismatches}
    assert fields == {
        "/text_mode/direction": "receipt.arguments[1]",
        "/text_mode/power_pps": "receipt.arguments[2]",
    }


def test_lines_of_some_versions_have_no_effect() -> None:
    old = (
        "Attack type: unknown\nAverage incoming pps: 7 packets per second\n\n"
        "Network: 198.51.100.0/24\nNetwork incoming traffic: 7 mbps\n"
        "Average packet size for incoming traffic: 481.0 bytes \n"
        "Attack severity: middle\nNetwork incoming pps: 9 packets per second\n"
    )
    parsed = read(old)
    assert parsed.event.attack_details == AttackDetails(
        attack_type="unknown", average_incoming_pps=7
    )
    assert parsed.mismatches == ()


def test_the_first_line_of_a_label_counts() -> None:
    event = read("Attack type: one\nAttack type: two\n").event
    assert event.attack_details == AttackDetails(attack_type="one")


def test_each_byte_of_a_report_without_utf8_is_kept() -> None:
    report = b"Attack type: udp_flood\nAttack protocol: \xff\x00\n"
    parsed = read(report)
    assert parsed.event.text_mode == TextMode(direction="incoming", power_pps=44_244)
    assert parsed.event.attack_details == AttackDetails(attack_type="udp_flood")
    assert parsed.mismatches == (FieldMismatch("", "UTF-8", "byte 0xff at byte 40"),)
    text = parsed.event.extra[""].encode()
    assert msgspec.json.decode(text).encode("latin-1") == report


def test_a_mismatch_in_a_report_without_utf8_names_extra() -> None:
    parsed = read(b"Total incoming pps: \xff\n")
    assert {mismatch.kept_in for mismatch in parsed.mismatches} == {"extra"}
    assert "" in parsed.event.extra


def test_further_arguments_have_no_effect() -> None:
    assert read(REPORT, (*BAN, "something", "new")) == read(REPORT)


@pytest.mark.parametrize("arguments", [(), ("ban", "198.51.100.7"), BAN[:3]])
def test_a_report_without_its_arguments_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidNotification) as caught:
        read(REPORT, arguments)
    assert caught.value.field == "arguments"


@pytest.mark.parametrize(
    "report",
    [
        b"\n" * 4_000_000,
        b"A" * 4_000_000,
        b"Aa" + b" a" * 2_000_000,
        b"a" * 2_000_000 + b" > " + b"b" * 2_000_000,
        b"Total incoming pps: " + b"1" * 4_000_000,
        b"\xff" * 4_000_000,
    ],
    ids=lambda report: repr(report[:12]),
)
def test_an_absurd_report_is_read_in_bounded_time(report: bytes) -> None:
    assert read(report).event.action == "ban"
