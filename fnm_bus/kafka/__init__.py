"""Kafka: clients, their errors, and the rights that each program needs.

Entry point: `client` builds every producer, consumer and admin client.
"""
