"""Sinks by HTTP: signed JSON, and Alertmanager's API.

Only the host of an address is logged: the rest may be a secret.
"""

import hashlib
import hmac
import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote

import httpx2
import msgspec

from consumers.mitigation.clock import now as boottime
from consumers.notifier.sink import NoticeRefused, OutgoingNotice, SinkUnavailable
from consumers.storms.update import PAUSED, RESUMED
from fnm_bus import __version__
from fnm_bus.errors import ConfigError

SIGNATURE: Final = "X-Fnm-Bus-Signature"
KEY: Final = "X-Fnm-Bus-Key"
_EXCERPT: Final = 200
_MIN_SECRET: Final = 4
"""Parts of an address from this length on may be secrets."""
_RETRIED: Final = frozenset({408, 429})


class HttpClient:
    """Posts JSON to one address.

    Args:
        url: http or https, without user and password.
        timeout: seconds to connect, and for each part of the answer.

    Raises:
        ConfigError: the address is invalid; the text does not contain it.
    """

    def __init__(self, url: str, timeout: float, setting: str) -> None:
        if not _is_valid(url):
            raise ConfigError(
                f"{setting}: invalid address; expected one such as"
                " https://example.net/hook, without user and password"
            )
        self._url = httpx2.URL(url)
        self.host = self._url.host
        address = unquote(self._url.raw_path.decode()).replace("?", "/")
        parts = address.replace("&", "/").replace("=", "/").split("/")
        self._secrets = [part for part in parts if len(part) >= _MIN_SECRET]
        # Redirects are not followed: another host must not get a signed notice.
        self._client = httpx2.Client(
            timeout=timeout,
            headers={
                # An excerpt of an answer needs no compression.
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": f"fnm-bus/{__version__}",
            },
        )

    def post(self, body: bytes, headers: dict[str, str]) -> None:
        """Post *body*.

        Raises:
            SinkUnavailable: no answer, or 408, 429 or 5xx.
            NoticeRefused: any other answer that is not 2xx, redirects included.
        """
        try:
            with self._client.stream(
                "POST", self._url, content=body, headers=headers
            ) as response:
                if not response.is_success:
                    raise self._error(response)
        except httpx2.RequestError as exc:
            fault = f"{type(exc).__name__}{self._excerpt(str(exc))}"
            raise SinkUnavailable(f"{self.host}: {fault}") from None

    def _error(self, response: httpx2.Response) -> SinkUnavailable | NoticeRefused:
        code = response.status_code
        if response.is_redirect:
            return NoticeRefused(
                f"{self.host}: status {code}, a redirect; set the final address"
            )
        content = next(response.iter_bytes(), b"")  # of a slow body the first part
        text = f"{self.host}: status {code}"
        text += self._excerpt(content.decode("utf-8", "replace"))
        if code in _RETRIED or response.is_server_error:
            return SinkUnavailable(text, retry_after(response.headers))
        return NoticeRefused(text)

    def _excerpt(self, text: str) -> str:
        """Return the begin of an answer, or nothing if it may contain a secret."""
        plain = unquote(text)
        if not plain.strip() or any(secret in plain for secret in self._secrets):
            return ""
        return f": {' '.join(text.split())[:_EXCERPT]}"


class WebhookSink:
    """Sends a notice as JSON, signed if there is a secret."""

    renews = False

    def __init__(self, client: HttpClient, secret: bytes | None) -> None:
        self.name = client.host
        self._client = client
        self._secret = secret

    def send(self, outgoing: OutgoingNotice) -> None:
        """Send one notice."""
        headers = {KEY: outgoing.notice.key}
        if self._secret is not None:
            digest = hmac.new(self._secret, outgoing.body, hashlib.sha256).hexdigest()
            headers[SIGNATURE] = f"sha256={digest}"
        self._client.post(outgoing.body, headers)


class AlertmanagerSink:
    """Sends a storm as one alert, which resolves at the end of the last lease.

    The labels of a storm never change, so that Alertmanager sees one alert. Times are
    those of this machine: only the rest of the lease is taken from the storm.
    """

    renews = True

    def __init__(self, client: HttpClient) -> None:
        self.name = client.host
        self._client = client

    def send(self, outgoing: OutgoingNotice) -> None:
        """Send one alert."""
        self._client.post(msgspec.json.encode([alert_of(outgoing)]), {})


def alert_of(outgoing: OutgoingNotice) -> dict[str, object]:
    """Return a storm as Alertmanager's API v2 expects it, as of now."""
    notice, now = outgoing.notice, datetime.now(UTC)
    is_pause = notice.status in (PAUSED, RESUMED)
    labels = {
        "alertname": "FnmBusMitigationsPaused" if is_pause else "FnmBusStorm",
        "storm": notice.storm,
    }
    if notice.group.name:
        labels[notice.group.kind] = notice.group.name
    ends_at = now + timedelta(seconds=outgoing.ends_at - boottime())
    starts_at = min(now - timedelta(seconds=notice.seconds), ends_at)
    return {
        "labels": labels,
        "annotations": {"summary": notice.title, "description": notice.text},
        "startsAt": starts_at.isoformat(),
        "endsAt": ends_at.isoformat(),
    }


def _is_valid(url: str) -> bool:
    try:
        parts = httpx2.URL(url)
        parts.host.encode("idna")
    except (httpx2.InvalidURL, ValueError):
        return False
    is_web = parts.scheme in {"http", "https"} and parts.host != ""
    is_plain = url.isascii() and url.isprintable() and " " not in url
    return is_web and is_plain and not parts.userinfo


def retry_after(headers: httpx2.Headers) -> float | None:
    """Return the seconds of Retry-After, in either form, or None."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:10])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
