"""docker-compose.yml agrees with the code."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support.commands import fault_of

from consumers.enforcers.build import allowed_networks
from consumers.policy.file import load as policy_file
from consumers.settings import FullSettings
from fnm_bus.config import load

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
KNOB = re.compile(r"(?<!\$)\$\{(\w+):-([^}]*)\}")
EVERYWHERE = "0.0.0.0"  # noqa: S104 - of a container; published on loopback only
ONCE = {"init", "flood"}
"""Services that end; `simulate` goes on, and has nothing to ask for its health."""


def read(path: str) -> Any:
    return YAML(typ="safe", pure=True).load((ROOT / path).read_text())


def knobs() -> dict[str, str]:
    return {match[1]: match[2] for match in KNOB.finditer(TEXT)}


def filled(value: Any) -> Any:
    """Return a value as compose would see it without an .env file."""
    if isinstance(value, Mapping):
        return {key: filled(child) for key, child in value.items()}
    if isinstance(value, list):
        return [filled(child) for child in value]
    if isinstance(value, str):
        return KNOB.sub(lambda match: match[2], value).replace("$$", "$")
    return value


FILE = filled(read("docker-compose.yml"))
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = {
    name: service
    for name, service in SERVICES.items()
    if service["image"].startswith("fnm-bus:")
}


def settings_of(service: str) -> FullSettings:
    """Return the settings of a service's programs."""
    environ = as_texts(SERVICES[service].get("environment", {}))
    return load.load_as(FullSettings, None, environ).settings


