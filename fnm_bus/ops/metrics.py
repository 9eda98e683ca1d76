"""Metrics of a program, and their registry."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def counter(name: str, text: str, *labels: str) -> Counter:
    """Return the counter `fnm_bus_<name>_total`."""
    return Counter(f"fnm_bus_{name}", text, labels, registry=None)


def gauge(name: str, text: str, *labels: str) -> Gauge:
    """Return the gauge `fnm_bus_<name>`."""
    return Gauge(f"fnm_bus_{name}", text, labels, registry=None)


class MetricSet:
    """Metrics that are the fields of a dataclass."""

    def registry(self: "DataclassInstance") -> CollectorRegistry:
        """Return a registry with all metrics."""
        registry = CollectorRegistry()
        for field in fields(self):
            metric: Any = getattr(self, field.name)
            registry.register(metric)
        return registry
