"""The pause: an operator paused all mitigations, so everything is withdrawn.

There are two sources. The mitigator's pause record is the wanted state. A pause command
takes effect immediately, without a mitigator; only a pause record that answers a later
command ends it. An enforcer never resumes by itself.
"""

from dataclasses import dataclass

from consumers.mitigation.states import WANTED
from fnm_bus.event import Mitigation


@dataclass(slots=True)
class PauseState:
    """The pause command and the pause record, as an enforcer has read them.

    Attributes:
        command_offset: offset of the pause command that no resume has answered, or
            None. The snapshot has it too, so a restart does not resume.
        recorded: whether the latest pause record pauses.
    """

    command_offset: int | None = None
    recorded: bool = False
    _command_at: float = 0.0
    _resumed_offset: int = -1
    _resumed_at: float = 0.0

    def apply_command(self, offset: int, stamp: float) -> bool:
        """Apply a pause command; return whether it pauses.

        A command that a resume has already answered has no effect: two threads read the
        two topics. If the command topic was created again, its offsets start at 0, so
        a later broker's time counts too.

        Args:
            offset: the command's offset.
            stamp: the broker's time of the command, seconds since 1970.
        """
        if offset <= self._resumed_offset and stamp <= self._resumed_at:
            return False
        current = self.command_offset
        if current is not None and offset <= current and stamp <= self._command_at:
            return False
        self.command_offset, self._command_at = offset, stamp
        return True

    def see_command(self, offset: int, stamp: float) -> None:
        """Detect by any other command that the command topic was created again.

        Then the pause command's offset is one of the deleted topic, and no answer could
        have a higher one. From now on an answer to this command ends the pause.
        """
        current = self.command_offset
        if current is None or offset > current or stamp <= self._command_at:
            return
        self.command_offset, self._command_at = offset - 1, stamp
        if self._resumed_offset >= offset and self._resumed_at >= stamp:
            self.command_offset = None

    def apply_record(self, record: Mitigation | None, stamp: float) -> None:
        """Apply the pause record, or its tombstone.

        Args:
            record: the record's value; None for a tombstone.
            stamp: the broker's time of the record, seconds since 1970.
        """
        self.recorded = record is not None and record.state == WANTED
        if record is None or self.recorded:
            return
        self._resumed_offset, self._resumed_at = record.command_offset, stamp
        current = self.command_offset
        if current is not None and record.command_offset > current:
            self.command_offset = None

    def in_effect(self, *, synced: bool) -> bool:
        """Return whether everything is withdrawn.

        Args:
            synced: whether the mitigation topic was read to its end. Until then, a
                later record may end the recorded pause.
        """
        return self.command_offset is not None or (synced and self.recorded)
