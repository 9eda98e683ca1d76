"""The limits of a spool."""

import pytest

from fnm_bus.spool.limits import AdmissionLevel, Limits, SpoolUsage


@pytest.mark.parametrize(
    ("files", "size", "coalesces", "refusal"),
    [
        (0, 0, False, AdmissionLevel.NOTHING),
        (10, 0, True, AdmissionLevel.NOTHING),
        (0, 100, True, AdmissionLevel.NOTHING),
        (75, 0, True, AdmissionLevel.STATUS),
        (0, 750, True, AdmissionLevel.STATUS),
        (100, 0, True, AdmissionLevel.ALL),
        (0, 1_000, True, AdmissionLevel.ALL),
    ],
)
def test_limits_coalesce_then_refuse_status_then_all(
    files: int, size: int, refusal: AdmissionLevel, *, coalesces: bool
) -> None:
    limits = Limits(10, 100, 100, 1_000, 0.25)
    usage = SpoolUsage(files, size, None)
    assert limits.coalesces_status(usage) is coalesces
    assert limits.refusal(usage) is refusal
