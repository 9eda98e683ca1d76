"""Print each ban with its size.

`jsonlines` does it better: it writes all fields of every event to a file, commits
an event when its line is on disk, and survives log rotation and a full disk.
"""

from consumers.simple import consume
from fnm_bus.event import AnyRecord, HostEvent
from fnm_bus.ops.terminal import visible


def handle(event: AnyRecord) -> None:
    """Print one event; a failed call is repeated, and an event may repeat."""
    if not isinstance(event, HostEvent) or event.action != "ban":
        return
    details = event.attack_details
    pps = details.total_incoming_pps if details else None
    line = f"{event.ip} {pps or 0:,} packets/s {event.receipt.event_id}"
    print(visible(line), flush=True)


if __name__ == "__main__":
    consume("print-bans", handle, topics=["host"])
