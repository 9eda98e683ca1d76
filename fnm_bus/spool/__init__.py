"""Notifications on disk, from the hook to the relay.

`spool` is the entry point; `layout` names directories, modes and owners.
"""
