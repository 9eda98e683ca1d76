"""The library for consumers: from Kafka to a handler.

`loop` is the entry point.
"""
