"""The notifier and its receivers: a real Alertmanager, and Apprise's services."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from support.alertmanager import Alertmanager
from support.connect_proxy import ConnectProxy
from support.fetch import Unavailable
from support.notifier_process import NotifierProcess, mitigation
from support.process import wait_until
from support.receiver import Receiver
from support.smtp_server import SmtpServer

HOSTS = ("hooks.slack.com", "events.pagerduty.com", "prod-1.logic.azure.com")
COUNT = 1000


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def notifier(
    tmp_path: Path, receiver: Receiver, embedded_broker: str
) -> Iterator[NotifierProcess]:
    consumer = {"group.protocol": "consumer"}
    notifier = NotifierProcess(tmp_path, embedded_broker, receiver, **consumer)
    # The embedded broker creates a topic at the first request.
    producer = Producer({"bootstrap.servers": embedded_broker})
    producer.list_topics(notifier.topic, timeout=10)
    yield notifier
    notifier.close()


@pytest.fixture
def alertmanager(tmp_path: Path, receiver: Receiver) -> Iterator[Alertmanager]:
    try:
        alertmanager = Alertmanager(tmp_path, receiver)
    except Unavailable as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))
    alertmanager.start()
    yield alertmanager
    alertmanager.kill()


def alerts(receiver: Receiver, status: str) -> list[dict[str, Any]]:
    documents = [json.loads(request.body) for request in receiver.got]
    return [
        alert for d in documents for alert in d["alerts"] if alert["status"] == status
    ]


def test_alertmanager_gets_storm_as_one_group_and_resolves_it(
    notifier: NotifierProcess, receiver: Receiver, alertmanager: Alertmanager
) -> None:
    """The notifier is killed; the alert resolves at the end of the last lease."""
    notifier.configure(alertmanager_urls=[alertmanager.url])
    server = notifier.start_first()
    lease = {"lease_ms": 12_000}
    notifier.put(mitigation(number, **lease) for number in range(COUNT))
    wait_until(lambda: bool(alerts(receiver, "firing")), 30, "a firing alert")
    (group,) = alertmanager.groups()
    (alert,) = group["alerts"]
    assert alert["labels"]["alertname"] == "FnmBusStorm"
    assert alert["labels"]["hostgroup"] == "web"
    assert alert["annotations"]["summary"].startswith(f"{COUNT} mitigations ")
    notifier.put(mitigation(number, **lease) for number in range(COUNT))

    def renewed() -> bool:
        (group,) = alertmanager.groups()
        return bool(group["alerts"][0]["endsAt"] > alert["endsAt"])

    wait_until(renewed, 30, "a renewed alert")
    assert alerts(receiver, "resolved") == []
    server.kill()
    wait_until(lambda: bool(alerts(receiver, "resolved")), 60, "its resolution")
    (resolved,) = alerts(receiver, "resolved")
    assert resolved["labels"] == alert["labels"]
    assert alertmanager.groups() == []


def test_alertmanager_resolves_an_ended_storm(
    notifier: NotifierProcess, receiver: Receiver, alertmanager: Alertmanager
) -> None:
    notifier.configure(alertmanager_urls=[alertmanager.url])
    notifier.start_first()
    notifier.put(mitigation(number) for number in range(10))
    wait_until(lambda: bool(alerts(receiver, "firing")), 30, "a firing alert")
    notifier.put(mitigation(number, "ended") for number in range(10))
    wait_until(lambda: bool(alerts(receiver, "resolved")), 30, "its resolution")
    assert len(alerts(receiver, "resolved")) == 1


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[ConnectProxy]:
    with ConnectProxy(tmp_path, HOSTS) as proxy:
        yield proxy


@pytest.fixture
def services(
    notifier: NotifierProcess, proxy: ConnectProxy, tmp_path: Path
) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Run a storm with one Apprise address; return the requests to its host."""

    def run(address: str) -> list[dict[str, Any]]:
        path = tmp_path / "apprise"
        path.write_text(f"# a comment\n{address}\n")
        notifier.configure(apprise_file=str(path))
        notifier.start_first(proxy.environment)
        notifier.put([mitigation(number, hostgroup="<!here>") for number in range(50)])
        wait_until(lambda: len(proxy.requests) >= 1, 30, "the first request")
        notifier.put(
            [mitigation(number, "ended", hostgroup="<!here>") for number in range(50)]
        )
        wait_until(lambda: len(proxy.requests) >= 2, 30, "the second request")
        notifier.wait_committed()
        return [json.loads(request.body) for request in proxy.requests]

    yield run
    assert "s3cr3t" not in notifier.log.read_text()


