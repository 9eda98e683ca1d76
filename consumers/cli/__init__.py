"""The commands of the consumers: services in `run`, commands for people in the others.

Only `consumers.__main__` and the entry points of `fnm-bus` import a module of this
folder.
"""
