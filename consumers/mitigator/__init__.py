"""The mitigator: events and commands in, the wanted state out.

Entry points: `service.Mitigator`, and `explain` for its decisions without Kafka.
"""
