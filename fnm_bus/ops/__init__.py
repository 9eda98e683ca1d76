"""A service and its host: logs, metrics, the HTTP port, systemd, CPU priority.

`http_server` serves /metrics and /healthz; `terminal` makes any text safe to print.
"""
