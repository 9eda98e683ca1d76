"""A receiver in place of a chat: prints each notice of the notifier on a line."""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 8080
MOST = 1 << 20


class Notices(BaseHTTPRequestHandler):
    """POST takes a notice; GET /healthz says that it would."""

    def do_GET(self) -> None:
        """Answer a health check."""
        self._answer(200 if self.path == "/healthz" else 404)

    def do_POST(self) -> None:
        """Show what came, and take it."""
        size = min(int(self.headers.get("Content-Length", 0)), MOST)
        try:
            notice = json.loads(self.rfile.read(size))
        except ValueError as exc:
            sys.stderr.write(f"not JSON: {exc}\n")
            self._answer(400)
            return
        sys.stdout.write(f"{_shown(notice)}\n")
        sys.stdout.flush()
        self._answer(200)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Say nothing of each request."""

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()


def _shown(notice: Any) -> str:
    if isinstance(notice, dict) and isinstance(notice.get("text"), str):
        return str(notice["text"])
    return json.dumps(notice)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("", PORT), Notices)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.serve_forever()
