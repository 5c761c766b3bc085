"""Which versions of rbee's programs work with each other."""

from __future__ import annotations


def is_compatible(ours: str, theirs: str) -> bool:
    """Tell whether two versions, such as `0.3.1` and `0.3.7`, have the same major and minor number."""
    return ours.split(".")[:2] == theirs.split(".")[:2]
