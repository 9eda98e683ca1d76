"""Whether everything is withdrawn, because a person paused all mitigations.

Two sources. The mitigator's pause record is the wanted state. A pause command counts
at once, without a mitigator; only a pause record that answers a later command ends it.
An enforcer never resumes by itself.
"""

from dataclasses import dataclass

from consumers.mitigation.states import WANTED
from fnm_bus.event import Mitigation


@dataclass(slots=True)
class PauseState:
    """What an enforcer knows of pauses.

    Attributes:
        command_offset: offset of the pause command that no resume has answered yet, or
            None. It is kept in the snapshot, so a restart does not resume.
        recorded: whether the latest pause record pauses.
    """

    command_offset: int | None = None
    recorded: bool = False
    _command_at: float = 0.0
    _resumed_offset: int = -1
    _resumed_at: float = 0.0

    def apply_command(self, offset: int, stamp: float) -> bool:
        """Take a pause command; return whether it pauses.

        A command that a resume has answered already does nothing: the two topics are
        read by two threads. In a command topic that was created again offsets begin at
        0, so a later broker's time counts as well.

        Args:
            offset: the command's offset.
            stamp: the broker's time of the command, seconds since 1970.
        """
        if offset <= self._resumed_offset and stamp <= self._resumed_at:
            return False
        held = self.command_offset
        if held is not None and offset <= held and stamp <= self._command_at:
            return False
        self.command_offset, self._command_at = offset, stamp
        return True

    def see_command(self, offset: int, stamp: float) -> None:
        """Take any other command: it shows that the topic was created again.

        Then the held command's offset is one of a topic that is gone, and no answer
        would ever be to a later one. From now on an answer to this command ends it.

        Args:
            offset: the command's offset.
            stamp: the broker's time of the command, seconds since 1970.
        """
        held = self.command_offset
        if held is None or offset > held or stamp <= self._command_at:
            return
        self.command_offset, self._command_at = offset - 1, stamp
        if self._resumed_offset >= offset and self._resumed_at >= stamp:
            self.command_offset = None

    def apply_record(self, record: Mitigation | None, stamp: float) -> None:
        """Take the pause record, or its tombstone.

        Args:
            record: what it holds; None for a tombstone.
            stamp: the broker's time of the record, seconds since 1970.
        """
        self.recorded = record is not None and record.state == WANTED
        if record is None or self.recorded:
            return
        self._resumed_offset, self._resumed_at = record.command_offset, stamp
        held = self.command_offset
        if held is not None and record.command_offset > held:
            self.command_offset = None

    def in_effect(self, *, synced: bool) -> bool:
        """Return whether everything is withdrawn.

        Args:
            synced: whether the mitigation topic was read to its end; before that a
                later record may end the recorded pause.
        """
        return self.command_offset is not None or (synced and self.recorded)
