"""Configuration: a file, the environment, and descriptions of mistakes.

`load.load` is the entry point.
"""
