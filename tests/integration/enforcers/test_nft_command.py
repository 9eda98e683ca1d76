"""Failures of the configured nft command."""

import pytest

from consumers.enforcers.backend import BackendError
from consumers.enforcers.nftables.backend import NftablesBackend
from consumers.mitigation.measure import Measure
from consumers.settings import NftablesSettings


def firewall(prefix: str | None) -> Measure:
    return Measure(kind="firewall", prefix=prefix)


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        ("/nowhere/nft", "install nftables"),
        ("/", "consumers.nftables.command"),
        ("false", "status 1"),
        ("sh -c 'echo Operation not permitted >&2; exit 1'", "CAP_NET_ADMIN"),
    ],
)
def test_a_command_that_fails_is_told_with_the_remedy(
    command: str, remedy: str
) -> None:
    backend = NftablesBackend(NftablesSettings(command=command))
    with pytest.raises(BackendError, match=remedy) as caught:
        backend.active()
    assert caught.value.retryable
    with pytest.raises(BackendError, match=remedy):
        backend.withdraw([firewall("192.0.2.1/32"), firewall("192.0.2.2/32")])


def test_a_missing_namespace_is_not_taken_for_a_missing_table() -> None:
    script = "echo 'Cannot open network namespace: No such file or directory' >&2"
    backend = NftablesBackend(NftablesSettings(command=f'sh -c "{script}; exit 1"'))
    with pytest.raises(BackendError, match="network namespace"):
        backend.active()
