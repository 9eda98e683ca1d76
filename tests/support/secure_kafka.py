"""Apache Kafka with SASL_SSL, SCRAM-SHA-512 and the standard authorizer."""

import subprocess
from pathlib import Path

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not in its __all__
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from fnm_bus.kafka.access import Right
from support.kafka import Cluster
from support.process import free_port, wait_until

USERS = (
    "relay",
    "mitigator",
    "exabgp",
    "nftables",
    "notifier",
    "jsonlines",
    "operator",
    "admin",
    "nobody",
)
PASSWORD = "s3cret-of-"  # noqa: S105 - of a broker that ends with the tests
"""The password of a user is this and the name."""
_KINDS = {
    "Topic": ResourceType.TOPIC,
    "Group": ResourceType.GROUP,
    "TransactionalId": ResourceType.TRANSACTIONAL_ID,
}
HOST = "localhost"
"""The only name in the broker's certificate; 127.0.0.1 is not one."""


class SecureKafka(Cluster):
    """One node: a listener with SASL_SSL, and a plain one for the tests themselves.

    Every user of USERS exists and has no right until `allow`. Whoever connects to the
    plain listener may do everything.

    Args:
        root: an empty directory for configuration, data and logs.

    Attributes:
        secure: `host:port` of the listener with SASL_SSL.
        ca: certificate of the authority that signed the broker's.
        other_ca: certificate of an authority that signed nothing here.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, nodes=1)
        self._port = free_port()
        self.secure = f"{HOST}:{self._port}"
        self.ca = root / "ca.crt"
        self.other_ca = root / "other-ca.crt"

    @property
    def secure_port(self) -> int:
        """The port of the listener with SASL_SSL."""
        return self._port

    def open(self) -> None:
        """Make the certificates, and start the node.

        Raises:
            Unavailable: Kafka cannot be fetched.
            RuntimeError: the node did not come up.
        """
        _authority(self.ca)
        _authority(self.other_ca)
        _signed(self.ca, self._root / "broker.pem")
        super().open()

    def settings(self, user: str, **more: str) -> dict[str, str]:
        """Return librdkafka's settings of *user*; `more` with underscores for dots."""
        return {
            "bootstrap.servers": self.secure,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.ca),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": f"{PASSWORD}{user}",
            **{name.replace("_", "."): value for name, value in more.items()},
        }

    def admin(self) -> AdminClient:
        """Return a client that may do everything."""
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def forbid(self, user: str, right: Right) -> None:
        """Remove one right of *user*."""
        kind = _KINDS[right.kind]
        operation = AclOperation[right.operation.upper()]
        binding = AclBindingFilter(
            kind,
            right.name,
            ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            operation,
            AclPermissionType.ALLOW,
        )
        before, admin = self.acls(), self.admin()
        for answer in admin.delete_acls([binding]).values():
            assert len(answer.result(timeout=30)) == 1
        self.wait_for_acls(before - 1)

    def acls(self) -> int:
        """Return how many rights there are."""
        everything = AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            None,
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        admin = self.admin()
        return len(admin.describe_acls(everything).result(timeout=30))

    def wait_for_acls(self, number: int) -> None:
        """Wait until the broker lists *number* rights.

        Raises:
            TimeoutError: it did not within 30 s.
        """
        wait_until(lambda: self.acls() == number, 30, f"{number} rights")

    def _format_options(self) -> list[str]:
        users = (
            f"SCRAM-SHA-512=[name={name},password={PASSWORD}{name},iterations=4096]"
            for name in USERS
        )
        return [part for user in users for part in ("--add-scram", user)]

    def _properties(self, number: int) -> str:
        port = self.port(number)
        text = super()._properties(number)
        more = {
            "listeners": f"PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{self._port}"
            f",CONTROLLER://127.0.0.1:{self._controllers[number]}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},"
            f"SECURE://{self.secure}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,"
            "CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secure.scram-sha-512.sasl.jaas.config": "org.apache.kafka"
            ".common.security.scram.ScramLoginModule required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._root / "broker.pem"),
            "allow.everyone.if.no.acl.found": "false",
            # What comes by the plain listener is the tests', and the broker's own.
            "super.users": "User:ANONYMOUS",
        }
        # Of two lines with one name the later one counts.
        return text + "".join(f"{name}={value}\n" for name, value in more.items())


def _openssl(*arguments: str | Path, stdin: str = "") -> None:
    subprocess.run(
        ["openssl", *map(str, arguments)],
        input=stdin,
        text=True,
        check=True,
        capture_output=True,
    )


def _authority(certificate: Path) -> None:
    key = certificate.with_suffix(".key")
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", f"/CN={certificate.stem}", "-keyout", key, "-out", certificate),
    )


def _signed(authority: Path, pem: Path) -> None:
    """Write a key, and a certificate for HOST that *authority* signed."""
    key, request = pem.with_suffix(".key"), pem.with_suffix(".csr")
    certificate, extensions = pem.with_suffix(".crt"), pem.with_suffix(".ext")
    extensions.write_text(f"subjectAltName=DNS:{HOST}\n")
    _openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={HOST}"),
        *("-keyout", key, "-out", request),
    )
    _openssl(
        *("x509", "-req", "-in", request, "-days", "2", "-CAcreateserial"),
        *("-CA", authority, "-CAkey", authority.with_suffix(".key")),
        *("-extfile", extensions, "-out", certificate),
    )
    pem.write_text(key.read_text() + certificate.read_text())
