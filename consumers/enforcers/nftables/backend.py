"""nftables: a firewall that drops what goes to and comes from a network.

The kernel ends each drop by itself, whoever has died: every element has a timeout. The
hook is prerouting: it sees all packets that come in, for this machine and to be
forwarded. Packets that this machine itself sends are not dropped, to a blocked host
either (the answers are): attacks do not begin here, and a wrong measure shall not cut
off the machine that has to take it back. At the default priority of -300 addresses are
those on the wire, before connection tracking and NAT. Bridged frames are not seen.

In `nft list table inet fnm_bus` counters tell what was dropped: `hosts4_to`,
`hosts4_from`, `net4_24_to`, ….
"""

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from consumers.enforcers.backend import (
    ActiveMeasure,
    BackendError,
    DesiredMeasure,
    UnsupportedMeasure,
)
from consumers.enforcers.nftables import script
from consumers.mitigation.measure import FIREWALL, Measure, Network
from consumers.settings import NftablesSettings
from fnm_bus.errors import ConfigError

_ANSWER: Final = 60.0
"""Seconds for one call of nft; 10,000 hosts take less than one."""
_SHOWN: Final = 5
"""How many of the refused measures an error names."""
_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_NO_TABLE: Final = "Error: No such file or directory"


class NftablesBackend:
    """Drops packets by nftables, in a table of its own.

    Args:
        settings: the table, the chains' priority and the command.

    Attributes:
        name: "nftables".
        kinds: firewall.

    Raises:
        ConfigError: the table is no name, or the command cannot be taken apart.
    """

    def __init__(self, settings: NftablesSettings) -> None:
        self.name = "nftables"
        self.kinds = frozenset({FIREWALL})
        self._table = settings.table
        self._priority = settings.priority
        self._command = _command(settings)

    def form(self, measure: Measure) -> str:
        """Return "drop".

        Raises:
            UnsupportedMeasure: it is no firewall measure of one network.
        """
        script.network_of(measure)
        return script.FORM

    def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
        """Drop the networks until their leases end; all in one transaction.

        What has no time left is withdrawn. When some are refused the rest get in.

        Raises:
            UnsupportedMeasure: some can never be dropped; all the others are.
            BackendError: nft refused some, or all, or does not answer; the text names
                them and the remedy.
        """
        lines: dict[Network, str] = {}
        unfit: list[str] = []
        for measure, left in wanted:
            try:
                network = script.network_of(measure)
                lines[network] = (
                    script.removal(self._table, network)
                    if left <= 0
                    else script.renewal(self._table, network, left)
                )
            except UnsupportedMeasure as exc:
                unfit.append(str(exc))
            except ValueError as exc:
                unfit.append(f"{measure.key}: left: {exc}")
        refused = self._put(lines, self._priority)
        if refused:
            raise BackendError(_told("nftables refused", [*refused, *unfit]))
        if unfit:
            raise UnsupportedMeasure(_told("not for nftables", unfit))

    def withdraw(self, measures: Sequence[Measure]) -> None:
        """Drop no more, in one transaction; what this firewall cannot do is no error.

        Raises:
            BackendError: nft refused some, or all, or does not answer.
        """
        networks: list[Network] = []
        for it in measures:
            try:
                networks.append(script.network_of(it))
            except UnsupportedMeasure:  # cannot stand, so it is gone
                continue
        lines = {it: script.removal(self._table, it) for it in networks}
        refused = self._put(lines, None)
        if refused:
            raise BackendError(_told("nftables did not take back", refused))

    def active(self) -> Mapping[Measure, ActiveMeasure]:
        """Return what is dropped, with the kernel's whole seconds, rounded down.

        Raises:
            BackendError: nft does not answer, or something that is not understood.
        """
        ended = self._nft("-j", "list", "table", "inet", self._table)
        if ended.returncode == 0:
            return script.standing(ended.stdout)
        said = _said(ended)
        # Only nft's own words: "ip netns" says something alike of a missing namespace.
        if said.startswith(_NO_TABLE):
            return {}
        raise self._failed(said)

    def close(self) -> None:
        """Do nothing: nothing is open, and drops stay until their ends."""

    def _put(self, lines: Mapping[Network, str], priority: int | None) -> list[str]:
        """Run the lines; return what was refused, with reasons.

        Nothing gets in of a transaction of which one line is refused. Lines that nft
        names are left out of the next one; when it names none, the lines are halved.

        Raises:
            BackendError: not the lines are at fault but what they need.
        """
        refused: list[str] = []
        waiting = [list(lines)] if lines else []
        while waiting:
            part = waiting.pop()
            said = self._say(part, lines, priority)
            if said is None:
                continue
            head = len(script.setup(self._table, part, priority))
            found = script.faults(said)
            if found and min(found) <= head:
                raise self._failed(said)
            named = {part[at - head - 1]: why for at, why in found.items()}
            if not named:
                fault = self._say([], lines, priority)
                if fault is not None:
                    raise self._failed(fault)
            if not named and len(part) == 1:
                named = {part[0]: _first(said)}
            refused += [f"{it}: {why}" for it, why in named.items()]
            rest = [it for it in part if it not in named]
            middle = len(rest) if named else len(rest) // 2
            waiting += [half for half in (rest[:middle], rest[middle:]) if half]
        return refused

    def _say(
        self,
        part: Sequence[Network],
        lines: Mapping[Network, str],
        priority: int | None,
    ) -> str | None:
        """Run the lines of *part*; return what nft says when it refuses."""
        head = script.setup(self._table, part or lines, priority)
        text = "\n".join((*head, *(lines[it] for it in part), ""))
        ended = self._nft("-f", "-", text=text)
        return _said(ended) if ended.returncode else None

    def _nft(
        self, *arguments: str, text: str = ""
    ) -> "subprocess.CompletedProcess[bytes]":
        command = [*self._command, *arguments]
        shown = shlex.join(self._command)
        try:
            return subprocess.run(  # noqa: S603 - the configured command
                command,
                input=text.encode(),
                capture_output=True,
                check=False,
                timeout=_ANSWER,
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired as exc:
            raise BackendError(f"{shown} did not end within {_ANSWER} s") from exc
        except OSError as exc:
            raise BackendError(
                f"{shown}: {exc.strerror}; install nftables, or name its command in"
                " consumers.nftables.command"
            ) from exc

    def _failed(self, said: str) -> BackendError:
        why = _first(said)
        if "Operation not permitted" in said:
            why += "; nftables needs root or CAP_NET_ADMIN"
        elif script.faults(said):
            why += (
                f"; table inet {self._table} was made by another program or with other"
                f" settings: `nft delete table inet {self._table}` removes it and all"
                " that it drops"
            )
        return BackendError(f"{shlex.join(self._command)}: {why}")


def _command(settings: NftablesSettings) -> Sequence[str]:
    if not _TABLE.fullmatch(settings.table):
        raise ConfigError(
            "consumers.nftables.table: wanted letters, digits, _ . - and no digit"
            f" first, got {settings.table!r}"
        )
    try:
        command = shlex.split(settings.command)
    except ValueError as exc:
        raise ConfigError(f"consumers.nftables.command: {exc}") from exc
    if not command:
        raise ConfigError("consumers.nftables.command: wanted a command, got blanks")
    return command


def _said(ended: "subprocess.CompletedProcess[bytes]") -> str:
    text = ended.stderr.decode(errors="replace").strip()
    return text or f"exit status {ended.returncode} without a message"


def _first(said: str) -> str:
    return said.splitlines()[0]


def _told(what: str, which: Sequence[str]) -> str:
    more = len(which) - _SHOWN
    shown = "; ".join(which[:_SHOWN])
    return f"{what}: {shown}" + (f"; and {more} more" if more > 0 else "")
