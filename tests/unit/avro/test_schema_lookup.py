"""Schema lookups during an outage of the registry."""

import pytest

from fnm_bus.avro import schema_lookup
from fnm_bus.avro.schema_lookup import PausingLookup
from fnm_bus.errors import RegistryError, SchemaError


class Lookup:
    """A registry that fails while `error` is set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.requests = 0

    def __call__(self, number: int) -> str:
        self.requests += 1
        if self.error is not None:
            raise self.error
        return f"schema {number}"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the lookup; its only item is the time."""
    clock = [100.0]
    monkeypatch.setattr(schema_lookup, "monotonic", lambda: clock[0])
    return clock


def test_an_outage_costs_a_single_request_per_pause(now: list[float]) -> None:
    registry = Lookup()
    lookup = PausingLookup(registry, pause=10.0)
    registry.error = RegistryError("no answer")
    for _ in range(3):
        with pytest.raises(RegistryError, match="no answer"):
            lookup(7)
    assert registry.requests == 1
    registry.error = None
    now[0] += 10.0
    assert lookup(7) == "schema 7"


@pytest.mark.usefixtures("now")
def test_an_unknown_id_causes_no_pause() -> None:
    registry = Lookup()
    lookup = PausingLookup(registry, pause=10.0)
    registry.error = SchemaError("unknown")
    with pytest.raises(SchemaError):
        lookup(7)
    registry.error = None
    assert lookup(8) == "schema 8"
