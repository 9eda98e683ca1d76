"""The relay: publish the spool's entries to Kafka.

`service` is the entry point; `drain` is its loop.
"""
