"""The change that follows from an event, a command, a moment or a takeover.

Entry points: `decide`, `operator_commands`, `expire` and `takeover`.
"""
