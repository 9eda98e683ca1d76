"""The nftables backend: drop the traffic to and from networks.

Each element has a timeout, so the kernel ends each drop without any process. The hook
is prerouting: it sees every incoming packet, for this machine and for forwarding.
Packets that this machine sends are not dropped, not even to a blocked host: attacks do
not start here, and a wrong measure must not cut off the machine that has to withdraw
it. The answers of a blocked host are dropped. The default priority of -300 comes before
connection tracking and NAT, so addresses are those on the wire. Bridged frames do not
pass the hook.

`nft list table inet fnm_bus` shows counters of dropped packets: `hosts4_to`,
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
    summarize,
)
from consumers.enforcers.nftables import script
from consumers.mitigation.measure import Measure, Network
from consumers.settings import NftablesSettings
from fnm_bus.errors import ConfigError

_TIMEOUT: Final = 60.0
"""Seconds for one call of nft; 10,000 hosts take less than one."""
_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_NO_TABLE: Final = "Error: No such file or directory"


class NftablesBackend:
    """Drops packets with nftables, in its own table.

    Raises:
        ConfigError: the table's name is invalid, or the command cannot be split.
    """

    def __init__(self, settings: NftablesSettings) -> None:
        self.name = "nftables"
        self.kinds = script.KINDS
        self._table = settings.table
        self._priority = settings.priority
        self._command = _command(settings)

    def form(self, measure: Measure) -> str:
        """Return "drop"."""
        script.network_of(measure)
        return script.FORM

    def announce(self, wanted: Sequence[DesiredMeasure]) -> None:
        """Drop the networks until their leases end, in one transaction.

        A measure whose lease has ended is withdrawn. If nft refuses some measures, the
        others are announced.
        """
        lines: dict[Network, str] = {}
        unsupported: list[str] = []
        for measure, seconds_left in wanted:
            try:
                network = script.network_of(measure)
                lines[network] = (
                    script.removal_line(self._table, network)
                    if seconds_left <= 0
                    else script.renewal_line(self._table, network, seconds_left)
                )
            except UnsupportedMeasure as exc:
                unsupported.append(str(exc))
            except ValueError as exc:
                unsupported.append(f"{measure.key}: lease: {exc}")
        refused = self._apply(lines, self._priority)
        if refused:
            raise BackendError(summarize("nftables refused", [*refused, *unsupported]))
        if unsupported:
            raise UnsupportedMeasure(
                summarize("nftables does not support", unsupported)
            )

    def withdraw(self, measures: Sequence[Measure]) -> None:
        """Withdraw measures, in one transaction; unsupported measures are ignored."""
        networks: list[Network] = []
        for measure in measures:
            try:
                networks.append(script.network_of(measure))
            except UnsupportedMeasure:  # was never announced
                continue
        lines = {net: script.removal_line(self._table, net) for net in networks}
        refused = self._apply(lines, None)
        if refused:
            raise BackendError(summarize("nftables did not withdraw", refused))

    def active(self) -> Mapping[Measure, ActiveMeasure]:
        """Return the dropped networks; seconds are the kernel's, rounded down."""
        result = self._nft("-j", "list", "table", "inet", self._table)
        if result.returncode == 0:
            return script.active_measures(result.stdout)
        error = _error_text(result)
        # Only at the start: "ip netns" reports a missing namespace in similar words.
        if error.startswith(_NO_TABLE):
            return {}
        raise self._error(error)

    def close(self) -> None:
        """Do nothing: no connection is open, and drops stay until their leases end."""

    def _apply(self, lines: Mapping[Network, str], priority: int | None) -> list[str]:
        """Run the lines; return the refused networks with reasons.

        nft applies a transaction completely or not at all. Lines that nft's error names
        are left out of the next transaction. If the error names none, the lines are
        halved.

        Raises:
            BackendError: the setup lines failed, not the lines of the networks.
        """
        refused: list[str] = []
        batches = [list(lines)] if lines else []
        while batches:
            batch = batches.pop()
            error = self._run(batch, lines, priority)
            if error is None:
                continue
            head = len(script.setup_lines(self._table, batch, priority))
            faults = script.parse_faults(error)
            if faults and min(faults) <= head:
                raise self._error(error)
            reasons = {batch[n - head - 1]: reason for n, reason in faults.items()}
            if not reasons:
                setup_error = self._run([], lines, priority)
                if setup_error is not None:
                    raise self._error(setup_error)
                if len(batch) == 1:
                    reasons = {batch[0]: _first_line(error)}
            refused += [f"{net}: {reason}" for net, reason in reasons.items()]
            rest = [network for network in batch if network not in reasons]
            middle = len(rest) if reasons else len(rest) // 2
            batches += [half for half in (rest[:middle], rest[middle:]) if half]
        return refused

    def _run(
        self,
        batch: Sequence[Network],
        lines: Mapping[Network, str],
        priority: int | None,
    ) -> str | None:
        """Run the lines of *batch*; return nft's error, or None."""
        head = script.setup_lines(self._table, batch or lines, priority)
        text = "\n".join((*head, *(lines[network] for network in batch), ""))
        result = self._nft("-f", "-", text=text)
        return _error_text(result) if result.returncode else None

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
                timeout=_TIMEOUT,
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired as exc:
            raise BackendError(f"{shown} did not exit within {_TIMEOUT} s") from exc
        except OSError as exc:
            raise BackendError(
                f"{shown}: {exc.strerror}; install nftables, or set"
                " consumers.nftables.command"
            ) from exc

    def _error(self, text: str) -> BackendError:
        reason = _first_line(text)
        if "Operation not permitted" in text:
            reason += "; nftables needs root or CAP_NET_ADMIN"
        elif script.parse_faults(text):
            reason += (
                f"; another program, or other settings, created table inet"
                f" {self._table}; delete it and all of its drops with"
                f" `nft delete table inet {self._table}`"
            )
        return BackendError(f"{shlex.join(self._command)}: {reason}")


def _command(settings: NftablesSettings) -> Sequence[str]:
    if not _TABLE.fullmatch(settings.table):
        raise ConfigError(
            "consumers.nftables.table: use letters, digits, _ . -, and a letter or _"
            f" first, not {settings.table!r}"
        )
    try:
        command = shlex.split(settings.command)
    except ValueError as exc:
        raise ConfigError(f"consumers.nftables.command: {exc}") from exc
    if not command:
        raise ConfigError("consumers.nftables.command: the command is blank")
    return command


def _error_text(result: "subprocess.CompletedProcess[bytes]") -> str:
    text = result.stderr.decode(errors="replace").strip()
    return text or f"exit status {result.returncode} without a message"


def _first_line(text: str) -> str:
    return text.splitlines()[0]
