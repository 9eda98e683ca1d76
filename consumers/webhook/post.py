"""Post: send one notice by HTTP, signed, and say what the answer means.

Neither the address nor the secret is ever shown: only the address's host is, since
the rest is a secret with Slack and others.
"""

import hashlib
import hmac
import time
from email.message import Message
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from fnm_bus import __version__
from fnm_bus.errors import ConfigError, FnmBusError

SIGNATURE: Final = "X-Fnm-Bus-Signature"
KEY: Final = "X-Fnm-Bus-Key"
_ANSWER: Final = 4096
_QUOTED: Final = 200
_SECRET: Final = 4
"""Parts of an address that are at least so long are left out of what is quoted."""
_AGAIN: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_SERVER_ERRORS: Final = 500
_REFUSALS: Final = 400


class Refused(FnmBusError):
    """The server will never take this notice."""

    exit_code = 65


class NotTaken(FnmBusError):
    """The server did not take a notice now.

    Attributes:
        after: seconds for which it asks us to wait, or None.
    """

    exit_code = 69
    retryable = True

    def __init__(self, why: str, after: float | None = None) -> None:
        self.after = after
        super().__init__(why)


class Letter(NamedTuple):
    """One notice to send.

    Attributes:
        key: names it; the same when it is sent again.
        title: what to call it in the log.
        body: JSON.
    """

    key: str
    title: str
    body: bytes


class _Stay(HTTPRedirectHandler):
    """Follows nobody: another host must not get what we signed."""

    def redirect_request(self, *_args: Any, **_named: Any) -> None:
        return None


class Post:
    """Sends one notice once.

    Args:
        url: where to; http or https, without user and password.
        secret: the key that signs, or None for no signature.
        timeout: seconds to connect, and for each part of the answer.

    Raises:
        ConfigError: the address cannot be used; the text does not show it.
    """

    def __init__(self, url: str, secret: bytes | None, timeout: float) -> None:
        self._url = url
        self._secret = secret
        self._timeout = timeout
        self.host = _host(url)
        self._opener: OpenerDirector | None = None

    def send(self, letter: Letter) -> None:
        """Send *letter* and wait for the answer.

        Raises:
            NotTaken: nobody answered, or the answer was 408, 429 or 5xx.
            Refused: any other answer that is not 2xx, redirects included.
        """
        self._opener = self._opener or build_opener(_Stay)
        request = Request(  # noqa: S310 - the scheme was looked at
            self._url, letter.body, self._headers(letter), method="POST"
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                answer.read1(_ANSWER)
        except HTTPError as exc:
            with exc:
                raise self._meaning(exc) from None
        except URLError as exc:
            raise NotTaken(f"{self.host}: {exc.reason}") from None
        except HTTPException as exc:  # may quote the address
            raise NotTaken(f"{self.host}: {type(exc).__name__}") from None
        except OSError as exc:
            raise NotTaken(f"{self.host}: {exc}") from None

    def _headers(self, letter: Letter) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"fnm-bus/{__version__}",
            KEY: letter.key,
        }
        if self._secret is not None:
            headers[SIGNATURE] = signature(letter.body, self._secret)
        return headers

    def _meaning(self, answer: HTTPError) -> NotTaken | Refused:
        code = answer.code
        if code in _AGAIN or code >= _SERVER_ERRORS:
            after = retry_after(answer.headers)
            return NotTaken(f"{self.host}: {code}{self._quote(answer)}", after)
        if code < _REFUSALS:
            there = urlsplit(answer.headers.get("Location", "")).hostname
            elsewhere = f" to {there}" if there else ""
            text = f"{self.host}: {code}, a redirect{elsewhere}; none is followed"
            return Refused(f"{text}: set url to where notices shall go")
        return Refused(f"{self.host}: {code}{self._quote(answer)}")

    def _quote(self, answer: HTTPError) -> str:
        try:
            found = answer.read(_ANSWER).decode("utf-8", "replace")
        except (OSError, HTTPException):
            return ""
        text = " ".join(_without(found, self._url).split())
        return f": {text[:_QUOTED]}" if text else ""


def signature(content: bytes, secret: bytes) -> str:
    """Return the value of the signature's header."""
    return f"sha256={hmac.new(secret, content, hashlib.sha256).hexdigest()}"


def secret_of(path: Path, setting: str) -> str:
    """Return what stands in a file with a secret, without blanks around it.

    Raises:
        ConfigError: it cannot be read, or is empty; the text names *setting*.
    """
    try:
        found = path.read_text("utf-8").strip()
    except OSError as exc:
        # The secret itself may stand in the place of a file's name.
        place = path if path.is_absolute() else "not an absolute path"
        raise ConfigError(f"{setting}: {place}: {exc.strerror}") from None
    except UnicodeDecodeError:  # the error would quote the secret
        raise ConfigError(f"{setting}: {path}: no UTF-8") from None
    if not found:
        raise ConfigError(f"{setting}: {path} is empty")
    return found


def retry_after(headers: Message) -> float | None:
    """Return the seconds that Retry-After asks for, in either form, or None."""
    text = (headers.get("Retry-After") or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:10])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _host(url: str) -> str:
    wanted = "wanted an address such as https://example.net/hook"
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:  # of which what idna says is one
        raise ConfigError(f"[consumers.webhook] url: {wanted}") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigError(f"[consumers.webhook] url: {wanted}")
    if parts.username is not None:
        raise ConfigError(f"[consumers.webhook] url: {wanted}, without a user")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ConfigError(f"[consumers.webhook] url: {wanted}, without odd characters")
    return host


def _without(text: str, url: str) -> str:
    """Return *text* without what an address says besides its host."""
    parts = urlsplit(url)
    whole = (parts.path, parts.query)
    found = {*whole, *parts.path.split("/"), *parts.query.replace("=", "&").split("&")}
    spelled = {form(it) for it in found for form in (str, quote, unquote)}
    for it in sorted(spelled, key=len, reverse=True):
        if len(it) >= _SECRET:
            text = text.replace(it, "…")
    return text
