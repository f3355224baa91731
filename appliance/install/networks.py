"""Pure: no clock, no socket, no await.

Makes the configuration's `[network]` from the interfaces and ranges on the command line.  An error
lists several mistakes at once.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from appliance.config import Network, Segment
from appliance.errors import BadRequest

_RANGE: Final = re.compile(
    r"(?P<first>[0-9.]+)-(?P<last>[0-9.]+)(/(?P<prefix>[0-9]{1,2})@(?P<relay>[0-9.]+))?"
)
RANGE_FORM: Final = "FIRST-LAST, or FIRST-LAST/PREFIX@RELAY for a network behind a DHCP relay"
# The most addresses of a default range: dnsmasq keeps 40,000 leases.
_ADDRESSES_MAX: Final = 32_768

Address = ipaddress.IPv4Address


@attrs.frozen
class Interface:
    """A network interface of this server: addresses such as 172.28.0.1/24, IPv4 only."""

    name: str
    addresses: tuple[ipaddress.IPv4Interface, ...]


@attrs.frozen
class Range:
    """Addresses to lease; `prefix` and `relay` are set only behind a DHCP relay."""

    first: Address
    last: Address
    prefix: int | None = None
    relay: Address | None = None

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def range_of(text: str) -> Range:
    """Parses a range in RANGE_FORM.  Raises BadRequest."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise BadRequest(f"--dhcp-range {text!r} should be {RANGE_FORM}")
    try:
        first, last = Address(match["first"]), Address(match["last"])
        relay = Address(match["relay"]) if match["relay"] else None
        prefix = int(match["prefix"]) if match["prefix"] else None
        if relay is not None:
            network = ipaddress.IPv4Network(f"{relay}/{prefix}", strict=False)
            if first not in network or last not in network:
                raise BadRequest(f"--dhcp-range {text}: the relay {relay} is not in that network")
    except ValueError as error:
        raise BadRequest(f"--dhcp-range {text}: {error}") from error
    if last < first:
        raise BadRequest(f"--dhcp-range {text}: {first} lies after {last}")
    return Range(first, last, prefix, relay)


def network(
    names: Sequence[str],
    ranges: Sequence[Range],
    there: Mapping[str, Interface],
    *,
    proxy: bool,
) -> Network:
    """Returns the `[network]` that serves interfaces `names`.  Raises BadRequest (all errors)."""
    wrong = list(_unusable(names, there))
    if proxy and ranges:
        wrong.append("--proxy-dhcp and --dhcp-range: either another server leases, or this one")
    if wrong:
        raise BadRequest("\n".join(wrong))
    homes = {name: there[name].addresses[0] for name in names}
    served: dict[str, Range | None] = dict.fromkeys(names)
    relayed = []
    for each in ranges:
        if each.relay is not None:
            relayed.append(each)
            continue
        home = next((n for n, at in homes.items() if _holds(at, each)), None)
        if home is None:
            known = ", ".join(f"{name} ({at.network})" for name, at in homes.items())
            wrong.append(
                f"--dhcp-range {each}: no interface is in that network: {known};"
                f" behind a DHCP relay it is {each}/PREFIX@RELAY"
            )
        elif served[home] is not None:
            wrong.append(f"--dhcp-range {each}: {home} has {served[home]} already")
        elif each.first <= homes[home].ip <= each.last:
            wrong.append(f"--dhcp-range {each}: holds {homes[home].ip}, which is this server")
        else:
            served[home] = each
    if wrong:
        raise BadRequest("\n".join(wrong))
    if not proxy:
        served = {name: each or _widest(homes[name]) for name, each in served.items()}
    return _settings(homes, served, relayed)


def _holds(at: ipaddress.IPv4Interface, each: Range) -> bool:
    return each.first in at.network and each.last in at.network


def _unusable(names: Sequence[str], there: Mapping[str, Interface]) -> list[str]:
    wrong = []
    for name in names:
        if name not in there:
            known = ", ".join(sorted(set(there) - {"lo"})) or "none"
            wrong.append(f"--interface {name}: there is no such interface; there are: {known}")
        elif not there[name].addresses:
            wrong.append(
                f"--interface {name}: it has no IPv4 address; give it a fixed one first, such as"
                f" `ip address add 172.28.0.1/24 dev {name}`, and in the system's network settings"
            )
    wrong += [f"--interface {name}: named twice" for name in set(names) if names.count(name) > 1]
    return wrong


def _widest(at: ipaddress.IPv4Interface) -> Range:
    """Returns the larger part of the interface's network, below or above its own address."""
    first, last = at.network.network_address + 1, at.network.broadcast_address - 1
    if last <= first:
        raise BadRequest(f"{at}: too small a network to lease addresses from; use --dhcp-range")
    if int(at.ip) - int(first) > int(last) - int(at.ip):
        last = at.ip - 1
    else:
        first = at.ip + 1
    return Range(first, min(last, first + (_ADDRESSES_MAX - 1)))


def _settings(
    homes: Mapping[str, ipaddress.IPv4Interface],
    served: Mapping[str, Range | None],
    relayed: Sequence[Range],
) -> Network:
    (name, at), *others = homes.items()
    more = {
        other: Segment(
            interface=other,
            address=str(home.ip),
            dhcp_range=_ends(served[other]),
            netmask=str(home.netmask),
        )
        for other, home in others
    }
    for each in relayed:
        mask = str(ipaddress.IPv4Network(f"0.0.0.0/{each.prefix}").netmask)
        key = f"behind-{each.relay}".replace(".", "-")
        more[key] = Segment(dhcp_range=_ends(each), netmask=mask, router=str(each.relay))
    return Network(
        # Empty with several interfaces: each box is told the address that it reached us on.
        address="" if others and served[name] else str(at.ip),
        interface=name,
        dhcp_range=_ends(served[name]),
        netmask=str(at.netmask),
        more=more,
    )


def _ends(each: Range | None) -> tuple[str, str] | None:
    return None if each is None else (str(each.first), str(each.last))


def same(one: Network, other: Network) -> bool:
    """Returns whether both lease the same addresses, as far as install's options choose them."""
    return _leases(one) == _leases(other)


def _leases(network: Network) -> list[object]:
    parts: list[Network | Segment] = [network, *network.more.values()]
    first, *others = ((part.interface, part.dhcp_range, part.netmask) for part in parts)
    return [first, *sorted(others, key=str)]  # without names; their order does not matter
