"""Suspect entries are prepared in a child process that may die.

`parent.IsolatedPreparation` is the entry point.
"""
