"""Post one message per ban to the chat webhook in CHAT_WEBHOOK_URL, such as Slack's.

`notifier` does it better: it sends one notice for a storm of a thousand bans, signs it,
reports started and ended mitigations, and also knows Alertmanager, Teams and mail.
"""

import os
from datetime import UTC, datetime, timedelta

import httpx2

from consumers.simple import consume
from fnm_bus.consume.handler import RetryLater
from fnm_bus.event import AnyRecord, HostEvent

ADDRESS = os.environ["CHAT_WEBHOOK_URL"]  # without it the program ends at its start
MAX_AGE = timedelta(hours=1)
"""Older bans are not posted: a new consumer group starts with the oldest record."""


def handle(event: AnyRecord) -> None:
    """Post one event; a ban may be posted twice after a crash."""
    if not isinstance(event, HostEvent) or event.action != "ban":
        return
    if datetime.now(UTC) - event.receipt.received_at > MAX_AGE:
        return
    details = event.attack_details
    pps = details.total_incoming_pps if details else None
    post(f"FastNetMon banned {event.ip} ({pps or 0:,} packets/s)")


def post(text: str) -> None:
    """Post a text. No error quotes the address, because the address is a secret.

    Raises:
        RetryLater: the chat is unreachable or busy; the partition waits.
        RuntimeError: the chat refused the text; a dead letter after a few attempts.
    """
    try:
        response = httpx2.post(ADDRESS, json={"text": text}, timeout=10)
    except httpx2.TransportError as exc:
        raise RetryLater(f"chat: {type(exc).__name__}") from None
    status = response.status_code
    if status == httpx2.codes.TOO_MANY_REQUESTS or response.is_server_error:
        raise RetryLater(f"chat: status {status}")
    if not response.is_success:
        raise RuntimeError(f"chat: status {status}")


if __name__ == "__main__":
    consume("post-bans", handle, topics=["host"])
