"""The demo and the simulated attack: a real hook and relay on an embedded broker.

Entry points: `environment.start` runs the parts, `attack.attack_calls` yields simulated
calls, `replay.replay` calls the hook with them.
"""
