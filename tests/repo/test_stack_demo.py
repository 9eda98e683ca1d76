"""The stack's demo bans a host for real, so it runs in the shipped stack only."""

import copy
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
SHIPPED: Any = YAML(typ="safe", pure=True).load(
    (ROOT / "docker-compose.yml").read_text()
)


def load() -> Any:
    """Return `docker/demo.py` as a module."""
    spec = importlib.util.spec_from_file_location("stack_demo", ROOT / "docker/demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DEMO = load()


def test_the_shipped_stack_is_accepted() -> None:
    DEMO.require_own_stack(SHIPPED)
    variables = {
        variable
        for service in SHIPPED["services"].values()
        for variable in service.get("environment") or {}
    }
    # Without these two in the file the check could not fail.
    assert "FNM_BUS_KAFKA__BOOTSTRAP_SERVERS" in variables
    assert "FNM_BUS_CONSUMERS__EXABGP__NEIGHBOR" in variables


@pytest.mark.parametrize(
    ("service", "variable", "value"),
    [
        ("relay", "FNM_BUS_KAFKA__BOOTSTRAP_SERVERS", "kafka.example.net:9092"),
        ("mitigator", "FNM_BUS_KAFKA__BOOTSTRAP_SERVERS", "kafka.example.net:9092"),
        ("exabgp", "FNM_BUS_CONSUMERS__EXABGP__NEIGHBOR", "203.0.113.254"),
    ],
)
def test_a_service_with_an_outside_broker_or_neighbor_is_refused(
    service: str, variable: str, value: str
) -> None:
    config = copy.deepcopy(SHIPPED)
    config["services"][service]["environment"] = {
        **config["services"][service]["environment"],
        variable: value,
    }
    with pytest.raises(DEMO.Failed, match=rf"{service}: {variable} is {value}"):
        DEMO.require_own_stack(config)


def test_another_address_of_bird_is_refused() -> None:
    config = copy.deepcopy(SHIPPED)
    config["services"]["bird"]["networks"]["bgp"]["ipv4_address"] = "198.18.53.9"
    with pytest.raises(DEMO.Failed, match="bird"):
        DEMO.require_own_stack(config)
