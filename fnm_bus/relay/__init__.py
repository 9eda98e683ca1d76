"""The relay: from the spool to Kafka.

`service` is the entry point; `drain` is its loop.
"""
