"""The alert rules use existing metrics, and all metrics of faults."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from ruamel.yaml import YAML
from support.commands import fault_of

from consumers.metrics import EnforcerMetrics, MitigatorMetrics
from consumers.notifier.metrics import NotifierMetrics
from fnm_bus.relay.metrics import RelayMetrics

ROOT = Path(__file__).parents[2]
HERE = ROOT / "docker/prometheus"
ALL = (RelayMetrics(), NotifierMetrics(), MitigatorMetrics(), EnforcerMetrics())
"""NotifierMetrics has what every consumer has."""
TESTS = ("alerts.test.yml", "alerts.day.test.yml")
SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds."""
JOBS = {"relay", "mitigator", "exabgp", "nftables", "notifier", "jsonlines"}
SOURCES = "".join(
    path.read_text()
    for folder in ("fnm_bus", "consumers")
    for path in (ROOT / folder).rglob("*.py")
)
NO_HARM = {
    "fnm_bus_published_total": "what goes well",
    "fnm_bus_checks_total": "somebody ran `hook check`",
    "fnm_bus_spool_files": "the age of the oldest tells what matters",
    "fnm_bus_spool_bytes": "likewise",
    "fnm_bus_in_flight": "a full line is busy, not broken",
    "fnm_bus_mitigator_events_total": "what goes well",
    "fnm_bus_mitigator_reasons": "at their bound, new ones are refused decisions",
    "fnm_bus_enforcer_announced_measures_total": "what goes well",
    "fnm_bus_enforcer_withdrawn_measures_total": "likewise",
}
"""Metrics without an alert, and why. A new metric has to be here or in a rule."""


def exposed() -> Iterator[tuple[str, set[str]]]:
    """Yield the name and the labels of every series of the code."""
    for metrics in ALL:
        for metric in vars(metrics).values():
            assert isinstance(metric, MetricWrapperBase)
            labels = set(metric._labelnames)
            match metric:
                case Counter():
                    yield f"{metric._name}_total", labels
                case Gauge():
                    yield metric._name, labels
                case Histogram():
                    yield f"{metric._name}_bucket", {*labels, "le"}


SERIES = dict(exposed())


def read(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((HERE / name).read_text())


RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in read("alerts.yml")["groups"]
    for rule in group["rules"]
}
CASES: list[dict[str, Any]] = [case for test in TESTS for case in read(test)["tests"]]


def used(expression: str) -> set[str]:
    return set(re.findall(r"\bfnm_bus_\w+", expression))


def matchers(expression: str) -> Iterator[tuple[str, str, str]]:
    """Yield the metric, the label and the value of every matcher."""
    for metric, inside in re.findall(r"(\w+)\s*\{([^}]*)\}", expression):
        for label, value in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', inside):
            yield metric, label, value


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    return subprocess.run(
        [program, *arguments],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath, "HOME": "/nonexistent"},
    )


def test_prometheus_takes_the_rules_and_its_own_settings() -> None:
    done = promtool("check", "rules", "alerts.yml")
    assert done.returncode == 0, done.stderr
    done = promtool("check", "config", "--syntax-only", "prometheus.yml")
    assert done.returncode == 0, done.stderr


