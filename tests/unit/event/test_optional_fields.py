"""Secondary values that do not fit their field are in extra, unchanged."""

from typing import Any

import pytest

from fnm_bus.event import (
    AttackDetails,
    FlexibleThreshold,
    FlexibleThresholdDetails,
    FlowDetails,
    FlowSpecAction,
    FlowSpecRule,
    HostgroupNetwork,
    PacketSample,
    Receipt,
)
from fnm_bus.event.parse import FieldMismatch, Parsed, parse

RECEIPT = Receipt()
PPS = "/attack_details/total_incoming_pps"
COUNTER = "an integer, 0 to 9223372036854775807"
PACKET = (
    '"ip_version":"ipv4","source_ip":"192.0.2.1","destination_ip":"192.0.2.2",'
    '"fragmentation":false,"packets":1,"length":54,"ip_length":40,"ttl":64,'
    '"sample_ratio":1,"protocol":"udp"'
)
SAMPLE = PacketSample(
    ip_version="ipv4",
    source_ip="192.0.2.1",
    destination_ip="192.0.2.2",
    fragmentation=False,
    packets=1,
    length=54,
    ip_length=40,
    ttl=64,
    sample_ratio=1,
    protocol="udp",
)


def read(rest: str) -> Parsed:
    return parse(f'{{"action":"ban","ip":"192.0.2.1",{rest}}}'.encode(), (), RECEIPT)


def details(rest: str) -> tuple[AttackDetails, Parsed]:
    parsed = read(f'"attack_details":{{{rest}}}')
    assert parsed.event.attack_details is not None
    return parsed.event.attack_details, parsed


def group(networks: str) -> Any:
    document = (
        '{"action":"ban","alert_scope":"hostgroup","hostgroup_name":"servers",'
        f'"hostgroup_networks":{networks}}}'
    )
    return parse(document.encode(), (), RECEIPT)


@pytest.mark.parametrize("value", [0, 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1])
def test_a_counter_is_exact_up_to_its_bound(value: int) -> None:
    attack, parsed = details(f'"total_incoming_pps":{value}')
    assert attack.total_incoming_pps == value
    assert parsed.mismatches == ()
    assert parsed.event.extra == {}


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        ('"12"', "the text '12'"),
        ('""', "the text ''"),
        ("1.0", "the number 1.0"),
        ("1.50", "the number 1.50"),
        ("1E400", "the number 1E400"),
        ("1.0000000000000000000001", "the number 1.0000000000000000000001"),
        ("true", "true"),
        ("false", "false"),
        ("-1", "the number -1"),
        ("9223372036854775808", "the number 9223372036854775808"),
        ("-9223372036854775809", "the number -9223372036854775809"),
        ("340282366920938463463374607431768211456", "the number 3402823669209384634"),
        ("9" * 4300, "the number 99999"),
        ("[1]", "a list of 1"),
        ('{"a":[1.50,99999999999999999999,"\\u0000\\"é"]}', "an object of 1"),
    ],
)
def test_a_misfit_counter_is_null_and_in_extra(sent: str, got: str) -> None:
    attack, parsed = details(f'"total_incoming_pps":{sent},"total_outgoing_pps":5')
    assert attack == AttackDetails(total_outgoing_pps=5)
    assert parsed.event.extra == {PPS: sent}
    (mismatch,) = parsed.mismatches
    assert mismatch[:2] == (PPS, COUNTER)
    assert mismatch.actual.startswith(got)
    assert mismatch.actual.isprintable()
    assert len(mismatch.actual) < 80


def test_an_absent_counter_is_null_and_zero_is_zero() -> None:
    attack, _ = details('"total_incoming_pps":0')
    assert attack.total_incoming_pps == 0
    assert attack.total_outgoing_pps is None


def test_null_is_like_an_absent_field() -> None:
    attack, parsed = details(
        '"total_incoming_pps":null,"attack_uuid":null,'
        '"attack_detection_flexible_thresholds":null,'
        '"attack_detection_flexible_thresholds_detailed":null'
    )
    assert attack == AttackDetails()
    assert (parsed.event.extra, parsed.mismatches) == ({}, ())


def test_an_empty_text_is_like_an_absent_one() -> None:
    attack, parsed = details('"parent_host_group":"","host_group":"global"')
    assert attack == AttackDetails(host_group="global")
    assert (parsed.event.extra, parsed.mismatches) == ({}, ())


