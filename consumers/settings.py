"""Settings of the consumers: the tables below `[consumers]`."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fnm_bus.config.settings import Count, Port, Seconds, Settings, Table, Text
from fnm_bus.kafka.access import JSONLINES_GROUP, MITIGATOR_ID, NOTIFIER_GROUP

_STATE = Path("/var/lib/fnm-bus")
_SNAPSHOT = "File with the measures in force and their ends, for a start without Kafka."
Asn = Annotated[int, Field(ge=1, le=4_294_967_295)]


def _own_network(text: str) -> str:
    network = ip_network(text)
    if str(network) != text or "%" in text or network.prefixlen == 0:
        raise ValueError(f"expected a network such as 203.0.113.0/24, got {text}")
    return text


OwnNetwork = Annotated[str, AfterValidator(_own_network)]


class MitigatorSettings(Table):
    """The mitigator, which decides about events."""

    policy: Path = Field(
        Path("/etc/fnm-bus/policy.toml"), description="The policy and its guardrails."
    )
    transactional_id: Text = Field(
        MITIGATOR_ID,
        description="Among mitigators with one id, Kafka allows only the last one to"
        " write. Also the consumer group of its offsets. Mitigators with other topics"
        " need another id.",
    )
    fastnetmon_ban_time: Seconds = Field(
        1900.0,
        description="FastNetMon's ban time. Until the first status update of an attack"
        " arrives, its mitigations last at least this long.",
        json_schema_extra={
            "remedy": "FastNetMon never unbans if its ban_time is 0, but every block of"
            " fnm-bus ends: set the seconds until the end, such as 3600; status updates"
            " renew the block"
        },
    )
    ended_retention: Seconds = Field(
        86_400.0,
        description="Seconds until ended mitigations and expired reasons are deleted."
        " Within this time, a late status update renews the measures of its ban.",
    )


class EnforcerSettings(Table):
    """Settings of every enforcer."""

    snapshot: Path = Field(_STATE / "enforcer.json", description=_SNAPSHOT)
    reconcile_interval: Seconds = Field(
        3.0, description="Seconds between two comparisons of wanted and in force."
    )
    max_clock_skew: Seconds = Field(
        30.0,
        description="Largest difference, in seconds, between the broker's clock and"
        " this machine's that is not reported. Leases do not depend on this machine's"
        " clock.",
    )


class GuardSettings(Table):
    """Checks of every enforcer."""

    own_networks: tuple[OwnNetwork, ...] = Field(
        (),
        description="Networks in which measures are allowed; required unless `dry_run`"
        " is set. A FlowSpec rule needs its destination or its source within them.",
    )


class ExabgpSettings(EnforcerSettings):
    """BGP blackholes and FlowSpec by ExaBGP."""

    snapshot: Path = Field(_STATE / "exabgp.json", description=_SNAPSHOT)
    neighbor: Text = Field("127.0.0.2", description="Address of the neighbor.")
    port: Port = Field(179, description="The neighbor's port.")
    local_address: Text = Field("127.0.0.1", description="Our address.")
    router_id: Text = Field("127.0.0.1", description="Our router id.")
    local_as: Asn = Field(64999, description="Our autonomous system number.")
    peer_as: Asn = Field(64500, description="The neighbor's.")
    hold_time: Annotated[int, Field(ge=3, le=65_535)] = Field(
        9,
        description="Seconds without a message from ExaBGP until the neighbor withdraws"
        " all routes.",
    )
    ipv4_next_hop: Text = Field(
        "192.0.2.1", description="Next hop of IPv4 blackholes, routed to nowhere."
    )
    ipv6_next_hop: Text = Field(
        "100::1", description="Next hop of IPv6 blackholes (RFC 6666)."
    )
    communities: tuple[Text, ...] = Field(
        ("65535:666", "65535:65281"),
        description="Communities of every blackhole: BLACKHOLE (RFC 7999) and"
        " NO_EXPORT.",
    )
    user: Text | None = Field(
        None, description="User that ExaBGP becomes. Default: the current user."
    )
    watchdog_grace: Seconds = Field(
        5.0,
        description="Seconds after the end of a lease until the watchdog withdraws a"
        " route that the enforcer did not withdraw.",
    )


class NftablesSettings(EnforcerSettings):
    """A firewall that drops, by nftables."""

    snapshot: Path = Field(_STATE / "nftables.json", description=_SNAPSHOT)
    table: Text = Field(
        "fnm_bus",
        description="Name of the table of family inet. No other program may use it.",
    )
    priority: int = Field(
        -300, description="Priority of the chain; -300 is before connection tracking."
    )
    command: Text = Field("nft", description="The nft command.")


class NotifierSettings(Table):
    """Notices for people."""

    url: Text | None = Field(
        None, description="Address that gets each notice as JSON by POST."
    )
    url_file: Path | None = Field(
        None, description="File with the address, if the address is a secret."
    )
    secret_file: Path | None = Field(
        None,
        description="File with the key that signs: X-Fnm-Bus-Signature is sha256= and"
        " the HMAC-SHA256 of the body.",
    )
    alertmanager_urls: tuple[Text, ...] = Field(
        (), description="Base addresses of Alertmanagers: one alert for each storm."
    )
    apprise_file: Path | None = Field(
        None,
        description="File with Apprise addresses, one a line: Slack, Teams, PagerDuty,"
        " mail and others. Needs the extra `notify`.",
    )
    group: Text = Field(
        NOTIFIER_GROUP, description="Consumer group that keeps the offsets."
    )
    group_wait: Seconds = Field(
        10.0, description="Seconds in which a new storm's mitigations gather."
    )
    group_interval: Seconds = Field(
        300.0, description="Seconds between two notices of one storm."
    )
    timeout: Seconds = Field(10.0, description="Seconds for each request.")
    retry_timeout: Seconds = Field(
        3600.0,
        description="Seconds after which a notice that no receiver accepts is dropped.",
    )


class JsonlinesSettings(Table):
    """Decoded events as lines, for a SIEM."""

    format: Literal["json", "ecs", "cef"] = Field(
        "json",
        description="Form of a line: `json` has every field, `ecs` those of the Elastic"
        " Common Schema, `cef` those of the Common Event Format.",
    )
    path: Path | None = Field(None, description="File to append to; else stdout.")
    topics: tuple[Text, ...] = Field(
        (), description="Topics to read; else host, hostgroup, status and audit."
    )
    group: Text = Field(
        JSONLINES_GROUP, description="Consumer group that keeps the offsets."
    )
    fsync: bool = Field(
        default=True, description="Whether offsets wait until lines are on disk."
    )


class ConsumerSettings(Table):
    """The consumers."""

    metrics_host: Text = Field(
        "127.0.0.1", description="Address of a consumer's /metrics and /healthz."
    )
    metrics_port: Port = Field(
        0, description="Port of /metrics and /healthz; 0 logs and uses a free port."
    )
    max_attempts: Count = Field(
        5, description="Failures of a handler after which a record is a dead letter."
    )
    mitigator: MitigatorSettings = MitigatorSettings()
    enforcer: GuardSettings = GuardSettings()
    exabgp: ExabgpSettings = ExabgpSettings()
    nftables: NftablesSettings = NftablesSettings()
    notifier: NotifierSettings = NotifierSettings()
    jsonlines: JsonlinesSettings = JsonlinesSettings()


class FullSettings(Settings):
    """Settings of fnm-bus and of its consumers."""

    consumers: ConsumerSettings = ConsumerSettings()
