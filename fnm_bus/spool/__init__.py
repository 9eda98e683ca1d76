"""Notifications on disk, from the hook to the relay.

`spool` is the entry point; `layout` has the directories, their modes and owners.
"""
