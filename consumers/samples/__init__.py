"""Three short programs to copy, each with one use of FastNetMon's bans.

Start with `print_bans`; consumers/README.md describes how to run them.
"""
