"""The library for consumers: read records from Kafka and pass them to a handler.

`loop` is the entry point.
"""
