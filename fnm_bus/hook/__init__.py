"""The hook that FastNetMon executes; imports nothing of the other packages.

`python_hook` is the program.
"""
