"""Storms: mitigations of one group that are close in time, reported together.

Pure: no clock, no I/O. `grouper.StormGrouper` takes records and returns updates.
"""
