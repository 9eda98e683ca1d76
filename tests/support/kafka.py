"""Apache Kafka: KRaft nodes that are broker and controller at once, on loopback."""

import base64
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ClusterMetadata,
    ResourcePatternType,
    ResourceType,
)

from support import fetch
from support.java import Java
from support.process import Server, accepts, free_port

_CLUSTER = base64.urlsafe_b64encode(b"fnm-bus's testing").decode()[:22]
_RULES = {
    # Without rules everything is allowed; a test may forbid something. Several nodes
    # would have to be allowed to talk to each other first.
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


class Cluster:
    """Kafka nodes with the ids 1, 2, ...

    Args:
        root: an empty directory for configuration, data and logs.
        nodes: how many.
        fronts: ports at which something forwards connections to the only node; clients
            that connect to one of them keep to it. `behind` has the port to forward to.

    Attributes:
        bootstrap: `host:port,...` of all of them, for `bootstrap.servers`.

    Topics are not made by themselves, as an operator would have it.
    """

    def __init__(self, root: Path, nodes: int, fronts: Sequence[int] = ()) -> None:
        self._root = root
        self._ports = {number: free_port() for number in range(1, nodes + 1)}
        self._behind = {front: free_port() for front in fronts}
        self._controllers = {number: free_port() for number in self._ports}
        self._servers: dict[int, Server] = {}
        self._java: Java | None = None
        self.bootstrap = ",".join(f"127.0.0.1:{p}" for p in self._ports.values())

    def open(self) -> None:
        """Format the directories, start all nodes, wait until they list each other.

        Raises:
            Unavailable: Kafka cannot be fetched.
            RuntimeError: a node did not come up; with the end of its log.
        """
        jars = fetch.kafka()
        self._java = java = Java(jars, f"{jars}/*", self._root)
        with ThreadPoolExecutor(len(self._ports)) as pool:
            list(pool.map(lambda number: self._format(number, java), self._ports))
        for number in self._ports:
            config = str(self._config(number))
            self._servers[number] = Server(
                java.server("kafka.Kafka", config), self._root / f"kafka-{number}.log"
            )
            self._servers[number].start()
        for number in self._ports:
            self._await(number)

    def close(self) -> None:
        """End all nodes."""
        for server in self._servers.values():
            server.kill()
        if self._java is not None and len(self._servers) == 1:
            self._java.keep_classes()

    def port(self, number: int) -> int:
        """Return where a node listens."""
        return self._ports[number]

    def behind(self, front: int) -> int:
        """Return the port of the only node for connections through *front*."""
        return self._behind[front]

    def pid(self, number: int) -> int:
        """Return the process of a node."""
        return self._servers[number].pid

    def kill(self, number: int) -> None:
        """End a node at once (SIGKILL)."""
        self._servers[number].kill()

    def start(self, number: int) -> None:
        """Start a node that was killed, and wait until the others list it.

        Raises:
            RuntimeError: it runs, or did not come up.
        """
        if self._servers[number].alive:
            raise RuntimeError(f"node {number} runs")
        self._servers[number].start()
        self._await(number)

    def revive(self) -> None:
        """Start every node that does not run."""
        for number, server in self._servers.items():
            if not server.alive:
                self.start(number)

    def _metadata(self, bootstrap: str) -> ClusterMetadata:
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        return admin.list_topics(timeout=10)

    def _await(self, number: int) -> None:
        port = self._ports[number]

        def known() -> bool:
            # The answer of this node about itself and the other running nodes.
            if not accepts(port):
                return False
            try:
                seen = self._metadata(f"127.0.0.1:{port}").brokers
            except KafkaException:
                return False
            running = {n for n, server in self._servers.items() if server.alive}
            return running <= set(seen)

        self._servers[number].wait(known)

    def _config(self, number: int) -> Path:
        return self._root / f"{number}.properties"

    def _format(self, number: int, java: Java) -> None:
        self._config(number).write_text(self._properties(number))
        command = java.command("kafka.tools.StorageTool", "format")
        done = subprocess.run(
            [
                *(*command, "-t", _CLUSTER, "-c", str(self._config(number))),
                *self._format_options(),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"kafka.tools.StorageTool: {done.stdout}")

    def _format_options(self) -> list[str]:
        """Return further arguments for the formatting of the data directory."""
        return []

    def _properties(self, number: int) -> str:
        copies = min(3, len(self._ports))
        enough = max(1, copies - 1)
        voters = (f"{n}@127.0.0.1:{port}" for n, port in self._controllers.items())
        settings = {
            "node.id": number,
            "process.roles": "broker,controller",
            "controller.quorum.voters": ",".join(voters),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(
                f"{name}:PLAINTEXT"
                for name in ("PLAINTEXT", "CONTROLLER", *map(_name, self._behind))
            ),
            "listeners": ",".join(
                (
                    f"PLAINTEXT://127.0.0.1:{self._ports[number]}",
                    f"CONTROLLER://127.0.0.1:{self._controllers[number]}",
                    *(
                        f"{_name(front)}://127.0.0.1:{port}"
                        for front, port in self._behind.items()
                    ),
                )
            ),
            "advertised.listeners": ",".join(
                (
                    f"PLAINTEXT://127.0.0.1:{self._ports[number]}",
                    *(f"{_name(front)}://127.0.0.1:{front}" for front in self._behind),
                )
            ),
            "inter.broker.listener.name": "PLAINTEXT",
            **(_RULES if len(self._ports) == 1 else {}),
            "log.dirs": self._root / f"data-{number}",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            # A killed node is given up after 4 s instead of 9.
            "broker.heartbeat.interval.ms": 500,
            "broker.session.timeout.ms": 4000,
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.num.partitions": 4,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": enough,
            "share.coordinator.state.topic.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": enough,
            "min.insync.replicas": enough,
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


@contextmanager
def denied(bootstrap: str, topic: str, operation: AclOperation) -> Iterator[None]:
    """Deny everybody one operation on a topic, and allow all others."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    place = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:*", "*")
    rules = [
        AclBinding(*place, AclOperation.ALL, AclPermissionType.ALLOW),
        AclBinding(*place, operation, AclPermissionType.DENY),
    ]
    for answer in admin.create_acls(rules).values():
        answer.result(30)
    try:
        yield
    finally:
        everything = (AclOperation.ANY, AclPermissionType.ANY)
        [removed] = admin.delete_acls([AclBindingFilter(*place, *everything)]).values()
        removed.result(30)


def _name(front: int) -> str:
    """Return the name of the listener behind a port."""
    return f"FRONT{front}"
