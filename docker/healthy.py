"""Health check of a container: status 0 if /healthz of this container returns 200.

The whole check is a look at a local port, often: so no module that is slow to load.
"""

import os
import socket
import sys

PORT = int(os.environ.get("HEALTH_PORT", "9310"))
SECONDS = 4.0


def main() -> int:
    """Request /healthz, print the answer, and return the exit status."""
    try:
        with socket.create_connection(("127.0.0.1", PORT), SECONDS) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            answer = b""
            while part := connection.recv(4096):
                answer += part
    except OSError as exc:
        sys.stdout.write(f"port {PORT}: {exc}\n")
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    sys.stdout.write(body.decode("utf-8", "replace"))
    return 0 if head.split(b" ")[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