def test_a_misfit_text_is_in_extra() -> None:
    attack, parsed = details('"attack_uuid":7,"attack_severity":"high"')
    assert attack == AttackDetails(attack_severity="high")
    assert parsed.event.extra == {"/attack_details/attack_uuid": "7"}
    assert parsed.mismatches == (
        FieldMismatch("/attack_details/attack_uuid", "text", "the number 7"),
    )


def test_a_misfit_flag_is_in_extra() -> None:
    name = "attack_detection_triggered_by_flexible_threshold"
    attack, parsed = details(f'"{name}":"true"')
    assert attack == AttackDetails()
    assert parsed.mismatches == (
        FieldMismatch(f"/attack_details/{name}", "true or false", "the text 'true'"),
    )


def test_unknown_fields_at_any_level_are_in_extra() -> None:
    parsed = read(
        '"new":{"a":[1,2.50]},"new/~":1,"receipt":{},"extra":{},"truncated":true,'
        '"text_mode":"x",'
        '"attack_details":{"new":"","total_incoming_pps":5},'
        f'"packet_dump_detailed":[{{{PACKET}}},{{"new":1,"flow":2,{PACKET}}}],'
        '"flow_spec_rules":[{"new":[80],"action":{"new":null,"rate":9}}]'
    )
    assert parsed.mismatches == ()
    assert parsed.event.extra == {
        "/new": '{"a":[1,2.50]}',
        "/new~1~0": "1",
        "/receipt": "{}",
        "/extra": "{}",
        "/truncated": "true",
        "/text_mode": '"x"',
        "/attack_details/new": '""',
        "/packet_dump_detailed/1/new": "1",
        "/packet_dump_detailed/1/flow": "2",
        "/flow_spec_rules/0/new": "[80]",
        "/flow_spec_rules/0/action/new": "null",
    }
    assert parsed.event.attack_details == AttackDetails(total_incoming_pps=5)
    assert parsed.event.packet_dump_detailed == (SAMPLE, SAMPLE)
    assert parsed.event.flow_spec_rules == (
        FlowSpecRule(action=FlowSpecAction(rate=9)),
    )
    assert not parsed.event.truncated


@pytest.mark.parametrize(
    ("rest", "path"),
    [
        ('"flow_spec_rules":[{"action":{"new":1}}]', "/flow_spec_rules/0/action/new"),
        ('"attack_details":{"new":1}', "/attack_details/new"),
        (
            f'"packet_dump_detailed":[{{{PACKET},"new":1}}]',
            "/packet_dump_detailed/0/new",
        ),
    ],
)
def test_a_single_unknown_field_is_in_extra(rest: str, path: str) -> None:
    parsed = read(rest)
    assert parsed.event.extra == {path: "1"}
    assert parsed.mismatches == ()


def test_extra_is_sorted_by_path() -> None:
    names = [f"n{n}" for n in range(50, 10, -1)]
    extra = read(",".join(f'"{name}":1' for name in names)).event.extra
    assert list(extra) == [f"/{name}" for name in reversed(names)]


def test_flexible_thresholds_are_read_at_all_levels() -> None:
    detailed = (
        '{"dns":{"incoming":true,"outgoing":false,"new":1,'
        '"incoming_details":{"flows":true,"mbits":"yes","packets":false}},'
        '"a/b":{},"ntp":5}'
    )
    path = "/attack_details/attack_detection_flexible_thresholds_detailed"
    attack, parsed = details(
        f'"attack_detection_flexible_thresholds_detailed":{detailed},'
        '"attack_detection_flexible_thresholds":["dns",5,"ntp"]'
    )
    assert attack.attack_detection_flexible_thresholds == ("dns", "ntp")
    assert attack.attack_detection_flexible_thresholds_detailed == {
        "dns": FlexibleThreshold(
            incoming=True,
            outgoing=False,
            incoming_details=FlexibleThresholdDetails(flows=True, packets=False),
        ),
        "a/b": FlexibleThreshold(),
    }
    assert parsed.event.extra == {
        "/attack_details/attack_detection_flexible_thresholds/1": "5",
        f"{path}/dns/incoming_details/mbits": '"yes"',
        f"{path}/dns/new": "1",
        f"{path}/ntp": "5",
    }
    assert [mismatch.path for mismatch in parsed.mismatches] == [
        "/attack_details/attack_detection_flexible_thresholds/1",
        f"{path}/dns/incoming_details/mbits",
        f"{path}/ntp",
    ]


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("attack_detection_flexible_thresholds", '"dns"', "a list"),
        ("attack_detection_flexible_thresholds_detailed", "[]", "an object"),
        ("attack_detection_flexible_thresholds_detailed", '"dns"', "an object"),
    ],
)
def test_a_misfit_list_or_object_is_in_extra(
    field: str, value: str, wanted: str
) -> None:
    attack, parsed = details(f'"{field}":{value}')
    assert attack == AttackDetails()
    assert parsed.event.extra == {f"/attack_details/{field}": value}
    assert parsed.mismatches[0].expected == wanted


