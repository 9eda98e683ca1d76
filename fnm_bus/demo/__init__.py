"""The demo and the simulated attack: a real hook and relay on an embedded broker.

Entry points: `environment.start` runs the parts, `attack.attack` makes the calls up,
`replay.replay` calls the hook with them.
"""
