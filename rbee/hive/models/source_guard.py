"""Guard the connections of a download: https, and only addresses that were checked.

A name is resolved once and the connection goes to the address that was found and checked, so that no second answer
of a name server can lead elsewhere. The certificate is still checked against the name.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Final
from urllib.parse import urlsplit

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.models.addresses import Address, AllowedSources, literal
from rbee.hive.models.remote import BrokenTransferError
from rbee.net import host_port

MAX_REDIRECTS: Final = 5
_PORTS: Final = {"http": 80, "https": 443}


def with_hub(allowed: AllowedSources) -> AllowedSources:
    """Return *allowed* with the host of the hub that the operator set in `HF_ENDPOINT`, if any."""
    host = urlsplit(os.environ.get("HF_ENDPOINT", "")).hostname
    return allowed if host is None else AllowedSources(allowed.hosts | {host}, allowed.networks)


class SourceGuard:
    """The rules for all connections of one download that begins at *url*.

    A host that the operator named is allowed, and so is each address that it turns out to have. Plain http is allowed
    only where the download begins with it, which a reference cannot: then the operator's own hub is spoken to so.
    """

    def __init__(self, allowed: AllowedSources, url: str) -> None:
        self._allowed = allowed
        self._https_only = urlsplit(url).scheme != "http"
        self._trusted: set[Address] = set()

    def check(self, url: Any) -> None:
        """Raise RbeeError DOWNLOAD_FAILED for an address of httpx that is not https, or a literal one not allowed."""
        if url.scheme != "https" and (self._https_only or url.scheme != "http"):
            raise _refused(
                url, "is not https", "Downloads follow redirects to https only; use an address that stays with it."
            )
        host = host_of(url)
        address = literal(host)
        if address is not None and not self._permits(host, address):
            raise _not_public(url, address)

    def resolve(self, url: Any) -> list[str]:
        """Return the addresses of a host that may be connected to, the preferred one first. Blocking.

        Raises RbeeError DOWNLOAD_FAILED where the host has only addresses that are not allowed, BrokenTransferError
        where it has none.
        """
        self.check(url)
        host = host_of(url)
        try:
            found = socket.getaddrinfo(host, port_of(url), type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BrokenTransferError(f"the name {host} could not be resolved: {reason}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        parsed = [(text, address) for text in addresses if (address := literal(text)) is not None]
        permitted = [text for text, address in parsed if self._permits(host, address)]
        if not permitted:
            raise _not_public(url, parsed[0][1]) if parsed else BrokenTransferError(f"{host} has no address")
        return permitted

    def _permits(self, host: str, address: Address) -> bool:
        if self._allowed.names(host):
            self._trusted.add(address)
        return address in self._trusted or self._allowed.permits(address)


def pin(request: Any, address: str) -> Any:
    """Return *request*, of httpx or httpx2, to be sent to *address*; Host, SNI and certificate stay the name's."""
    return type(request)(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host_of(request.url)},
    )


def proxy_for(url: Any) -> str | None:
    """Return the proxy that the environment sets for an address of httpx; the proxy then decides what it reaches."""
    from urllib.request import getproxies, proxy_bypass  # slow to import, and a start without a download needs neither

    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return None if proxy is None or proxy_bypass(host_of(url)) else proxy


def host_of(url: Any) -> str:
    """Return the host of an address of httpx as it is on the wire; the readable form may not exist."""
    return str(url.raw_host.decode("ascii"))


def port_of(url: Any) -> int:
    """Return the port of an address of httpx."""
    return int(url.port or _PORTS[url.scheme])


def too_many_redirects(url: str) -> RbeeError:
    """Return the error for a server that redirects on and on."""
    host = urlsplit(url).hostname
    return RbeeError(
        ErrorCode.DOWNLOAD_FAILED,
        f"{host} cannot be downloaded from: it redirects more than {MAX_REDIRECTS} times.",
        details={"host": host, "reason": "redirects"},
        hint="Use the address at which the redirects end.",
    )


def _not_public(url: Any, address: Address) -> RbeeError:
    return _refused(
        url,
        f"has the address {address}, which is not a public one",
        f"If you trust it, add '{host_of(url)}' or its network to allow_private_sources of the hive.",
    )


def _refused(url: Any, reason: str, hint: str) -> RbeeError:
    # Without path and query: what a redirect carries may be a signature.
    where = f"{url.scheme}://{host_port(host_of(url), port_of(url))}" if url.scheme in _PORTS else f"{url.scheme}:"
    return RbeeError(
        ErrorCode.DOWNLOAD_FAILED,
        f"The download was refused: it leads to {where}, which {reason}.",
        details={"source": where, "reason": reason},
        hint=hint,
    )
