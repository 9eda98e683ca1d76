"""Events to Avro bytes and back.

`codec` is the entry point.
"""
