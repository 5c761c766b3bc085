"""Name the files of a split model: `NAME-00001-of-00003.gguf` and those that follow. Pure."""

from __future__ import annotations

import re
from typing import Final

_PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.gguf)\Z", re.IGNORECASE)


def is_part(name: str) -> bool:
    """Return whether *name*, with or without folders, is that of a part of a split model."""
    found = _PART.match(name)
    return found is not None and 0 < int(found["number"]) <= int(found["count"])


def first_part(name: str) -> str:
    """Return the file by which a model is named: the first part of a split one."""
    found = _PART.match(name)
    return f"{found['stem']}-00001-of-{found['count']}{found['end']}" if found is not None and is_part(name) else name


def part_names(name: str) -> list[str]:
    """Return the names of all files of the model that *name* belongs to, the first part first."""
    found = _PART.match(name)
    if found is None or not is_part(name):
        return [name]
    numbers = range(1, int(found["count"]) + 1)
    return [f"{found['stem']}-{number:05d}-of-{found['count']}{found['end']}" for number in numbers]
