"""A network of three namespaces, for real packets through a firewall.

    outside ──veth── router ──veth── inside

`inside` has every address of 10.0.0.0/8 and 2001:db8:c::/48. The machine itself cannot
reach the network, and `close` removes it.
"""

import ctypes
import os
import secrets
import select
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from support.fetch import Unavailable
from support.process import wait_until

OUTSIDE = ("192.0.2.2", "2001:db8:a::2")
ROUTER = ("198.51.100.1", "2001:db8:b::1")
INSIDE = ("198.51.100.2", "2001:db8:b::2")
"""Addresses, IPv4 and IPv6, that tests never block: markers are sent between them."""

_ADDRESSES = {"outside": OUTSIDE, "router": ROUTER, "inside": INSIDE}
_PORT = 7777
_TIMEOUT = 20.0
_CLONE_NEWNET = 0x40000000
_IP_FREEBIND = 15
_LIBC = ctypes.CDLL(None, use_errno=True)
_LINK_COMMANDS = """\
link add o0 netns {outside} type veth peer name r0 netns {router}
link add r1 netns {router} type veth peer name i0 netns {inside}
"""
_ROLE_COMMANDS = {
    "outside": """\
link set lo up
link set o0 up
address add 192.0.2.2/24 dev o0
address add 2001:db8:a::2/64 dev o0 nodad
route add default via 192.0.2.1
route add default via 2001:db8:a::1
""",
    "router": """\
link set lo up
link set r0 up
link set r1 up
address add 192.0.2.1/24 dev r0
address add 2001:db8:a::1/64 dev r0 nodad
address add 198.51.100.1/24 dev r1
address add 2001:db8:b::1/64 dev r1 nodad
route add 10.0.0.0/8 via 198.51.100.2
route add 2001:db8:c::/48 via 2001:db8:b::2
""",
    "inside": """\
link set lo up
link set i0 up
address add 198.51.100.2/24 dev i0
address add 2001:db8:b::2/64 dev i0 nodad
route add local 10.0.0.0/8 dev lo
route add local 2001:db8:c::/48 dev lo
route add default via 198.51.100.1
route add default via 2001:db8:b::1
""",
}
_FORWARD = "cd /proc/sys/net; echo 1 | tee ipv4/ip_forward ipv6/conf/all/forwarding"
T = TypeVar("T")


class Network:
    """The three namespaces, with names of this run."""

    def __init__(self) -> None:
        run = f"fnmbus-{os.getpid()}-{secrets.token_hex(3)}"
        self.names = {role: f"{run}-{role}" for role in _ADDRESSES}
        self._created: list[str] = []
        self._receivers: dict[tuple[str, int], socket.socket] = {}

    @property
    def nft(self) -> str:
        """The command nft in the router's namespace."""
        return f"ip netns exec {self.names['router']} nft"

    def open(self) -> None:
        """Create the namespaces and links.

        Raises:
            Unavailable: not root, a command is missing, or namespaces are forbidden.
        """
        _check_requirements()
        for name in self.names.values():
            result = _ip("netns", "add", name)
            if result.returncode:
                raise Unavailable(f"no network namespaces: {result.stderr.decode()}")
            self._created.append(name)
        _check(_ip("-batch", "-", text=_LINK_COMMANDS.format(**self.names)))
        for role, commands in _ROLE_COMMANDS.items():
            _check(_ip("-n", self.names[role], "-batch", "-", text=commands))
        _check(_ip("netns", "exec", self.names["router"], "sh", "-c", _FORWARD))
        for role in _ADDRESSES:
            for version in (4, 6):
                self._receivers[role, version] = self._listen(role, version)
        for to in ("inside", "router"):
            for address in _ADDRESSES[to]:
                ready = partial(self._is_reachable, to, address)
                wait_until(ready, _TIMEOUT, f"a path to {address}")
        for receiver in self._receivers.values():
            receiver.settimeout(_TIMEOUT)

    def close(self) -> None:
        """Delete the network."""
        for receiver in self._receivers.values():
            receiver.close()
        self._receivers.clear()
        while self._created:
            _check(_ip("netns", "delete", self._created.pop()))

    def sender(self, role: str, address: str) -> socket.socket:
        """Return a socket that sends from *address* in the namespace of *role*."""

        return self._call_within(role, partial(_bound_socket, address))

    def received(self, role: str, version: int) -> list[bytes]:
        """Return and remove the datagrams that have arrived at *role*."""
        receiver = self._receivers[role, version]
        datagrams = []
        while select.select([receiver], [], [], 0)[0]:
            datagrams.append(receiver.recv(64))
        return datagrams

    def crosses(
        self, source: str, target: str, to: str, origin: str | None = None
    ) -> bool:
        """Send one datagram; return whether it arrived.

        A marker follows on the same path, between addresses that no test blocks. If
        only the marker arrives, the first datagram was dropped.

        Args:
            source: role of the sender.
            target: role of the receiver.
            to: address of the receiver.
            origin: address of the sender; None: the role's own.

        Raises:
            TimeoutError: the marker did not arrive either: the path is broken.
        """
        version = 6 if ":" in to else 4
        is_ipv6 = version == 6
        home, far = _ADDRESSES[source][is_ipv6], _ADDRESSES[target][is_ipv6]
        receiver = self._receivers[target, version]
        probe, marker = secrets.token_bytes(8), secrets.token_bytes(8)

        def send() -> None:
            # On one processor, so that the marker cannot overtake the probe.
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            for address, destination, text in (
                (origin or home, to, probe),
                (home, far, marker),
            ):
                with _bound_socket(address) as sender:
                    sender.sendto(text, (destination, _PORT))

        self._call_within(source, send)
        has_arrived = False
        while (datagram := receiver.recv(64)) != marker:
            has_arrived = has_arrived or datagram == probe
        return has_arrived

    def _is_reachable(self, role: str, address: str) -> bool:
        try:
            return self.crosses("outside", role, address)
        except TimeoutError:  # a new namespace loses its first packets
            return False

    def _listen(self, role: str, version: int) -> socket.socket:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET

        def create() -> socket.socket:
            receiver = socket.socket(family, socket.SOCK_DGRAM)
            if version == 6:
                receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            receiver.bind(("", _PORT))
            receiver.settimeout(0.1)
            return receiver

        return self._call_within(role, create)

    def _call_within(self, role: str, function: Callable[[], T]) -> T:
        """Call *function* in the namespace; its sockets stay in the namespace."""
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                _enter(self.names[role])
                results.append(function())
            except BaseException as exc:  # noqa: BLE001 - raised again below
                errors.append(exc)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


def _check_requirements() -> None:
    if os.geteuid() != 0:
        raise Unavailable("network namespaces need root")
    for command in ("ip", "nft"):
        if shutil.which(command) is None:
            raise Unavailable(f"{command} is not installed")


def _enter(name: str) -> None:
    """Move this thread into a namespace."""
    with Path("/run/netns", name).open("rb") as namespace:
        if _LIBC.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def _bound_socket(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # IPv6 uses it too
    sender.bind((address, 0))
    return sender


def _ip(*arguments: str, text: str = "") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        ["ip", *arguments],
        input=text.encode(),
        capture_output=True,
        check=False,
        timeout=60,
    )


def _check(result: "subprocess.CompletedProcess[bytes]") -> None:
    if result.returncode:
        raise RuntimeError(f"{result.args}: {result.stderr.decode()}")
