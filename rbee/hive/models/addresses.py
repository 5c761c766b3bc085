"""Decide which addresses a download may connect to: public ones, and those that the operator named. Pure.

An IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4) is judged by the one that it carries: that is
where the connection ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64: Final = ip_network("64:ff9b::/96")
# Documented as not for the Internet (RFC 8215, 9637, 9602), and called global by some versions of the library.
_SPECIAL: Final = tuple(ip_network(text) for text in ("64:ff9b:1::/48", "3fff::/20", "5f00::/16", "2001::/23"))
_HOST_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")


def endpoint_of(address: Address) -> Address:
    """Return the address at which a connection to *address* ends."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or address


def is_public(address: Address) -> bool:
    """Return whether *address* is one of the Internet's, not of this machine, of a private network or of none."""
    address = endpoint_of(address)
    special = address.is_multicast or address.is_reserved or any(address in network for network in _SPECIAL)
    return address.is_global and not special and not (isinstance(address, IPv6Address) and address.is_site_local)


@dataclass(frozen=True, slots=True)
class AllowedSources:
    """What the operator named: host names, and networks in which a private address is allowed."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowedSources:
        """Read host names, addresses and networks. Raises ValueError that names the entry that is none of these."""
        hosts, networks = set(), []
        for entry in entries:
            text = entry.strip().lower().strip("[]").rstrip(".")
            try:
                networks.append(ip_network(text, strict=False))
            except ValueError:
                if not _HOST_NAME.match(text):
                    raise ValueError(
                        f"'{entry}' is neither a host name nor a network; write mirror.lan or 10.1.0.0/16"
                    ) from None
                hosts.add(text)
        return cls(frozenset(hosts), tuple(networks))

    def names(self, host: str) -> bool:
        """Return whether *host*, a name or a literal address, was named itself."""
        return host.lower().rstrip(".") in self.hosts

    def permits(self, address: Address) -> bool:
        """Return whether a download may connect to *address*."""
        return is_public(address) or any(endpoint_of(address) in network for network in self.networks)


def literal(host: str) -> Address | None:
    """Return the address that *host* is; None for a name."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None
