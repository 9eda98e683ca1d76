"""Let ExaBGP announce a blackhole for each ban, until its unban or for 15 minutes.

`mitigator` and `exabgp` do it better: a policy with a dry run, leases that status
updates renew, several sensors, routes that survive a restart, and a watchdog.
"""

import logging
import os
import select
import signal
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from threading import Lock, Thread
from time import monotonic

from consumers.simple import consume
from fnm_bus.event import AnyRecord, HostEvent

OWN_NETWORKS = [ip_network(text) for text in ("203.0.113.0/24", "2001:db8:1::/48")]
MAX_ROUTES, SECONDS = 100, 900.0
TAGS = " community [65535:666 65535:65281]"  # BLACKHOLE and NO_EXPORT
ATTRIBUTES = {4: "next-hop 192.0.2.1" + TAGS, 6: "next-hop 100::1" + TAGS}
lock, ends = Lock(), dict[str, float]()  # route: its end, by the monotonic clock


def handle(event: AnyRecord) -> None:
    """Announce or withdraw a route; a new consumer group gets old bans first."""
    if not isinstance(event, HostEvent) or event.action not in {"ban", "unban"}:
        return
    address = ip_address(event.ip)  # `consume` checks that it is canonical text
    route = f"route {address}/{address.max_prefixlen} {ATTRIBUTES[address.version]}"
    age = max(0.0, (datetime.now(UTC) - event.receipt.received_at).total_seconds())
    with lock:
        has_room = route in ends or len(ends) < MAX_ROUTES
        if event.action == "unban":
            if ends.pop(route, None) is not None:
                print("withdraw", route, flush=True)
        elif not has_room or not any(address in network for network in OWN_NETWORKS):
            logging.getLogger("blackhole").warning("%s: not announced", event.ip)
        elif age < SECONDS:
            ends[route] = monotonic() + SECONDS - age
            print("announce", route, flush=True)


def watch() -> None:
    """Withdraw old routes, and read ExaBGP's answers: otherwise it blocks."""
    try:
        while not select.select([0], [], [], 0.5)[0] or os.read(0, 1 << 16):
            with lock:
                for route in [key for key, end in ends.items() if end <= monotonic()]:
                    del ends[route]
                    print("withdraw", route, flush=True)
    finally:  # ExaBGP has ended, or this thread failed
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    print("clear adj-rib out", flush=True)  # the routes of a process that crashed
    Thread(target=watch, daemon=True).start()
    consume("blackhole-bans", handle, topics=["host"])
