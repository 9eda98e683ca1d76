"""Events and bytes as values of JSON."""

import base64
from typing import Any

import msgspec

from fnm_bus.event import AnyRecord


def event_as_json(event: AnyRecord) -> dict[str, Any]:
    """Return an event as JSON values: times by RFC 3339, bytes in Base64."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    return fields


def bytes_as_text(raw: bytes | None) -> str | None:
    """Return bytes as text; other bytes than UTF-8 as `base64:` and Base64."""
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()


def headers_as_text(pairs: tuple[tuple[str, bytes], ...]) -> dict[str, str]:
    """Return a record's headers as `bytes_as_text` does."""
    return {name: bytes_as_text(value) or "" for name, value in pairs}
