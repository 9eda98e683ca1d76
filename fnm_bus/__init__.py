"""fnm-bus: FastNetMon's attack events on Kafka, losing none, slowing nothing."""

__version__ = "0.1.0"