def test_slack_gets_title_and_text(
    services: Callable[..., list[dict[str, Any]]], proxy: ConnectProxy
) -> None:
    address = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7s3cr3t/#noc"
    start, end = services(address)
    assert proxy.requests[0].host == "hooks.slack.com:443"
    assert start["channel"] == "#noc"
    text = json.dumps(start)
    assert "50 mitigations started" in text
    # The name of a hostgroup must not become a mention.
    assert "<!here>" not in text
    assert "50 mitigations ended" in json.dumps(end)


def test_teams_gets_title_and_text(
    services: Callable[..., list[dict[str, Any]]], proxy: ConnectProxy
) -> None:
    start, end = services(
        "workflows://prod-1.logic.azure.com/643e69f8/s3cr3tsignature/"
    )
    assert proxy.requests[0].host == "prod-1.logic.azure.com:443"
    assert "50 mitigations started" in json.dumps(start)
    assert "50 mitigations ended" in json.dumps(end)


def test_pagerduty_resolves_the_incident_of_the_storm(
    services: Callable[..., list[dict[str, Any]]], proxy: ConnectProxy
) -> None:
    trigger, resolve = services("pagerduty://s3cr3tintegration@s3cr3tapi")
    assert proxy.requests[0].host == "events.pagerduty.com:443"
    assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
    assert trigger["dedup_key"] == resolve["dedup_key"]
    assert len(trigger["dedup_key"]) == 32
    assert trigger["payload"]["severity"] == "warning"
    assert "50 mitigations started" in trigger["payload"]["summary"]
    assert len(trigger["payload"]["summary"]) <= 1024


def mail_address(port: int) -> str:
    people = "from=bus@example.net&to=noc@example.net"
    return f"mailto://127.0.0.1:{port}?{people}&mode=insecure\n"


def test_mail_has_title_as_subject(notifier: NotifierProcess, tmp_path: Path) -> None:
    path = tmp_path / "apprise"
    with SmtpServer() as smtp:
        path.write_text(mail_address(smtp.port))
        notifier.configure(apprise_file=str(path))
        notifier.start_first()
        notifier.put([mitigation(1)])
        wait_until(lambda: len(smtp.messages) == 1, 30, "the first message")
        notifier.put([mitigation(1, "ended")])
        wait_until(lambda: len(smtp.messages) == 2, 30, "the second message")
        start, end = smtp.messages
    assert start["To"] == "noc@example.net"
    assert start["Subject"] == "1 mitigation started (hostgroup web)"
    assert start.get_content_type() == "text/plain"
    body = start.get_body(("plain",))
    assert body is not None
    assert "Prefixes: 198.51.0.1/32" in body.get_content()
    assert end["Subject"] == "1 mitigation ended (hostgroup web)"


def test_unavailable_service_gets_notice_later(
    notifier: NotifierProcess, receiver: Receiver, tmp_path: Path
) -> None:
    """Another receiver does not wait for it."""
    path = tmp_path / "apprise"
    with SmtpServer() as smtp:
        port = smtp.port
    path.write_text(mail_address(port))
    notifier.configure(url_file=str(tmp_path / "url"), apprise_file=str(path))
    notifier.start_first()
    notifier.put([mitigation(1)])
    receiver.wait_for(1)
    wait_until(
        lambda: "mailto: not delivered" in notifier.log.read_text(), 30, "a retry"
    )
    with SmtpServer(port) as smtp:
        wait_until(lambda: len(smtp.messages) == 1, 30, "the message")
    assert len(receiver.got) == 1
    notifier.wait_committed()
