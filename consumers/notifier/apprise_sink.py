"""A sink for each service that Apprise knows: chat, paging, mail."""

import logging
from typing import Final

from consumers.notifier.sink import OutgoingNotice, SinkUnavailable
from consumers.storms.update import ENDED, RESUMED
from fnm_bus.errors import ConfigError

log = logging.getLogger("apprise")

try:
    import apprise
except ImportError:  # the extra `notify` is not installed
    apprise = None  # type: ignore[assignment]

_DEFAULTS: Final = {"overflow": "truncate", "image": "no"}
"""Parameters of every address: a longer text would be refused; no foreign image."""
_SERVICES: Final = {"pagerduty": {"action": "map", "dedup": "{storm}"}}
"""Parameters of a service: one incident for each storm, resolved at its end."""


class AppriseSink:
    """Sends the text of a notice to one Apprise address.

    Args:
        url: the address; `{storm}` in it is replaced by the key of the storm.
        timeout: seconds to connect, and for the answer.

    Raises:
        ConfigError: the extra `notify` is not installed, or the address is invalid or
            has several targets; the text contains only its scheme.
    """

    renews = False

    def __init__(self, url: str, timeout: float, setting: str) -> None:
        self.name = url.partition("://")[0] if "://" in url else "unknown"
        if apprise is None:
            raise ConfigError(f"{setting}: install the extra: fnm-bus[notify]")
        own = _SERVICES.get(self.name, {})
        timeouts = {"cto": str(timeout), "rto": str(timeout)}
        for key, value in {**_DEFAULTS, **own, **timeouts}.items():
            if f"?{key}=" not in url and f"&{key}=" not in url:
                url += f"{'&' if '?' in url else '?'}{key}={value}"
        self._url = url
        # Messages about an invalid address contain its keys, debug messages the rest.
        log.setLevel(logging.CRITICAL)
        service = self._service("0")
        log.setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.WARNING)
        if service is None:
            raise ConfigError(f"{setting}: invalid address of {self.name!r:.40}")
        if len(service) > 1:  # a retry would send the notice to all of them again
            raise ConfigError(
                f"{setting}: an address of {self.name!r:.40} has several targets; write"
                " one address for each target"
            )

    def send(self, outgoing: OutgoingNotice) -> None:
        """Send one notice; Apprise logs the reason of a failure."""
        notice = outgoing.notice
        is_end = notice.status in (ENDED, RESUMED)
        kind = apprise.NotifyType.SUCCESS if is_end else apprise.NotifyType.WARNING
        try:
            service = self._service(notice.storm)
            is_sent = service is not None and service.notify(
                body=notice.text,
                title=notice.title,
                notify_type=kind,
                body_format=apprise.NotifyFormat.TEXT,
            )
        except Exception as exc:  # noqa: BLE001 - a service may raise any
            # Its text may contain the address.
            raise SinkUnavailable(f"{self.name}: {type(exc).__name__}") from None
        if not is_sent:
            raise SinkUnavailable(f"{self.name}: not delivered")

    def _service(self, storm: str) -> "apprise.NotifyBase | None":
        """Return a new service of Apprise: a used one would pause between notices."""
        return apprise.Apprise.instantiate(
            self._url.replace("{storm}", storm),
            asset=apprise.AppriseAsset(app_id="fnm-bus"),
        )
