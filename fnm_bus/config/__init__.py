"""The configuration: a file, the environment, and their mistakes.

`load` is the entry point.
"""
