"""The vocabulary that mitigator, enforcers and notifier share.

Start with `measure`: what a mitigation does to which traffic.
"""
