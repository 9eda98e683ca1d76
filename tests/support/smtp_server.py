"""An SMTP server that keeps messages: as much of RFC 5321 as smtplib needs."""

import socketserver
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage
from types import TracebackType
from typing import Self


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self._reply("220 mail.example.net")
        while line := self.rfile.readline():
            command = line[:4].upper()
            if command == b"DATA":
                self._reply("354 go ahead")
                self._keep()
            self._reply("221 bye" if command == b"QUIT" else "250 ok")

    def _keep(self) -> None:
        lines = []
        while (line := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(line.removeprefix(b"."))
        message = message_from_bytes(b"".join(lines), policy=policy.default)
        assert isinstance(message, EmailMessage)
        assert isinstance(self.server, SmtpServer)
        self.server.messages.append(message)

    def _reply(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


class SmtpServer(socketserver.ThreadingTCPServer):
    """Accepts every message while its context is open.

    Attributes:
        messages: all messages, in order.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.messages: list[EmailMessage] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown()
        self.server_close()
