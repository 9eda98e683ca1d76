"""What ExaBGP tells of the BGP session, asked and unasked."""

from typing import Final, NamedTuple

import msgspec

ASK: Final = "show neighbor json"
"""The command that is answered by one line for `figures`."""


class Neighbor(NamedTuple):
    """The BGP session.

    Attributes:
        up: whether it is established.
        since: since when that is known, in seconds of `snapshot.now`.
        reason: why it is down, in ExaBGP's words, or "".
    """

    up: bool
    since: float
    reason: str


class NeighborFigures(NamedTuple):
    """What an answer tells.

    Attributes:
        up: whether the session is established.
        sent: UPDATEs that were sent so far.
    """

    up: bool
    sent: int


def figures(line: bytes) -> NeighborFigures:
    """Return what the answer to `ASK` tells.

    Raises:
        ValueError: it is none, or of several neighbors.
    """
    try:
        (it,) = msgspec.json.decode(line, type=tuple[_Listed])
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc
    # Its own "state" is down in the first second of a session.
    return NeighborFigures(it.fsm == "ESTABLISHED", it.messages.sent.update)


def change(line: bytes) -> tuple[bool, str] | None:
    """Return whether the session is up, and the reason; None: the line is not of that.

    A connection that is made, and is no session yet, is none.
    """
    try:
        it = msgspec.json.decode(line, type=_News).neighbor
    except (msgspec.MsgspecError, ValueError, RecursionError):  # also what is no text
        return None
    return (it.state == "up", it.reason) if it.state in {"up", "down"} else None


class _Sent(msgspec.Struct, frozen=True):
    update: int = 0


class _Messages(msgspec.Struct, frozen=True):
    sent: _Sent = _Sent()


class _Listed(msgspec.Struct):
    fsm: str
    messages: _Messages = _Messages()


class _Changed(msgspec.Struct):
    state: str = ""
    reason: str = ""


class _News(msgspec.Struct):
    neighbor: _Changed
