"""Size of an attack: packets/s and bit/s in the direction of the attack."""

from typing import Final

from fnm_bus.event import AttackDetails, Event, HostEvent

MAX_SIZE: Final = 2**63 - 1
"""Largest number in a record, and the bound of sizes."""

_DIRECTIONS: Final = ("incoming", "outgoing")


def direction_of(event: Event) -> str:
    """Return the direction of the attack, lower case, or "".

    FastNetMon reports it in up to three fields. The first that is incoming or outgoing
    counts; else the first that is not empty.
    """
    details = event.attack_details or AttackDetails()
    mode = event.text_mode if isinstance(event, HostEvent) else None
    words = [
        # attack_direction is deprecated since 2022; its successor comes first.
        (details.attack_detection_threshold_direction or "").lower(),
        (details.attack_direction or "").lower(),
        mode.direction.lower() if mode else "",
    ]
    certain = (word for word in words if word in _DIRECTIONS)
    return next(certain, "") or next(filter(None, words), "")


def pps_of(event: Event, direction: str) -> int | None:
    """Return packets/s in a direction, or None when they are not in the event.

    If the direction is neither incoming nor outgoing: the larger of the two. A call in
    text mode has the attack's power as an argument, which counts if the report has no
    size.
    """
    details = event.attack_details or AttackDetails()
    sizes = {name: getattr(details, f"total_{name}_pps") for name in _DIRECTIONS}
    mode = event.text_mode if isinstance(event, HostEvent) else None
    size = _size_in(sizes, direction)
    return size if size is not None or mode is None else mode.power_pps


def bits_of(event: Event, direction: str) -> int | None:
    """Return bit/s in a direction, or None; older versions send bytes/s only."""
    details = event.attack_details or AttackDetails()
    sizes: dict[str, int | None] = {}
    for name in _DIRECTIONS:
        bits = getattr(details, f"total_{name}_traffic_bits")
        octets = getattr(details, f"total_{name}_traffic")
        if bits is None and octets is not None:
            bits = min(octets * 8, MAX_SIZE)
        sizes[name] = bits
    return _size_in(sizes, direction)


def _size_in(sizes: dict[str, int | None], direction: str) -> int | None:
    if direction in sizes:
        return sizes[direction]
    return max((size for size in sizes.values() if size is not None), default=None)
