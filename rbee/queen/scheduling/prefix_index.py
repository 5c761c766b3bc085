"""Find the workers that have read the beginning of a prompt, which they need not evaluate again.

Pure, and bounded: a worker keeps as many conversations as it has slots, so as many are remembered of it, the longest
unused forgotten first. What is remembered are the hashes of ever longer prefixes of a prompt: two prompts have
a hash in common only if they are equal up to there.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

PrefixHashes = tuple[int, ...]

BLOCK_CHARS: Final = 128
MAX_HASHES: Final = 1024  # of a longer prompt only the beginning counts
MAX_MATCHED_WORKERS: Final = 64  # workers to choose from; what the next ones have read is not worth looking it up
_ITEMS_AT_ONCE: Final = 256
# In the order in which a prompt is made of them; the names of every dialect.
_FIELDS: Final = ("tools", "instructions", "system", "messages", "prompt", "input")


def prefix_hashes(fields: Mapping[str, Any]) -> PrefixHashes:
    """Return the hashes of the prefixes of a request's prompt."""
    text = ""
    for name in _FIELDS:
        value = fields.get(name)
        if value is not None:
            text += _text_of_list(value) if isinstance(value, list) else json.dumps(value)
        if len(text) > BLOCK_CHARS * MAX_HASHES:
            break
    hashes = []
    hash_ = 0
    for end in range(BLOCK_CHARS, min(len(text), BLOCK_CHARS * MAX_HASHES) + 1, BLOCK_CHARS):
        hash_ = hash((hash_, text[end - BLOCK_CHARS : end]))
        hashes.append(hash_)
    return tuple(hashes)


def _text_of_list(items: Sequence[Any]) -> str:
    """Return the JSON of a list, as far as it counts: a million token ids would hold the event loop.

    The closing bracket is left out: a list that grows at its end goes on where it was.
    """
    pieces: list[str] = []
    length = 0
    for start in range(0, len(items), _ITEMS_AT_ONCE):
        pieces.append(json.dumps(items[start : start + _ITEMS_AT_ONCE])[1:-1])
        length += len(pieces[-1])
        if length > BLOCK_CHARS * MAX_HASHES:
            break
    return "[" + ", ".join(pieces)


class PrefixIndex:
    """The prompts that workers have read.

    Invariant (`check_invariants`): a worker is filed under a hash as often as its conversations have it.
    """

    def __init__(self) -> None:
        self._of_worker: dict[str, OrderedDict[int, PrefixHashes]] = {}
        self._by_hash: dict[int, Counter[str]] = {}
        self._ends: dict[int, set[str]] = {}

    def remember(self, worker_id: str, hashes: PrefixHashes, *, slots: int) -> None:
        """Record that a worker with so many slots reads a prompt now, which continues its conversation."""
        if not hashes:
            return
        known = self._of_worker.setdefault(worker_id, OrderedDict())
        for last, earlier in list(known.items()):
            if len(earlier) <= len(hashes) and hashes[len(earlier) - 1] == last:
                self._drop(worker_id, known.pop(last))
        while len(known) >= max(1, slots):
            self._drop(worker_id, known.popitem(last=False)[1])
        known[hashes[-1]] = hashes
        self._ends.setdefault(hashes[-1], set()).add(worker_id)
        for hash_ in hashes:
            self._by_hash.setdefault(hash_, Counter())[worker_id] += 1

    def forget(self, worker_id: str) -> None:
        """Forget a worker that is gone."""
        for hashes in self._of_worker.pop(worker_id, {}).values():
            self._drop(worker_id, hashes)

    def keep_only(self, worker_ids: Collection[str]) -> None:
        """Forget every worker that is not one of these."""
        for worker_id in [known for known in self._of_worker if known not in worker_ids]:
            self.forget(worker_id)

    def match_lengths(self, hashes: Sequence[int]) -> dict[str, int]:
        """Return for each worker how many of *hashes* it has read.

        Those that have read nothing are left out, and those that have read less than enough others.
        """
        match_lengths: dict[str, int] = {}
        for number in range(len(hashes), 0, -1):
            workers = self._by_hash.get(hashes[number - 1], ())
            # A worker that has read more has read less too: as many as before are the same.
            if len(workers) > len(match_lengths):
                for worker_id in workers:
                    match_lengths.setdefault(worker_id, number)
                if len(match_lengths) >= MAX_MATCHED_WORKERS:
                    break
        return match_lengths

    def sticky_workers(self, hashes: Sequence[int]) -> Collection[str]:
        """Return the workers that hold the conversation which a prompt with these hashes continues."""
        return next((self._ends[hash_] for hash_ in reversed(hashes) if hash_ in self._ends), ())

    def conversations(self) -> Mapping[str, Collection[object]]:
        """Return the conversations of each worker, to be counted: the next one may cost it one of them."""
        return self._of_worker

    def check_invariants(self) -> None:
        """Raise AssertionError where the two sides contradict each other."""
        counted: dict[int, Counter[str]] = {}
        ends: dict[int, set[str]] = {}
        for worker_id, known in self._of_worker.items():
            for hashes in known.values():
                ends.setdefault(hashes[-1], set()).add(worker_id)
                for hash_ in hashes:
                    counted.setdefault(hash_, Counter())[worker_id] += 1
        assert counted == self._by_hash
        assert ends == self._ends

    def _drop(self, worker_id: str, hashes: PrefixHashes) -> None:
        ends = self._ends[hashes[-1]]
        ends.discard(worker_id)
        if not ends:
            del self._ends[hashes[-1]]
        for hash_ in hashes:
            workers = self._by_hash[hash_]
            workers[worker_id] -= 1
            if not workers[worker_id]:
                del workers[worker_id]
            if not workers:
                del self._by_hash[hash_]
