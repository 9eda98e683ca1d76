"""What to do about an attack: rules, guardrails and limits, all of them pure.

Start with `rules.decide`; `file.load` reads a policy file.
"""
