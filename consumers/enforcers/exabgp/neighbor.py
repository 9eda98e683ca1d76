"""The state of the BGP session, from ExaBGP's listing and from its events."""

from typing import Final, NamedTuple

import msgspec

COMMAND: Final = "show neighbor json"
"""The command whose answer is one line for `parse_listing`."""


class Neighbor(NamedTuple):
    """The BGP session.

    Attributes:
        up: whether the session is established.
        reason: the reason that it is down, in ExaBGP's words, or "".
    """

    up: bool
    reason: str = ""


class NeighborStatus(NamedTuple):
    """An answer to `COMMAND`."""

    up: bool
    sent: int


def parse_listing(line: bytes) -> NeighborStatus:
    """Return the status in an answer to `COMMAND`.

    Raises:
        ValueError: *line* is not such an answer, or lists several neighbors.
    """
    try:
        (neighbor,) = msgspec.json.decode(line, type=tuple[_Listed])
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc
    # The field "state" is down during the first second of a session.
    return NeighborStatus(neighbor.fsm == "ESTABLISHED", neighbor.messages.sent.update)


def parse_event(line: bytes) -> Neighbor | None:
    """Return the session after an event; None for an event of another kind.

    A new connection without an established session is another event.
    """
    try:
        neighbor = msgspec.json.decode(line, type=_Event).neighbor
    except (msgspec.MsgspecError, ValueError, RecursionError):  # also invalid UTF-8
        return None
    if neighbor.state not in {"up", "down"}:
        return None
    return Neighbor(neighbor.state == "up", neighbor.reason)


class _Sent(msgspec.Struct, frozen=True):
    update: int = 0


class _Messages(msgspec.Struct, frozen=True):
    sent: _Sent = _Sent()


class _Listed(msgspec.Struct):
    fsm: str
    messages: _Messages = _Messages()


class _NeighborEvent(msgspec.Struct):
    state: str = ""
    reason: str = ""


class _Event(msgspec.Struct):
    neighbor: _NeighborEvent
