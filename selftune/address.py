"""Addresses: what is this machine and what is not. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


def is_loopback(host: str | None) -> bool:
    """True for a name or address of this machine; False for none, and for 0.0.0.0 (every address)."""
    if not host:
        return False
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _parsed(host: str) -> IPv4Address | IPv6Address:
    """The address that is meant: bound to `::`, a server meets 10.0.0.7 as ::ffff:10.0.0.7.

    Raises: ValueError.
    """
    address = ip_address(host.strip("[]").partition("%")[0])
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def listed(host: str | None, peers: Iterable[str]) -> bool:
    """True when this address is one of `peers`, or in one of its networks (`10.0.0.0/8`)."""
    try:
        address = _parsed(host or "")
        return any(address in ip_network(p, strict=False) for p in peers)
    except ValueError:
        return False


def block_of(host: str) -> str:
    """What one machine is counted as: an IPv6 subscriber has 2^64 addresses, so there their network."""
    try:
        address = _parsed(host)
    except ValueError:
        return host
    return str(ip_network(f"{address}/64", strict=False)) if address.version == 6 else str(address)


def client_behind(peer: str | None, forwarded: str, peers: Iterable[str]) -> str | None:
    """Who really asks: the last address of X-Forwarded-For that is no listed proxy, else the peer itself.

    Only a listed peer is believed; what a client wrote there itself stands further left and is never read.
    """
    known = tuple(peers)
    if not listed(peer, known):
        return peer
    for said in reversed([_without_port(part.strip()) for part in forwarded.split(",") if part.strip()]):
        if not listed(said, known):
            return said[:64]
    return peer


def _without_port(said: str) -> str:
    """Some proxies write `10.0.0.7:50123` or `[2001:db8::1]:50123`: the port is no part of who asks."""
    if said.startswith("["):
        return said[1:].partition("]")[0]
    return said.partition(":")[0] if said.count(":") == 1 else said
