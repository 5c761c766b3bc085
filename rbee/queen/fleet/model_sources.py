"""Decide where a node gets a model from: another node that has it, its origin, or one that is fetching it now. Pure.

A model is fetched from its origin by one node of a fleet at a time; whoever else wants it waits, and copies it from
there. A node that has it sends it to a few others at once, each of which then sends it on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from rbee.contracts.models import MAX_NEIGHBOURS, CatalogEntry
from rbee.daemonkit.sockets import is_loopback
from rbee.errors import RbeeError
from rbee.model_reference import HubRef, UrlRef, parse_reference
from rbee.queen.hive import Hive

COPIES_AT_ONCE: Final = 2

UnderWay = Mapping[str, str | None]
"""The nodes that get a model now, each with the node that it copies from; None for one that asks the origin."""


@dataclass(frozen=True, slots=True)
class Source:
    """A node that has a model, with its row of the catalog there."""

    node: str
    url: str
    entry: CatalogEntry


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get it now: from the first of *sources* that gives it, or from its origin where there are none."""

    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until *node* has it, or until a source is free; `because` is for people."""

    node: str
    because: str


def shared_reference(model: str) -> str | None:
    """Return the canonical reference of a model that is the same on every node; None for any other text."""
    try:
        ref = parse_reference(model)
    except RbeeError:
        return None
    return ref.canonical if isinstance(ref, HubRef | UrlRef) else None


def sources(
    node: str, reference: str, hives: Iterable[Hive], under_way: UnderWay, failed: Collection[str] = ()
) -> list[Source]:
    """List the nodes that *node* can copy a model from, those first that send it to the fewest others now."""
    known = {hive.node: hive for hive in hives}
    url = known[node].url if node in known else ""
    found = [
        Source(hive.node, hive.url, entry)
        for hive in known.values()
        if hive.node != node
        and hive.node not in failed
        and hive.connected
        and not hive.closing
        and reaches(hive.url, url)
        for entry in hive.models
        if entry.reference == reference and entry.problem is None and entry.sha256 is not None
    ]
    busy = Counter(under_way.values())
    return sorted(found, key=lambda source: (busy[source.node], source.node))


def decide(
    node: str, reference: str, hives: Sequence[Hive], under_way: UnderWay, failed: Collection[str] = ()
) -> Fetch | Wait:
    """Decide where *node* gets a model from, which it gets from nowhere yet.

    Args:
        reference: canonical, of a model that is the same on every node.
        failed: the nodes that it could not copy it from.
    """
    known = {hive.node: hive for hive in hives}
    own = known.get(node)
    if own is not None and any(entry.reference == reference and entry.problem is None for entry in own.models):
        return Fetch()
    having = sources(node, reference, hives, under_way, failed)
    busy = Counter(under_way.values())
    if free := [source for source in having if busy[source.node] < COPIES_AT_ONCE]:
        return Fetch(tuple([*free, *(source for source in having if source not in free)][:MAX_NEIGHBOURS]))
    if having:
        copying = next(to for to, source in under_way.items() if source == having[0].node)
        return Wait(copying, f"{having[0].node} sends it to others now; it comes from there next")
    url = "" if own is None else own.url
    for other, source in sorted(under_way.items(), key=lambda way: way[1] is not None):
        hive = known.get(other)
        if hive is not None and other not in failed and hive.connected and reaches(hive.url, url):
            verb = "fetches" if source is None else "copies"
            return Wait(other, f"{other} {verb} it; it comes from there")
    return Fetch()


def reaches(source_url: str, url: str) -> bool:
    """Return whether the hive at *url* can be served by that at *source_url*, both as the queen sees them.

    A hive that the queen reaches on its own machine only is one for hives of that machine.
    """
    return not _is_local(source_url) or _is_local(url)


def _is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")
