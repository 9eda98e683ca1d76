"""`fnm-bus relay`: the service."""

import signal

from fnm_bus.cli.options import ConfigFile, settings
from fnm_bus.errors import ConfigError


def relay(*, file: ConfigFile = None) -> None:
    """Publish the spool's entries to Kafka until SIGTERM.

    Runs as the spool's owner; root gives up its rights first. A second relay waits
    until the first one ends. On SIGTERM, records in flight get [relay]
    shutdown_timeout seconds for their acknowledgements.

    Example:
        fnm-bus relay
    """
    from fnm_bus import build
    from fnm_bus.ops import cpu_priority
    from fnm_bus.ops.log import get_logger
    from fnm_bus.relay.metrics import RelayMetrics
    from fnm_bus.spool.spool import Spool

    configured = settings(file)
    Spool(configured.spool.directory).become_owner()
    cpu_priority.lower(configured.relay.cpu_nice)
    metrics = RelayMetrics()
    service = build.build_relay(configured, metrics)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: service.stop())
    server = build.build_http_server(configured, service, metrics)
    try:
        port = server.start()
    except ConfigError as exc:
        raise ConfigError(
            f"{exc}; a second relay on this machine needs a port of its own: set"
            " [relay] metrics_port or FNM_BUS_RELAY__METRICS_PORT; 0 takes a free one"
        ) from exc
    address = f"{configured.relay.metrics_host}:{port}"
    get_logger(__name__).info("serving", address=address)
    try:
        service.run()
    finally:
        server.stop()
