"""Servers for tests: the embedded broker, a real Kafka, a real registry.

A test that asks for a real server is skipped, with the reason, where Maven is missing
and no running server is named by FNM_BUS_TEST_KAFKA or FNM_BUS_TEST_REGISTRY. With
CI=true nothing may be skipped: a skip fails the run.
"""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from support.fetch import Unavailable
from support.kafka import Cluster
from support.netns import Network
from support.registry import Registry
from support.secure_kafka import SecureKafka

from fnm_bus.kafka.embedded_broker import EmbeddedBroker

# A busy machine is slow; a test that needs a limit of time sets one itself.
settings.register_profile("no deadline", parent=settings(), deadline=None)
settings.load_profile("no deadline")

pytest_plugins = ["support.fixtures"]

CI = os.environ.get("CI", "").lower() in {"1", "true"}
SLOWEST_FIRST = (
    "mitigator_outages",
    "mitigator_faults",
    "deaths_in_the_chain",
    "mitigator",
    "deaths_of_enforcers",
    "notifier",
    "relay",
    "consume",
    "commands",
    "looking",
    "clocks",
    "secure_kafka",
    "cli",
    "samples",
    "notifier_sinks",
    "demo",
    "mitigator_topics",
    "terminal",
    "more_partitions",
    "deaths_of_nftables",
    "decision_promises",
    "watchdog",
    "exabgp_start",
    "consumer_loop",
    "hook_deaths_at_every_call",
    "secrets",
    "jsonlines",
    "invalid_events",
    "order_of_calls",
)
"""The longest files of all. The others fill the gaps between the workers;
the order changes no result."""
SKIPPED: set[str] = set()


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[str]:
    """The address of a broker in this process."""
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one real broker."""
    running = os.environ.get("FNM_BUS_TEST_KAFKA")
    if running:
        yield running
        return
    cluster = Cluster(tmp_path_factory.mktemp("kafka"), nodes=1)
    with _served(cluster):
        yield cluster.bootstrap


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three real brokers; tests use `kafka3`."""
    three = Cluster(tmp_path_factory.mktemp("kafka3"), nodes=3)
    with _served(three):
        yield three


@pytest.fixture
def kafka3(cluster: Cluster) -> Iterator[Cluster]:
    """Three real brokers of which any can be killed; all run when a test begins."""
    yield cluster
    cluster.revive()


@pytest.fixture(scope="session")
def secure_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A real broker with SASL_SSL and the standard authorizer."""
    server = SecureKafka(tmp_path_factory.mktemp("secure-kafka"))
    with _served(server):
        yield server


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base address of a real registry's Confluent API."""
    running = os.environ.get("FNM_BUS_TEST_REGISTRY")
    if running:
        yield running
        return
    server = Registry(tmp_path_factory.mktemp("registry"))
    with _served(server):
        yield server.url


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """Three namespaces in a row; the firewall is in the middle namespace."""
    made = Network()
    with _served(made):
        yield made


@pytest.fixture
def topic_names() -> Callable[[str], str]:
    """Make topic names that no other test has: `topic_names("host")`."""
    prefix = f"test-{uuid4().hex[:12]}"
    return lambda name: f"{prefix}.{name}"


@contextmanager
def _served(server: Cluster | Network | Registry) -> Iterator[None]:
    try:
        server.open()
    except Unavailable as exc:
        (pytest.fail if CI else pytest.skip)(str(exc))
    else:
        yield
    finally:
        server.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need a real server; begin with the slowest files."""
    places = {f"test_{name}.py": at for at, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & {"kafka", "kafka3", "secure_kafka"}:
            item.add_marker(pytest.mark.kafka)
        if "registry" in fixtures:
            item.add_marker(pytest.mark.registry)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    """Escape file names that are not UTF-8; pytest-xdist cannot transmit them."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record a skipped test; an expected failure is not a skip."""
    if report.skipped and not hasattr(report, "wasxfail"):
        SKIPPED.add(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Record a file that was skipped as a whole."""
    if report.skipped:
        SKIPPED.add(report.nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the skips of a worker of pytest-xdist."""
    SKIPPED.update(getattr(node, "workeroutput", {}).get("skipped", ()))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send a worker's skips to the controller; fail a run of CI that has skips."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["skipped"] = sorted(SKIPPED)
    elif CI and SKIPPED and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the skipped tests that fail a run without failures."""
    if CI and SKIPPED:
        terminalreporter.section("skipped, which CI=true does not allow", red=True)
        for name in sorted(SKIPPED):
            terminalreporter.line(name)