def test_a_misfit_line_of_a_packet_dump_is_left_out() -> None:
    parsed = read('"packet_dump":["first",null,7,"second",""]')
    assert parsed.event.packet_dump == ("first", "second", "")
    assert parsed.event.extra == {"/packet_dump/1": "null", "/packet_dump/2": "7"}
    assert [mismatch.path for mismatch in parsed.mismatches] == [
        "/packet_dump/1",
        "/packet_dump/2",
    ]


@pytest.mark.parametrize("field", ["packet_dump", "packet_dump_detailed"])
@pytest.mark.parametrize("value", ['"x"', "{}", "5", "true"])
def test_a_misfit_packet_dump_is_in_extra(field: str, value: str) -> None:
    parsed = read(f'"{field}":{value}')
    assert parsed.event.packet_dump == parsed.event.packet_dump_detailed == ()
    assert parsed.event.extra == {f"/{field}": value}
    assert len(parsed.mismatches) == 1


@pytest.mark.parametrize(
    ("sample", "part", "got"),
    [
        ("7", "", "the number 7"),
        ("null", "", "null"),
        ("{}", "destination_ip: always there", "nothing"),
        (f"{{{PACKET.replace('64', '256')}}}", "ttl: an integer, 0 to 255", "256"),
        (f"{{{PACKET.replace('64', 'null')}}}", "ttl", "null"),
        (f"{{{PACKET.replace('54', '-1')}}}", "length", "-1"),
        (f"{{{PACKET.replace('54', '5.40')}}}", "length", "5.40"),
        (f'{{{PACKET},"source_port":"53"}}', "source_port", "the text '53'"),
        (f'{{{PACKET},"source_port":65536}}', "source_port", "65536"),
        (f'{{{PACKET},"tcp_flags":["syn"]}}', "tcp_flags", "a list of 1"),
        (f'{{{PACKET},"source_asn":-1,"new":1}}', "source_asn", "-1"),
        (f"{{{PACKET.replace('false', '0')}}}", "fragmentation", "the number 0"),
        (f"{{{PACKET.replace('protocol', 'Protocol')}}}", "protocol", "nothing"),
    ],
)
def test_a_misfit_packet_is_in_extra_as_a_whole(
    sample: str, part: str, got: str
) -> None:
    good = f"{{{PACKET}}}"
    parsed = read(f'"packet_dump_detailed":[{good},{sample},{good}]')
    assert parsed.event.packet_dump_detailed == (SAMPLE, SAMPLE)
    assert parsed.event.extra == {"/packet_dump_detailed/1": sample}
    (mismatch,) = parsed.mismatches
    assert mismatch.path == "/packet_dump_detailed/1"
    assert part in mismatch.expected
    assert got in mismatch.actual


def test_newer_fields_of_a_packet_are_in_flow() -> None:
    flow = (
        '"timestamp":1700000000,"source_asn":64500,"destination_asn":4294967295,'
        '"source_country":"","destination_country":"NL","input_interface":5,'
        '"output_interface":6,"forwarding_status":"dropped"'
    )
    parsed = read(
        f'"packet_dump_detailed":[{{{PACKET},"agent_address":"","tcp_flags":"",'
        f'"source_port":null,{flow}}}]'
    )
    (sample,) = parsed.event.packet_dump_detailed
    assert sample.flow == FlowDetails(
        timestamp=1_700_000_000,
        source_asn=64_500,
        destination_asn=4_294_967_295,
        destination_country="NL",
        input_interface=5,
        output_interface=6,
        forwarding_status="dropped",
    )
    assert (sample.agent_address, sample.tcp_flags, sample.source_port) == (None,) * 3
    assert (parsed.event.extra, parsed.mismatches) == ({}, ())


