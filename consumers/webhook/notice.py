"""Notice: what people are told, as a document that programs can read too.

docs/reference/notice.md describes every field. `body` makes the bytes of it that are
sent, for our own reader or for Slack.
"""

import hashlib
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from consumers.webhook.bulletin import CONTINUES, Bulletin
from consumers.webhook.notice_fields import Notice, counted
from consumers.webhook.notice_text import text, title

SLACK: Final = "slack"
_HEADER: Final = 150
_SECTION: Final = 3000
"""Characters that Slack takes: its reference of Block Kit, header and text object."""
_ESCAPED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def notice_of(bulletin: Bulletin[Any], at: datetime) -> Notice:
    """Return the notice of a bulletin, made at *at* (UTC).

    Its key is made of what is the same when the same changes are read again.
    """
    notice = counted(bulletin, at)
    first = bulletin.first
    storm = (*bulletin.group, first.key, first.created_at, bulletin.again)
    mark = bulletin.mark if bulletin.status == CONTINUES else ()
    return replace(
        notice,
        storm=_digest(storm),
        key=_digest((*storm, bulletin.status, *mark)),
        title=title(notice),
        text=text(notice),
    )


def body(notice: Notice, template: str) -> bytes:
    """Return what is sent: JSON, of the form that *template* (json or slack) names."""
    return msgspec.json.encode(slack(notice) if template == SLACK else notice)


def slack(notice: Notice) -> dict[str, object]:
    """Return the notice as Slack's incoming webhooks take it."""
    return {
        "text": escaped(f"{notice.title}\n{notice.text}", _SECTION),
        "blocks": [
            {
                "type": "header",
                "text": {
                    "type": "plain_text",
                    "text": escaped(notice.title, _HEADER),
                    "emoji": False,
                },
            },
            {
                "type": "section",
                "text": {
                    "type": "mrkdwn",
                    "text": escaped(notice.text, _SECTION),
                    # Names must not become links, mentions or channels.
                    "verbatim": True,
                },
            },
            {
                "type": "context",
                "elements": [
                    {
                        "type": "plain_text",
                        "text": f"storm {notice.storm}, notice {notice.key}",
                    }
                ],
            },
        ],
    }


def escaped(line: str, limit: int) -> str:
    """Return *line* escaped as Slack asks, in at most *limit* characters.

    No escape is cut in two; what was cut ends in an ellipsis.
    """
    parts = [_ESCAPED.get(it, it) for it in line]
    length = sum(map(len, parts))
    if length <= limit:
        return "".join(parts)
    while length >= limit:
        length -= len(parts.pop())
    return "".join(parts) + "…"


def _digest(parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]
