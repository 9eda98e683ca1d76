"""How a service meets its host: the HTTP port and what reaches a terminal.

`http_server` serves /metrics and /healthz; `terminal` makes any text safe to print.
"""
