"""Decisions about attacks: rules, guardrails and limits, all of them pure functions.

Start with `rules.decide`; `file.load` reads a policy file.
"""
