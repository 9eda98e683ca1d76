"""The policy file: TOML to the policy, all problems at once.

Start with `load.load`.
"""
