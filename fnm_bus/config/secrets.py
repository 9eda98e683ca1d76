"""Secrets: settings that may hold one, and texts without secrets.

A setting of the families `sasl.` and `ssl.` counts as a secret unless it is listed here
as harmless: librdkafka adds settings, and a misspelt name still has a secret value.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

MASK: Final = "********"

_FAMILIES: Final = ("sasl.", "ssl.", "https.", "basic.auth.", "bearer.auth.")
_HARMLESS: Final = frozenset(
    {
        "basic.auth.credentials.source",
        "bearer.auth.credentials.source",
        "bearer.auth.identity.pool.id",
        "bearer.auth.issuer.endpoint.url",
        "bearer.auth.logical.cluster",
        "bearer.auth.scope",
        "https.ca.location",
        "sasl.kerberos.keytab",
        "sasl.kerberos.min.time.before.relogin",
        "sasl.kerberos.principal",
        "sasl.kerberos.service.name",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.oauthbearer.client.id",
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.scope",
        "sasl.oauthbearer.token.endpoint.url",
        "sasl.username",
        "ssl.ca.certificate.stores",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.cipher.suites",
        "ssl.crl.location",
        "ssl.curves.list",
        "ssl.endpoint.identification.algorithm",
        "ssl.key.location",
        "ssl.keystore.location",
        "ssl.sigalgs.list",
    }
)
_WORDS: Final = re.compile(
    r"(?i)passw|passphrase|secret|token|credential|private|jaas|user\.info|proxy|kinit"
    r"|(^|[._-])pem$|api[._-]?key"
)
_USER_INFO: Final = re.compile(r"//[^/@\s]*@")
_SHORTEST: Final = 4
"""Characters; a shorter value occurs in many words and is not masked."""


def is_secret(name: str) -> bool:
    """Return whether a setting of librdkafka or the registry may hold a secret."""
    if name in _HARMLESS:
        return False
    return name.startswith(_FAMILIES) or _WORDS.search(name) is not None


def without_user_info(text: str) -> str:
    """Return *text* with `//user:password@` of each address masked."""
    return _USER_INFO.sub(f"//{MASK}@", text)


def without_secrets(text: str, settings: Mapping[str, Any]) -> str:
    """Return *text* without the secrets among the values of *settings*."""
    values = (
        str(value)
        for name, value in settings.items()
        if is_secret(name) and isinstance(value, str)
    )
    # The longest first: one secret may contain another.
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, MASK)
    return without_user_info(text)
