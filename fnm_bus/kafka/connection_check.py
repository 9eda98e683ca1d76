"""Find out whether a broker serves a client with these settings and, if not, why.

librdkafka reports the same error for an unknown certificate authority and for a wrong
host name. It reports none to a plain-text client of a TLS port. This module therefore
makes a TLS handshake of its own.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fnm_bus.errors import BrokerUnavailable, ConnectionRejected
from fnm_bus.kafka.client import ConnectionState, build_admin, metadata

_WITHIN: Final = 5.0
"""Seconds for the brokers' answer."""
_HANDSHAKE: Final = 3.0
"""Seconds for each handshake."""
_OTHER_NAME: Final = frozenset({62, 64})
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21, 27})
"""OpenSSL's codes for a chain that leads to no trusted certificate."""
_PORT: Final = 9092


def check_connection(settings: Mapping[str, str]) -> None:
    """Make sure that a broker serves a client with *settings*.

    Raises:
        ConfigError: librdkafka refuses the settings.
        BrokerUnavailable: no broker is reachable, or the broker does not answer.
        ConnectionRejected: TLS or SASL settings are wrong; the text names the setting.
    """
    state = ConnectionState(settings)
    client = build_admin(settings, state)
    try:
        metadata(client, None, state, is_new=True, timeout=_WITHIN)
    except BrokerUnavailable as exc:
        raise _diagnose(settings, exc) or exc from exc


def _diagnose(
    settings: Mapping[str, str], error: BrokerUnavailable
) -> ConnectionRejected | None:
    """Return a more precise error than librdkafka's, or None."""
    protocol = settings.get("security.protocol", "plaintext").lower()
    if not protocol.endswith("ssl"):
        faults = (_tls_fault(protocol, *address) for address in _addresses(settings))
    elif "certificate verify failed" in str(error):
        faults = (
            _certificate_fault(settings, *address) for address in _addresses(settings)
        )
    elif protocol == "ssl" and not isinstance(error, ConnectionRejected):
        faults = (_closed_connection(*address) for address in _addresses(settings))
    else:
        return None
    return next((ConnectionRejected(text) for text in faults if text), None)


def _closed_connection(host: str, port: int) -> str:
    if not _accepts_tls(host, port):
        return ""
    return (
        f"{host}:{port}: the TLS handshake succeeds, and the broker closes the"
        ' connection: if the listener is SASL_SSL, set "security.protocol" ='
        ' "SASL_SSL" in [kafka]'
    )


def _tls_fault(protocol: str, host: str, port: int) -> str:
    if not _accepts_tls(host, port):
        return ""
    remedy = "SASL_SSL" if protocol.startswith("sasl") else "SSL or SASL_SSL"
    return (
        f'{host}:{port}: this port uses TLS, and "security.protocol" ='
        f' "{protocol.upper()}" does not: set {remedy} in [kafka], or correct the port'
    )


def _certificate_fault(settings: Mapping[str, str], host: str, port: int) -> str:
    try:
        context = _context(settings)
    except (OSError, ssl.SSLError) as exc:
        location = settings.get("ssl.ca.location", "the system's certificates")
        return f'"ssl.ca.location": {location}: {exc}'
    try:
        _handshake(context, host, port)
    except ssl.SSLCertVerificationError as exc:
        return _explain_certificate(exc, context, host, port)
    except OSError:
        return ""
    return ""


def _explain_certificate(
    error: ssl.SSLCertVerificationError,
    context: ssl.SSLContext,
    host: str,
    port: int,
) -> str:
    address = f"{host}:{port}"
    if error.verify_code in _OTHER_NAME:
        context.check_hostname = False
        try:
            names = _handshake(context, host, port)
        except OSError:
            names = ""
        return (
            f"{address}: wrong host name: the broker's certificate is for"
            f' {names or "other names"}; use such a name in "bootstrap.servers" and in'
            " the broker's advertised.listeners, or give the broker another certificate"
        )
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return (
            f"{address}: unknown certificate authority: {error.verify_message}; set"
            ' "ssl.ca.location" in [kafka] to the certificate of the authority that'
            " signed the broker's"
        )
    return f"{address}: the broker's certificate: {error.verify_message}"


def _accepts_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _handshake(context, host, port)
    except OSError:
        return False
    return True


def _handshake(context: ssl.SSLContext, host: str, port: int) -> str:
    """Make a TLS connection; return the certificate's names, as far as verified."""
    with (
        socket.create_connection((host, port), timeout=_HANDSHAKE) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        certificate = connection.getpeercert() or {}
        names = certificate.get("subjectAltName", ())
        return ", ".join(str(pair[1]) for pair in names)


def _context(settings: Mapping[str, str]) -> ssl.SSLContext:
    """Return a context with the same trusted certificates as librdkafka."""
    location = settings.get("ssl.ca.location")
    if location in {None, "", "probe"}:
        return ssl.create_default_context(cadata=settings.get("ssl.ca.pem"))
    if Path(str(location)).is_dir():
        return ssl.create_default_context(capath=location)
    return ssl.create_default_context(cafile=location)


def _addresses(settings: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Yield host and port of each bootstrap server."""
    servers = settings.get(
        "bootstrap.servers", settings.get("metadata.broker.list", "")
    )
    for server in filter(None, (text.strip() for text in servers.split(","))):
        host, colon, port = server.rpartition("://")[2].rpartition(":")
        if not colon:
            host, port = port, str(_PORT)
        if port.isdigit():
            yield host.strip("[]"), int(port)