def test_each_alert_fires_only_in_its_cases() -> None:
    done = promtool("test", "rules", *TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_is_wrong_does_not_pass(tmp_path: Path) -> None:
    text = (HERE / "alerts.yml").read_text()
    wrong = text.replace(
        "fnm_bus_quarantine_full_entries > 0", "fnm_bus_quarantine_full_entries > 1"
    )
    assert wrong != text
    (tmp_path / "alerts.yml").write_text(wrong)
    shutil.copy(HERE / "alerts.test.yml", tmp_path)
    done = promtool("test", "rules", str(tmp_path / "alerts.test.yml"))
    assert done.returncode != 0


@pytest.mark.parametrize("name", RULES)
def test_every_alert_is_shown_to_fire(name: str) -> None:
    samples = [
        sample["labels"]
        for case in CASES
        for expected in case["promql_expr_test"]
        for sample in expected["exp_samples"]
    ]
    assert f"""{{alertname="{name}"}}""" in samples


@pytest.mark.parametrize("name", RULES)
def test_a_case_without_alerts_has_every_metric_of_the_rules(name: str) -> None:
    [quiet] = [
        case for case in CASES if case["name"] == "where all is well nothing fires"
    ]
    for expected in quiet["promql_expr_test"]:
        assert expected["expr"] == 'ALERTS{alertstate="firing"}'
        assert expected["exp_samples"] == []
    series = {re.split(r"[{ ]", entry["series"])[0] for entry in quiet["input_series"]}
    assert set(re.findall(r"\b(?:fnm_bus_\w+|up\b)", RULES[name]["expr"])) <= series


@pytest.mark.parametrize("name", RULES)
def test_every_metric_of_a_rule_is_exposed(name: str) -> None:
    assert used(RULES[name]["expr"]) <= set(SERIES)


@pytest.mark.parametrize("name", RULES)
def test_every_label_of_a_rule_exists(name: str) -> None:
    expression = RULES[name]["expr"]
    for metric, label, _value in matchers(expression):
        assert label in SCRAPED | SERIES.get(metric, set())
    labels = SCRAPED.union(*(SERIES[metric] for metric in used(expression)))
    named = set()
    for part in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        named |= set(re.findall(r"\w+", part))
    words = " ".join(RULES[name]["annotations"].values())
    named |= set(re.findall(r"\$labels\.(\w+)", words))
    assert named <= labels


@pytest.mark.parametrize("name", RULES)
def test_the_code_sets_every_label_value_of_the_rules(name: str) -> None:
    for _metric, label, value in matchers(RULES[name]["expr"]):
        if label == "job":
            assert set(value.split("|")) <= JOBS
        else:
            assert f'"{value}"' in SOURCES


def test_every_job_is_scraped_and_has_an_alert() -> None:
    jobs = {job["job_name"] for job in read("prometheus.yml")["scrape_configs"]}
    assert jobs >= JOBS
    watched: set[str] = set()
    for name in ("FnmBusRelayDown", "FnmBusConsumerDown"):
        for metric, _label, value in matchers(RULES[name]["expr"]):
            assert metric == "up"
            watched |= set(value.split("|"))
    assert watched == JOBS


def test_every_metric_has_an_alert_or_a_reason() -> None:
    alerted = set().union(*(used(rule["expr"]) for rule in RULES.values()))
    assert alerted.isdisjoint(NO_HARM)
    assert alerted | set(NO_HARM) == set(SERIES)


@pytest.mark.parametrize("name", RULES)
def test_every_alert_has_a_severity_and_a_remedy(name: str) -> None:
    rule = RULES[name]
    assert re.fullmatch(r"FnmBus([A-Z][a-z]+)+", name)
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert len(rule["annotations"]["summary"]) > 20
    assert rule["annotations"]["description"].rstrip().endswith((".", "?"))


@pytest.mark.parametrize("name", RULES)
def test_every_named_command_exists(name: str) -> None:
    words = " ".join(RULES[name]["annotations"].values())
    lines = re.findall(r"`((?:fnm-bus|fnm-bus-consumer) [^`]+)`", words)
    assert [line for line in lines if fault_of(line)] == []
    for unit in re.findall(r"`systemctl \w+ ([\w-]+)`", words):
        assert (ROOT / f"packaging/systemd/{unit}.service").is_file()


@pytest.mark.parametrize("name", RULES)
def test_every_named_page_and_section_exists(name: str) -> None:
    words = " ".join(RULES[name]["annotations"].values())
    pages = r"\b((?:docs|benchmarks)/[\w/.-]+\.md)(?:, \"([^\"]+)\")?"
    for page, section in re.findall(pages, words):
        text = (ROOT / page).read_text()
        heads = [line for line in text.splitlines() if line.startswith(("#", "**"))]
        assert not section or any(section in head for head in heads)
