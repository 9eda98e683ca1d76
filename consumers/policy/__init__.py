"""Decisions about attacks: rules, guardrails and limits, all of them pure functions.

Start with `rules.match_rule`; `file.load` reads a policy file.
"""
