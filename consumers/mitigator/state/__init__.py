"""Reasons and mitigations in memory, and how one change of them is made and undone.

Entry points: `state.State`, and `transition.Transition` for every change.
"""
