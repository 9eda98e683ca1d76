"""The policy's file: TOML to the policy, all mistakes at once."""
