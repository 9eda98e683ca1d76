"""What an operator runs once: install the hook, check everything.

`check_all` is the entry point.
"""
