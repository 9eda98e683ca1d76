"""Metrics of a program, and their registry."""

from prometheus_client import CollectorRegistry, Counter, Gauge


def counter(name: str, text: str, *labels: str) -> Counter:
    """Return the counter `fnm_bus_<name>_total`."""
    return Counter(f"fnm_bus_{name}", text, labels, registry=None)


def gauge(name: str, text: str, *labels: str) -> Gauge:
    """Return the gauge `fnm_bus_<name>`."""
    return Gauge(f"fnm_bus_{name}", text, labels, registry=None)


class MetricSet:
    """Metrics as attributes of an object."""

    def registry(self) -> CollectorRegistry:
        """Return a registry with all metrics."""
        registry = CollectorRegistry()
        for metric in vars(self).values():
            registry.register(metric)
        return registry
