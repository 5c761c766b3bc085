"""Find the name that was probably meant, among those that there are. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

_LEAST_SCORE: Final = 0.3
_LEAST_LIKENESS: Final = 0.7


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that *name* probably stands for; None where none is like it.

    One that differs in one letter is meant. Others are compared word by word, in whatever order: what counts is the
    share of the words that both have, and a word counts the more the fewer names have it. So `hive_drain_s` is near
    `queen_drain_timeout_s`, and not near `hive_user`.
    """
    names = list(known)
    found = Counter(word for each in names for word in set(each.split("_")))
    weights = {word: math.log((len(names) + 1) / count) for word, count in found.items()}
    best = max(names, key=lambda each: (_score(name, each, weights), each), default=None)
    return best if best is not None and _score(name, best, weights) >= _LEAST_SCORE else None


def _score(name: str, known: str, weights: dict[str, float]) -> float:
    """Return from 0 to 1 how much of the weight of all words is that of words which both names have."""
    if _likeness(name, known) * (len(name) + len(known)) / 2 >= max(len(name), len(known)) - 1:
        return 1.0
    left = known.split("_")
    total = sum(weights[word] for word in left)
    shared = 0.0
    for word in name.split("_"):
        likeness, same = max(((_likeness(word, each), each) for each in left), default=(0.0, ""))
        if likeness >= _LEAST_LIKENESS:
            left.remove(same)
            shared += likeness * weights[same]
        else:
            total += weights.get(word, max(weights.values()))
    return shared / total if total else 0.0


def _likeness(one: str, other: str) -> float:
    import difflib  # needed only where something is misspelt

    return 1.0 if one == other else difflib.SequenceMatcher(None, one, other).ratio()
