"""The mitigator: events and commands in, the wanted state out."""
