"""The vocabulary that mitigator, enforcers and notifier share.

Start with `measure`: a match and its effect on the traffic.
"""
