"""Setup: install the hook, check the hook, check everything.

`init` performs all steps; `check_all` is the entry point of the checks.
"""
