"""Number the changes of a set of rows, so that a reader can begin with all rows and go on from any number. Pure.

A row is JSON that is known by its kind and id. What changes together is one batch with one number. A reader that comes
back with the number that it had last gets what followed, for as long as that is kept; else it begins with all rows.

Invariant: the batches that are kept are numbered without a gap, and the last one has the log's `number`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

KEPT_BYTES: Final = 4 * 1024 * 1024
PART_BYTES: Final = 64 * 1024


class Key(NamedTuple):
    """What a row is about: its kind, such as `worker`, and its id among those of its kind."""

    kind: str
    id: str


class Batch(NamedTuple):
    """Changes that were made together, as the body of an event: `{"changes": [{"kind", "id", "row"}]}`."""

    number: int
    body: bytes


class ChangeLog:
    """The rows as they are now, and the last changes of them.

    Args:
        epoch: names this log among those of other runs, whose numbers mean something else.
        kept_bytes: of the batches that are kept for readers that come back or are slow.
    """

    def __init__(self, epoch: str, kept_bytes: int = KEPT_BYTES) -> None:
        self.number = 0
        self._epoch = epoch
        self._kept_bytes = kept_bytes
        self._rows: dict[Key, bytes] = {}
        self._batches: deque[Batch] = deque()
        self._size = 0
        self._parts: tuple[int, list[bytes]] = (-1, [])

    def __contains__(self, key: Key) -> bool:
        return key in self._rows

    def keys(self, kind: str) -> list[Key]:
        """List the rows of one kind."""
        return [key for key in self._rows if key.kind == kind]

    def update(self, rows: Mapping[Key, bytes | None]) -> bool:
        """Take over rows, encoded as JSON, or None for one that is gone; return whether that changed anything."""
        changed = {key: row for key, row in rows.items() if self._rows.get(key) != row}
        if not changed:
            return False
        for key, row in changed.items():
            if row is None:
                del self._rows[key]
            else:
                self._rows[key] = row
        self.number += 1
        batch = Batch(self.number, _body(_encode(key, row) for key, row in changed.items()))
        self._batches.append(batch)
        self._size += len(batch.body)
        while self._size > self._kept_bytes and len(self._batches) > 1:
            self._size -= len(self._batches.popleft().body)
        return True

    def position(self, after: str | None) -> int | None:
        """Return the number that a reader had last, by the id of its last event; None where it must begin anew."""
        epoch, _, number = (after or "").rpartition("-")
        if epoch != self._epoch or not number.isdecimal():
            return None
        position = int(number)
        return position if position <= self.number and self.since(position) is not None else None

    def since(self, number: int) -> list[Batch] | None:
        """List the batches that followed *number*; None where not all of them are kept."""
        missing = self.number - number
        if missing > len(self._batches):
            return None
        return [self._batches[index] for index in range(len(self._batches) - missing, len(self._batches))]

    def id(self, number: int) -> str:
        """Return the id of an event, by which a reader goes on after it."""
        return f"{self._epoch}-{number}"

    def snapshot(self) -> list[bytes]:
        """Return all rows as the bodies of events of moderate size, at least one; shared by all who ask for it now."""
        number, parts = self._parts
        if number != self.number:
            parts = list(_parts(_encode(key, row) for key, row in self._rows.items()))
            self._parts = (self.number, parts)
        return parts


def _encode(key: Key, row: bytes | None) -> bytes:
    head = json.dumps({"kind": key.kind, "id": key.id}).encode()
    return head[:-1] + b', "row": ' + (b"null" if row is None else row) + b"}"


def _parts(changes: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for change in changes:
        held.append(change)
        size += len(change)
        if size >= PART_BYTES:
            yield _body(held)
            held, size = [], 0
    yield _body(held)


def _body(changes: Iterable[bytes]) -> bytes:
    return b'{"changes": [' + b", ".join(changes) + b"]}"
