#!/usr/bin/env python3
"""Tell a FastNetMon of an attack that there is not, by NetFlow version 5.

What is sent are a few datagrams a second, which report one: each of the hosts seems to
receive UDP packets of 1,400 bytes from port 123, as in an amplification attack by NTP.
It ends by itself.
"""

import argparse
import socket
import struct
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

# Cisco's "NetFlow Export Datagram Format", version 5.
HEADER = struct.Struct(">HHIIIIBBH")
RECORD = struct.Struct(">4s4s4sHHIIIIHHxBBBHHBBxx")
VERSION, MOST_RECORDS, UDP, NTP = 5, 30, 17, 123
PACKET = 1_400
PERIOD = 0.25
"""Seconds between two reports."""


def datagrams(
    hosts: list[IPv4Address], packets: int, now: float, began: float, sequence: int
) -> Iterator[bytes]:
    """Yield one report of *packets* to each of *hosts* in the last `PERIOD` seconds.

    Args:
        hosts: who is attacked.
        packets: how many each one got.
        now: Unix time.
        began: Unix time at which the router that reports was started.
        sequence: flows that were reported before.
    """
    up = int((now - began) * 1000)
    since = max(0, up - int(PERIOD * 1000))
    for first in range(0, len(hosts), MOST_RECORDS):
        part = hosts[first : first + MOST_RECORDS]
        seconds, rest = divmod(now, 1)
        head = (VERSION, len(part), up, int(seconds), int(rest * 1e9))
        records = (
            RECORD.pack(
                source(number).packed,
                host.packed,
                bytes(4),  # next hop
                1,  # interfaces: in,
                2,  # out
                packets,
                packets * PACKET,
                since,
                up,
                NTP,
                40_000 + number % 1_000,
                0,  # TCP's flags
                UDP,
                0,  # type of service
                0,  # autonomous systems: source,
                0,  # destination
                24,  # their masks
                24,
            )
            for number, host in enumerate(part, first)
        )
        yield HEADER.pack(*head, sequence + first, 0, 0, 0) + b"".join(records)


def source(number: int) -> IPv4Address:
    """Return the address that attacks the host *number*."""
    return IPv4Address("198.51.100.1") + number % 250


def attack(
    to: tuple[str, int], hosts: list[IPv4Address], pps: int, seconds: float
) -> int:
    """Report an attack for so many seconds; return the number of flows reported."""
    packets = max(1, int(pps * PERIOD))
    began = time.time() - 60
    end, sequence = time.monotonic() + seconds, 0
    family, kind, protocol, _, address = socket.getaddrinfo(
        *to, family=socket.AF_INET, type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, kind, protocol) as out:
        while time.monotonic() < end:
            for datagram in datagrams(hosts, packets, time.time(), began, sequence):
                out.sendto(datagram, address)
            sequence += len(hosts)
            time.sleep(PERIOD)
    return sequence


def main() -> None:
    """Report attacks, with pauses between them."""
    it = argparse.ArgumentParser(description=__doc__)
    it.add_argument("--to", default="127.0.0.1:2055", help="FastNetMon's HOST:PORT")
    it.add_argument("--first", type=IPv4Address, default="203.0.113.10")
    it.add_argument("--hosts", type=int, default=5, help="how many, from --first on")
    it.add_argument("--pps", type=int, default=20_000, help="packets/s to each host")
    it.add_argument("--seconds", type=float, default=30, help="of one attack")
    it.add_argument("--pause", type=float, default=60, help="seconds between attacks")
    it.add_argument("--rounds", type=int, default=1, help="attacks")
    given = it.parse_args()
    name, _, port = given.to.rpartition(":")
    hosts = [given.first + number for number in range(given.hosts)]
    for number in range(given.rounds):
        if number:
            time.sleep(given.pause)
        sys.stderr.write(f"attack {number + 1}: {hosts[0]} to {hosts[-1]}\n")
        flows = attack((name, int(port)), hosts, given.pps, given.seconds)
        sys.stderr.write(f"over: {flows} flows reported\n")


if __name__ == "__main__":
    main()