def test_a_packet_of_unknown_version_keeps_its_empty_addresses() -> None:
    parsed = read(
        '"packet_dump_detailed":[{"ip_version":"unknown","source_ip":"",'
        '"destination_ip":"","fragmentation":false,"packets":1,"length":1,'
        '"ip_length":1,"ttl":0,"sample_ratio":1,"protocol":"","agent_address":""}]'
    )
    (sample,) = parsed.event.packet_dump_detailed
    assert (sample.source_ip, sample.agent_address) == ("", None)
    assert (parsed.event.extra, parsed.mismatches) == ({}, ())


def test_misfit_members_of_a_rule_are_left_out() -> None:
    parsed = read(
        '"flow_spec_rules":[{"source_ports":[53,65536,"80",123],"protocols":"udp",'
        '"tcp_flags":["syn|ack",null],"destination_prefix":"","uuid":5,'
        '"action_type":"rate-limit","action":[]},{"action":{}},{}]'
    )
    assert parsed.event.flow_spec_rules == (
        FlowSpecRule(
            source_ports=(53, 123), tcp_flags=("syn|ack",), action_type="rate-limit"
        ),
        FlowSpecRule(action=FlowSpecAction()),
        FlowSpecRule(),
    )
    assert parsed.event.extra == {
        "/flow_spec_rules/0/source_ports/1": "65536",
        "/flow_spec_rules/0/source_ports/2": '"80"',
        "/flow_spec_rules/0/protocols": '"udp"',
        "/flow_spec_rules/0/tcp_flags/1": "null",
        "/flow_spec_rules/0/uuid": "5",
        "/flow_spec_rules/0/action": "[]",
    }
    assert [mismatch.path for mismatch in parsed.mismatches] == sorted(
        parsed.event.extra
    )


RANGE = "203.0.113.0-203.0.113.63"


def test_an_invalid_hostgroup_network_keeps_its_text() -> None:
    sent = ["10.0.0.0/33", "fe80::1%eth0/64", "10.0.0.0/255.0.0.0", "servers", ""]
    parsed = group(str(sent).replace("'", '"'))
    assert parsed.event.hostgroup_networks == tuple(
        HostgroupNetwork(sent=text, network=None) for text in sent
    )
    assert parsed.event.extra == {}
    assert [mismatch.path for mismatch in parsed.mismatches] == [
        f"/hostgroup_networks/{index}" for index in range(5)
    ]


def test_a_misfit_hostgroup_network_is_in_extra() -> None:
    parsed = group('["10.0.0.0/8",7,"192.0.2.0/24"]')
    networks = parsed.event.hostgroup_networks
    assert [n.network for n in networks] == ["10.0.0.0/8", "192.0.2.0/24"]
    assert parsed.event.extra == {"/hostgroup_networks/1": "7"}


@pytest.mark.parametrize("value", ['"10.0.0.0/8"', "{}", "7"])
def test_misfit_hostgroup_networks_are_in_extra(value: str) -> None:
    parsed = group(value)
    assert parsed.event.hostgroup_networks == ()
    assert parsed.event.extra == {"/hostgroup_networks": value}


def test_a_misfit_parent_hostgroup_is_in_extra() -> None:
    document = (
        b'{"action":"ban","alert_scope":"hostgroup","hostgroup_name":"g",'
        b'"parent_hostgroup_name":{"a":1}}'
    )
    parsed: Any = parse(document, (), RECEIPT)
    assert parsed.event.parent_hostgroup_name is None
    assert parsed.event.extra == {"/parent_hostgroup_name": '{"a":1}'}
    assert len(parsed.mismatches) == 1


def test_a_range_is_reported_with_its_field() -> None:
    parsed = group(f'[7, "{RANGE}", "203.0.113.64/26"]')
    assert parsed.event.extra == {"/hostgroup_networks/0": "7"}
    number, text = map(str, parsed.mismatches)
    assert number == (
        "mismatch: /hostgroup_networks/0: wanted a network as text,"
        " got the number 7; kept in extra"
    )
    assert text == (
        f"mismatch: /hostgroup_networks/1: wanted a network, got the text '{RANGE}';"
        " kept in hostgroup_networks[0].sent"
    )
    first, second = parsed.event.hostgroup_networks
    assert (first.sent, first.network) == (RANGE, None)
    assert second.network == "203.0.113.64/26"


def test_a_path_in_a_mismatch_line_is_printable_and_short() -> None:
    assert "\n" not in str(FieldMismatch("/a\nb" * 300, "text", "null"))
    assert len(str(FieldMismatch("/a\nb" * 300, "text", "null"))) < 600
