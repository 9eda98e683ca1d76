#!/usr/bin/env python3
"""Tell a FastNetMon of an attack that there is not, by IPFIX (RFC 7011).

What is sent are a few datagrams a second, which report one: each of the hosts seems to
receive UDP packets of 1,400 bytes from port 123, as in an amplification attack by NTP.
It ends by itself.
"""

import argparse
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

Address = IPv4Address | IPv6Address

MESSAGE = struct.Struct(">HHIII")
SET = struct.Struct(">HH")
FIELD = struct.Struct(">HH")
REST = struct.Struct(">QQHHB")
VERSION, TEMPLATES, DOMAIN = 10, 2, 1
MOST_RECORDS, UDP, NTP, PORT, PACKET = 20, 17, 123, 40_000, 1_400


class Family(NamedTuple):
    """How flows of IPv4, or of IPv6, are told.

    Attributes:
        template: number of the template.
        source, destination: numbers of the elements in IANA's registry.
        size: bytes of an address.
        attacker: from where all of it seems to come.
    """

    template: int
    source: int
    destination: int
    size: int
    attacker: Address


FAMILIES = {
    4: Family(256, 8, 12, 4, IPv4Address("198.51.100.7")),
    6: Family(257, 27, 28, 16, IPv6Address("3fff::7")),
}
PACKETS, OCTETS, SOURCE_PORT, DESTINATION_PORT, PROTOCOL = 2, 1, 7, 11, 4


def template(of: Family) -> bytes:
    """Return the set that says what is in the records of a family."""
    fields = (
        (of.source, of.size),
        (of.destination, of.size),
        (PACKETS, 8),
        (OCTETS, 8),
        (SOURCE_PORT, 2),
        (DESTINATION_PORT, 2),
        (PROTOCOL, 1),
    )
    head = FIELD.pack(of.template, len(fields))
    return framed(TEMPLATES, head + b"".join(FIELD.pack(*it) for it in fields))


def record(of: Family, host: Address, packets: int) -> bytes:
    """Return the report of so many packets to a host."""
    counts = REST.pack(packets, packets * PACKET, NTP, PORT, UDP)
    return of.attacker.packed + host.packed + counts


def framed(number: int, body: bytes) -> bytes:
    """Return a set of the given number."""
    return SET.pack(number, SET.size + len(body)) + body


def messages(hosts: Sequence[Address], packets: int, sequence: int) -> Iterator[bytes]:
    """Yield the datagrams that report *packets* to each host since the last time.

    Args:
        hosts: who is attacked.
        packets: how many each one got.
        sequence: flows that were reported before.
    """
    for version, of in FAMILIES.items():
        those = [it for it in hosts if it.version == version]
        for first in range(0, len(those), MOST_RECORDS):
            part = those[first : first + MOST_RECORDS]
            records = b"".join(record(of, it, packets) for it in part)
            body = template(of) + framed(of.template, records)
            now, size = int(time.time()), MESSAGE.size + len(body)
            yield MESSAGE.pack(VERSION, size, now, sequence, DOMAIN) + body
            sequence += len(part)


def attack(
    to: tuple[str, int],
    hosts: Sequence[Address],
    pps: int,
    seconds: float,
    period: float,
) -> int:
    """Report an attack for so many seconds; return the number of flows reported."""
    packets = max(1, int(pps * period))
    end, sequence = time.monotonic() + seconds, 0
    family, kind, protocol, _, address = socket.getaddrinfo(
        *to, family=socket.AF_INET, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, kind, protocol) as out:
        while time.monotonic() < end:
            for message in messages(hosts, packets, sequence):
                out.sendto(message, address)
            sequence += len(hosts)
            time.sleep(period)
    return sequence


def main() -> None:
    """Report attacks, with pauses between them."""
    it = argparse.ArgumentParser(description=__doc__)
    it.add_argument("--to", default="127.0.0.1:2055", help="FastNetMon's HOST:PORT")
    it.add_argument(
        "--first",
        type=ip_address,
        action="append",
        help="the first address that is attacked; may be repeated",
    )
    it.add_argument("--hosts", type=int, default=5, help="how many, from --first on")
    it.add_argument("--pps", type=int, default=20_000, help="packets/s to each host")
    it.add_argument("--seconds", type=float, default=30, help="of one attack")
    it.add_argument("--period", type=float, default=0.1, help="between two reports")
    it.add_argument("--pause", type=float, default=60, help="seconds between attacks")
    it.add_argument("--rounds", type=int, default=1, help="attacks")
    given = it.parse_args()
    name, _, port = given.to.rpartition(":")
    first = given.first or [IPv4Address("203.0.113.10")]
    hosts = [start + number for start in first for number in range(given.hosts)]
    for number in range(given.rounds):
        if number:
            time.sleep(given.pause)
        sys.stderr.write(f"attack {number + 1}: {hosts[0]} to {hosts[-1]}\n")
        flows = attack((name, int(port)), hosts, given.pps, given.seconds, given.period)
        sys.stderr.write(f"over: {flows} flows reported\n")


if __name__ == "__main__":
    main()
