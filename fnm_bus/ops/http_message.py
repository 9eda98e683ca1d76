"""Requests and responses of HTTP/1.1, as far as `http_server` needs them."""

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

MAX_REQUEST: Final = 8192
"""Bytes of a request line with its headers."""


async def read_head(
    loop: asyncio.AbstractEventLoop, client: socket.socket
) -> Sequence[str]:
    """Return the lines of a request up to the empty one.

    Raises:
        ValueError: more than `MAX_REQUEST` bytes.
        EOFError: the client closed the connection before.
    """
    received = b""
    while part := await loop.sock_recv(client, MAX_REQUEST):
        received += part
        if len(received) > MAX_REQUEST:
            raise ValueError(f"more than {MAX_REQUEST} bytes")
        # RFC 9112, section 2.2: a line may end without CR, and empty lines before a
        # request are ignored.
        text = received.decode("latin-1").replace("\r\n", "\n").lstrip("\n")
        head, end, _ = text.partition("\n\n")
        if end:
            return head.split("\n")
    raise EOFError("closed within a request")


def header_fields(lines: Iterable[str]) -> Mapping[str, str]:
    """Return header fields by their name in lower case."""
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def response(
    status: str,
    headers: Sequence[tuple[str, str]] = (("Content-Type", "text/plain"),),
    body: bytes | None = None,
    *,
    with_body: bool = True,
) -> bytes:
    """Return a whole response; without *body* the status is the body."""
    content = f"{status}\n".encode() if body is None else body
    length, close = ("Content-Length", str(len(content))), ("Connection", "close")
    lines = [f"{name}: {value}" for name, value in (*headers, length, close)]
    head = "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1")
    return head + content if with_body else head
