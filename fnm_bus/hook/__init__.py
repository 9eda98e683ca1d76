"""The hook that FastNetMon executes; imports none of the other packages.

`python_hook` is the program; `hook.c` is the same program in C.
"""
