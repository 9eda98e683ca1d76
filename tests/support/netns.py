"""A small network of three namespaces, for packets that really cross a firewall.

    outside ──veth── router ──veth── inside

`inside` answers to every address of 10.0.0.0/8 and 2001:db8:c::/48. Nothing of it is
reachable from the machine itself, and all is gone with `close`.
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
"""Addresses, IPv4 and IPv6, that tests leave alone: markers travel between them."""

_ADDRESSES = {"outside": OUTSIDE, "router": ROUTER, "inside": INSIDE}
_PORT = 7777
_PATIENCE = 20.0
_CLONE_NEWNET = 0x40000000
_IP_FREEBIND = 15
_LIBC = ctypes.CDLL(None, use_errno=True)
_PLAN = """\
link add o0 netns {outside} type veth peer name r0 netns {router}
link add r1 netns {router} type veth peer name i0 netns {inside}
"""
_PLANS = {
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
    """The three namespaces, named for this run alone."""

    def __init__(self) -> None:
        run = f"fnmbus-{os.getpid()}-{secrets.token_hex(3)}"
        self.names = {role: f"{run}-{role}" for role in _ADDRESSES}
        self._made: list[str] = []
        self._heard: dict[tuple[str, int], socket.socket] = {}

    @property
    def nft(self) -> str:
        """The command of nftables on the router."""
        return f"ip netns exec {self.names['router']} nft"

    def open(self) -> None:
        """Make the namespaces and the wires.

        Raises:
            Unavailable: not root, or a command is missing, or namespaces are forbidden.
        """
        _need()
        for name in self.names.values():
            made = _ip("netns", "add", name)
            if made.returncode:
                raise Unavailable(f"no network namespaces: {made.stderr.decode()}")
            self._made.append(name)
        _must(_ip("-batch", "-", text=_PLAN.format(**self.names)))
        for role, plan in _PLANS.items():
            _must(_ip("-n", self.names[role], "-batch", "-", text=plan))
        _must(_ip("netns", "exec", self.names["router"], "sh", "-c", _FORWARD))
        for role in _ADDRESSES:
            for version in (4, 6):
                self._heard[role, version] = self._listen(role, version)
        for to in ("inside", "router"):
            for address in _ADDRESSES[to]:
                ready = partial(self._arrives, to, address)
                wait_until(ready, _PATIENCE, f"the way to {address}")
        for it in self._heard.values():
            it.settimeout(_PATIENCE)

    def close(self) -> None:
        """Take everything down."""
        for it in self._heard.values():
            it.close()
        self._heard.clear()
        while self._made:
            _must(_ip("netns", "delete", self._made.pop()))

    def sender(self, role: str, address: str) -> socket.socket:
        """Return a socket that sends from *address* in the namespace of *role*."""

        return self._within(role, partial(_bound, address))

    def received(self, role: str, version: int) -> list[bytes]:
        """Return what arrived at *role* until now and was not taken yet."""
        heard = self._heard[role, version]
        found = []
        while select.select([heard], [], [], 0)[0]:
            found.append(heard.recv(64))
        return found

    def crosses(
        self, source: str, target: str, to: str, origin: str | None = None
    ) -> bool:
        """Send one datagram; return whether it arrived.

        A second one follows on the same way between addresses that nobody blocks: when
        it is there and the first is not, the first was dropped.

        Args:
            source: role of the sender.
            target: role of the receiver.
            to: address of the receiver.
            origin: address of the sender; else the role's own.

        Raises:
            TimeoutError: the second did not arrive either: the way itself is broken.
        """
        version = 6 if ":" in to else 4
        at = version == 6
        home, far = _ADDRESSES[source][at], _ADDRESSES[target][at]
        heard = self._heard[target, version]
        probe, marker = secrets.token_bytes(8), secrets.token_bytes(8)

        def send() -> None:
            # One processor, or the second could overtake the first.
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            for address, end, text in (
                (origin or home, to, probe),
                (home, far, marker),
            ):
                with _bound(address) as it:
                    it.sendto(text, (end, _PORT))

        self._within(source, send)
        seen = False
        while (got := heard.recv(64)) != marker:
            seen = seen or got == probe
        return seen

    def _arrives(self, role: str, address: str) -> bool:
        try:
            return self.crosses("outside", role, address)
        except TimeoutError:  # a namespace that is new loses its first packets
            return False

    def _listen(self, role: str, version: int) -> socket.socket:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET

        def make() -> socket.socket:
            made = socket.socket(family, socket.SOCK_DGRAM)
            if version == 6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(("", _PORT))
            made.settimeout(0.1)
            return made

        return self._within(role, make)

    def _within(self, role: str, make: Callable[[], T]) -> T:
        """Call *make* in a thread that is in the namespace; a socket stays there."""
        made: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                _enter(self.names[role])
                made.append(make())
            except BaseException as exc:  # noqa: BLE001 - raised again below
                failed.append(exc)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return made[0]


def _need() -> None:
    if os.geteuid() != 0:
        raise Unavailable("network namespaces need root")
    for command in ("ip", "nft"):
        if shutil.which(command) is None:
            raise Unavailable(f"{command} is not installed")


def _enter(name: str) -> None:
    """Put this thread into a namespace."""
    with Path("/run/netns", name).open("rb") as space:
        if _LIBC.setns(space.fileno(), _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def _bound(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # IPv6 asks for it
    made.bind((address, 0))
    return made


def _ip(*arguments: str, text: str = "") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        ["ip", *arguments],
        input=text.encode(),
        capture_output=True,
        check=False,
        timeout=60,
    )


def _must(ended: "subprocess.CompletedProcess[bytes]") -> None:
    if ended.returncode:
        raise RuntimeError(f"{ended.args}: {ended.stderr.decode()}")
