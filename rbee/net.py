"""Format network addresses."""

from __future__ import annotations


def bracketed(host: str) -> str:
    """Return *host* as it stands in a URL: an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def host_port(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 address in brackets."""
    return f"{bracketed(host)}:{port}"
