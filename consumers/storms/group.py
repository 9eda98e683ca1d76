"""The group of a storm: mitigations of one hostgroup or customer are one storm."""

from typing import Final, NamedTuple

from fnm_bus.event import Mitigation

_DEFAULT_HOSTGROUP: Final = "global"
"""FastNetMon's hostgroup of every host that has no other."""


class GroupRef(NamedTuple):
    """The group of a storm.

    Attributes:
        kind: hostgroup, customer, or all for mitigations that have neither.
        name: name of the hostgroup or customer, or "".
    """

    kind: str = "all"
    name: str = ""


def group_of(mitigation: Mitigation) -> GroupRef:
    """Return the hostgroup, else the customer, else the group of all others."""
    if mitigation.hostgroup and mitigation.hostgroup != _DEFAULT_HOSTGROUP:
        return GroupRef("hostgroup", mitigation.hostgroup)
    if mitigation.customer:
        return GroupRef("customer", mitigation.customer)
    return GroupRef()