def as_texts(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of fnm-bus in a service's environment."""
    pairs = environment.items()
    return {name: str(value) for name, value in pairs if name.startswith("FNM_BUS_")}


def test_the_file_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema"]
    command += ["--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_knob_is_in_the_example_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    named = dict(
        line.split("=", 1) for line in lines if line and not line.startswith("#")
    )
    assert named == knobs()


def test_a_variable_has_a_single_default() -> None:
    defaults = KNOB.findall(TEXT)
    assert len(set(defaults)) == len(knobs())


def test_every_variable_has_a_default_or_is_the_shells() -> None:
    # A variable without one would be empty where there is no .env.
    assert len(re.findall(r"(?<!\$)\$\{", TEXT)) == len(KNOB.findall(TEXT))


@pytest.mark.parametrize("service", OURS)
def test_every_variable_of_a_service_is_a_setting(service: str) -> None:
    settings_of(service)


def test_a_dry_run_is_the_default() -> None:
    for service in OURS:
        if service != "notices":
            assert settings_of(service).dry_run, service


@pytest.mark.parametrize("service", OURS)
def test_every_command_exists(service: str) -> None:
    words = " ".join(OURS[service]["command"])
    lines = re.findall(r"\b(?:fnm-bus|fnm-bus-consumer) [a-z][a-z -]*", words)
    assert [line for line in lines if fault_of(line.strip())] == []
    assert lines or service == "notices"


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_loopback_only(service: str) -> None:
    for port in SERVICES[service].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port


def test_the_host_reaches_kafka_at_the_port_that_is_published() -> None:
    kafka = SERVICES["kafka"]
    advertised = kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert "HOST://localhost:9092" in advertised
    assert kafka["ports"] == ["127.0.0.1:9092:9092"]
    bootstrap = settings_of("relay").kafka["bootstrap.servers"]
    assert f"STACK://{bootstrap}" in advertised


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_bounded_and_has_no_rights(service: str) -> None:
    definition = SERVICES[service]
    assert definition["mem_limit"]
    assert definition["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert definition["cap_drop"] == ["ALL"]
    assert definition["security_opt"] == ["no-new-privileges:true"]
    assert definition.get("cap_add", []) == (
        ["NET_ADMIN"] if service == "nftables" else []
    )
    assert definition["restart"] == ("no" if service in ONCE else "unless-stopped")


@pytest.mark.parametrize("service", OURS)
def test_our_services_can_write_only_to_volumes(service: str) -> None:
    assert OURS[service]["read_only"] is True


@pytest.mark.parametrize("service", SERVICES)
def test_every_lasting_service_has_a_health_check(service: str) -> None:
    check = SERVICES[service].get("healthcheck", {})
    if service in ONCE | {"simulate"}:
        assert check == {"disable": True}
    elif service in OURS:  # the image's
        assert check == {}
        assert "HEALTHCHECK" in (ROOT / "docker/Dockerfile").read_text()
    else:
        assert check["test"]


@pytest.mark.parametrize("service", sorted(set(OURS) - {"init"}))
def test_our_services_wait_for_init(service: str) -> None:
    seen, todo = set(), {service}
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= set(SERVICES[name].get("depends_on", ())) - seen
    assert {"init", "kafka", "registry"} <= seen


def test_prometheus_scrapes_the_port_of_every_service() -> None:
    jobs = {}
    for job in read("docker/prometheus/prometheus.yml")["scrape_configs"]:
        for target_group in job.get("dns_sd_configs", ()):
            jobs[job["job_name"]] = f"{target_group['names'][0]}:{target_group['port']}"
        for target_group in job.get("static_configs", ()):
            jobs[job["job_name"]] = target_group["targets"][0]
    expected = {}
    for name, job in OURS.items():
        command = list(job["command"])
        if command == ["fnm-bus", "relay"]:
            relay = settings_of(name).relay
            assert relay.metrics_host == EVERYWHERE
            expected[name] = f"{name}:{relay.metrics_port}"
        elif command[0] == "fnm-bus-consumer":
            consumers = settings_of(name).consumers
            assert consumers.metrics_host == EVERYWHERE
            expected[name] = f"{name}:{consumers.metrics_port}"
    assert expected == {k: v for k, v in jobs.items() if k != "fastnetmon"}


def test_the_health_check_uses_the_port_of_the_programs() -> None:
    text = (ROOT / "docker/healthy.py").read_text()
    port = re.search(r'"HEALTH_PORT", "(\d+)"', text)
    assert port
    assert int(port[1]) == settings_of("relay").relay.metrics_port
    assert int(port[1]) == settings_of("mitigator").consumers.metrics_port


def test_the_stack_has_a_single_policy() -> None:
    path = SERVICES["mitigator"]["volumes"][0].split(":")[0]
    assert policy_file.load(ROOT / path).rules


WRITES = ("relay", "mitigator", "exabgp", "nftables", "jsonlines")
"""Services that write or read records with registered ids."""


@pytest.mark.parametrize("service", WRITES)
def test_a_service_that_frames_records_can_read_the_pins(service: str) -> None:
    directory = settings_of(service).registry.schema_ids_file.parent
    assert f"pins:{directory}:ro" in SERVICES[service]["volumes"]
    if SERVICES[service].get("user") == "0:0":
        assert SERVICES[service]["group_add"] == ["10001"]


def test_the_enforcers_allow_the_own_networks_of_the_policy() -> None:
    path = SERVICES["mitigator"]["volumes"][0].split(":")[0]
    own = policy_file.load(ROOT / path).limits.own_networks
    for service in ("exabgp", "nftables"):
        live = {**SERVICES[service]["environment"], "FNM_BUS_DRY_RUN": "false"}
        settings = load.load_as(FullSettings, None, as_texts(live)).settings
        allowed = allowed_networks(settings)
        assert allowed is not None
        assert sorted(map(str, allowed)) == sorted(map(str, own)), service


def test_both_ends_of_the_session_agree() -> None:
    bird = (ROOT / "docker/bird/stack.conf").read_text()
    exabgp = settings_of("exabgp").consumers.exabgp
    addresses = {
        name: SERVICES[name]["networks"]["bgp"]["ipv4_address"]
        for name in ("bird", "exabgp")
    }
    assert exabgp.neighbor == addresses["bird"]
    assert exabgp.local_address == addresses["exabgp"]
    assert f"local port {exabgp.port} as {exabgp.peer_as};" in bird
    assert f"neighbor {addresses['exabgp']} as {exabgp.local_as};" in bird
    assert f"hold time {exabgp.hold_time};" in bird


def test_fastnetmon_calls_the_hook_of_the_image() -> None:
    image = (ROOT / "docker/Dockerfile").read_text()
    conf = (ROOT / "docker/fastnetmon/fastnetmon.conf").read_text()
    path = re.search(r"^notify_script_path = (\S+)$", conf, re.MULTILINE)
    assert path
    assert f"hook install {path[1]} " in image
    assert path[1] in " ".join(SERVICES["simulate"]["command"])


def test_mounted_files_exist() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), f"{name}: {source}"
            else:
                assert source in FILE["volumes"], f"{name}: {source}"


def test_the_build_context_has_the_files_of_the_dockerfile() -> None:
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$",
        (ROOT / "docker/Dockerfile").read_text(),
        re.MULTILINE,
    )
    admitted = (ROOT / ".dockerignore").read_text().splitlines()
    for path in " ".join(copied).split():
        assert f"!{path.rstrip('/')}" in admitted, path


def test_every_service_is_explained() -> None:
    page = (ROOT / "docs/stack.md").read_text()
    missing = [name for name in SERVICES if f"| `{name}` |" not in page]
    assert missing == []
