"""Apicurio Registry: a schema registry with Confluent's API, in memory."""

import json
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from support import fetch
from support.java import Java
from support.process import Server, free_port


class Registry:
    """One registry on loopback.

    Args:
        root: an empty directory for its log.

    Attributes:
        url: base of its Confluent API.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._port = free_port()
        self._management = free_port()
        self._server: Server | None = None
        self._java: Java | None = None
        self.url = f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def open(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            Unavailable: it cannot be fetched.
            RuntimeError: it did not come up; with the end of its log.
        """
        jars = fetch.registry()
        jar = str(jars / "quarkus-run.jar")
        self._java = Java(jars, jar, self._root)
        self._server = Server(
            self._java.server("-jar", jar),
            self._root / "registry.log",
            {
                "QUARKUS_HTTP_HOST": "127.0.0.1",
                "QUARKUS_HTTP_PORT": str(self._port),
                "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
                "QUARKUS_MANAGEMENT_PORT": str(self._management),
            },
        )
        self._server.start()
        self._server.wait(self._ready)

    def close(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.kill()
        if self._java is not None:
            self._java.keep_classes()

    def _ready(self) -> bool:
        health = f"http://127.0.0.1:{self._management}/health/ready"
        try:
            with urlopen(health, timeout=5):
                return True
        except URLError:
            return False
        except OSError:  # it listens, and is not there yet
            return False


def subjects(address: str) -> set[str]:
    """Return the names of a registry's subjects."""
    with urlopen(f"{address}/subjects", timeout=10) as answer:
        return set(json.load(answer))
