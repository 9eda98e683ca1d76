"""The commands of the consumers: services in `run`, commands for people beside it.

Nothing imports a module of this folder but `consumers.__main__` and the entry points
of `fnm-bus`.
"""
