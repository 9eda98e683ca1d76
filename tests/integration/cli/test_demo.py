"""Demos use their own broker and spool, not those of the configuration."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from support.relay_processes import RelayProcesses
from support.state_snapshot import file_state

TOPICS = (
    "fastnetmon.host.v1",
    "fastnetmon.hostgroup.v1",
    "fastnetmon.status.v1",
    "fastnetmon.mitigation.v1",
    "fastnetmon.audit.v1",
)


def run(
    relays: RelayProcesses, module: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a program as in a container of a production stack."""
    environment = {
        **os.environ,
        "FNM_BUS_CONFIG": str(relays.config),
        "FNM_BUS_KAFKA__BOOTSTRAP_SERVERS": relays.bootstrap,
        "FNM_BUS_SPOOL__DIRECTORY": str(relays.spool.root),
        "FNM_BUS_SPOOL__FALLBACK": str(relays.fallback.root),
        "FNM_BUS_DRY_RUN": "false",
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), *sys.path]),
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment,
        cwd=relays.root,
        capture_output=True,
        timeout=120,
        check=False,
    )


def topics_of(bootstrap: str) -> set[str]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    return set(admin.list_topics(timeout=10).topics)


def test_the_demo_uses_no_configured_broker_and_no_configured_spool(
    relays: RelayProcesses,
) -> None:
    topics, files = topics_of(relays.bootstrap), file_state(relays.root)
    done = run(relays, "fnm_bus", "demo", "--hosts", "2")
    assert done.returncode == 0, done.stderr.decode()
    assert topics_of(relays.bootstrap) == topics
    assert file_state(relays.root) == files


def test_the_demo_ends_with_a_preview_of_its_policy(relays: RelayProcesses) -> None:
    done = run(relays, "fnm_bus", "demo", "--hosts", "4")
    assert done.returncode == 0, done.stderr.decode()
    output = done.stdout.decode()
    for line in (
        "  start    blackhole|203.0.113.25/32",
        "  inform   notify|203.0.113.26/32",
        "  end      blackhole|203.0.113.25/32",
        "This is a preview: no traffic was blocked, and no record was published.",
    ):
        assert line in output.splitlines()
    # A decision that only informs is no mitigation.
    assert "start    notify|" not in output
    started = sum(line.startswith("  start ") for line in output.splitlines())
    assert started > 0


def test_the_preview_refuses_a_configuration_that_no_demo_wrote(
    relays: RelayProcesses,
) -> None:
    files = file_state(relays.root)
    done = run(relays, "consumers", "demo")
    assert done.returncode == 78
    assert b"not made by a demo" in done.stderr
    assert file_state(relays.root) == files


@pytest.mark.skipif(shutil.which("bird") is None, reason="BIRD 2 is not installed")
def test_the_bgp_demo_uses_neither_the_configured_broker_nor_neighbor(
    relays: RelayProcesses, tmp_path: Path
) -> None:
    pytest.importorskip("exabgp")
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    topics, files = topics_of(relays.bootstrap), file_state(relays.root)
    done = run(
        relays,
        "fnm_bus",
        "demo-bgp",
        RUNTIME_DIRECTORY=str(runtime),
        FNM_BUS_CONSUMERS__EXABGP__NEIGHBOR="127.0.0.77",
        FNM_BUS_CONSUMERS__EXABGP__SNAPSHOT=str(tmp_path / "snapshot.json"),
        FNM_BUS_CONSUMERS__MITIGATOR__TRANSACTIONAL_ID="production",
    )
    assert done.returncode == 0, done.stderr.decode()
    assert topics_of(relays.bootstrap) == topics
    assert file_state(relays.root) == files
    assert b"BIRD has the route" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("sign", ["relay ", "Everything runs until"])
def test_an_interrupted_demo_leaves_no_process_and_no_file(
    tmp_path: Path, sign: str, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "fnm_bus", "demo", "--keep", "--hosts", "1"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stderr is not None
        while not (line := demo.stderr.readline()).startswith(sign):
            assert line, "the demo ended"
        [directory] = tmp_path.iterdir()
        running = processes(str(directory / "fnm-bus.toml"))
        assert running
        demo.send_signal(number)
        demo.stderr.read()
        demo.wait(30)
    assert not running & processes("relay")
    assert list(tmp_path.iterdir()) == []


def processes(word: str) -> set[int]:
    """Return the processes whose command line has *word* in it."""
    numbers = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in path.read_bytes():
                numbers.add(int(path.parent.name))
    return numbers
