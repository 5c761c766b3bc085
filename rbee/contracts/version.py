"""Compatibility of versions of rbee's programs."""

from __future__ import annotations


def is_compatible(ours: str, theirs: str) -> bool:
    """Return whether two versions, such as `0.3.1` and `0.3.7`, have the same major and minor number."""
    return ours.split(".")[:2] == theirs.split(".")[:2]
