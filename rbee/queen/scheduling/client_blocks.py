"""Decide which client is kept from which model, because workers crashed while its requests ran.

Pure: times come in as arguments, in seconds of any clock; clients are opaque ids.
A client is kept from a model for ten minutes after three crashes of the model's workers within ten minutes, on whatever
nodes, if it is the only one whose requests ran at all of them. The hives keep a model from everybody
(`hive.supervision.quarantine`) only for crashes that no one or two clients explain.
What a client is answered between two crashes does not excuse it: who ends workers on purpose can ask for a harmless
answer too. Only the operator is forgiven for one (`forgive`).

Invariants: a block has an end; of the clients of one crash at most one is blocked because of it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

TRIES: Final = 3
BLOCK_S: Final = 600.0
_KEPT: Final = 64


@dataclass(frozen=True, slots=True)
class Block:
    """A client that is kept from a model until `until`, after so many `crashes`; `reason` is that of the last one."""

    model: str
    client: str
    crashes: int
    reason: str
    until: float

    def explained(self) -> str:
        """Return the reason, as a part of a sentence."""
        return f"{self.crashes} workers crashed while its requests ran, the last one because {self.reason}"


@dataclass(frozen=True, slots=True)
class _Crash:
    at: float
    reason: str
    clients: frozenset[str]


class ClientBlocks:
    """The crashes of the fleet's workers, by model, and what follows from them."""

    def __init__(self) -> None:
        self._crashes: defaultdict[str, deque[_Crash]] = defaultdict(lambda: deque(maxlen=_KEPT))
        self._forgiven: dict[tuple[str, str], float] = {}

    def record_crash(self, model: str, clients: Iterable[str], reason: str, at: float) -> None:
        """Count a crash of a worker of *model*, at which requests of *clients* ran."""
        crash = _Crash(at, reason, frozenset(clients))
        if crash.clients:
            self._crashes[model].append(crash)

    def forgive(self, model: str, client: str, at: float) -> None:
        """Let the crashes so far not count against *client*."""
        if model in self._crashes:
            self._forgiven[model, client] = at

    def lift(self, models: Collection[str]) -> None:
        """Let everybody use *models* again."""
        for model in models:
            self._crashes.pop(model, None)
        self._forgiven = {key: at for key, at in self._forgiven.items() if key[0] in self._crashes}

    def find(self, models: Iterable[str], client: str, at: float) -> Block | None:
        """Return what keeps *client* from a model, which has all these names; None if nothing does."""
        if not self._crashes or not client:
            return None
        return next((found for model in models if (found := self._block(model, client, at)) is not None), None)

    def all(self, at: float) -> list[Block]:
        """List all blocks."""
        return [
            found
            for model, crashes in self._crashes.items()
            for client in sorted(frozenset().union(*(crash.clients for crash in crashes)))
            if (found := self._block(model, client, at)) is not None
        ]

    def _block(self, model: str, client: str, at: float) -> Block | None:
        since = self._forgiven.get((model, client), float("-inf"))
        own = [crash for crash in self._crashes.get(model, ()) if client in crash.clients and crash.at > since]
        if not own:
            return None
        last = own[-1]
        counted = [crash for crash in own if crash.at > last.at - BLOCK_S]
        alone = frozenset.intersection(*(crash.clients for crash in counted)) == {client}
        if len(counted) < TRIES or not alone or at >= last.at + BLOCK_S:
            return None
        return Block(model, client, len(counted), last.reason, last.at + BLOCK_S)
