"""Three short programs to copy: each does one thing with FastNetMon's bans.

Start with `print_bans`; consumers/README.md describes how to run them.
"""
