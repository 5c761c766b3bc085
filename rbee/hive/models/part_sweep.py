"""Find what unfinished downloads left behind and nothing will use: parts that are old or cannot be continued."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rbee.hive.models.partial_file import NOTE, PART, PartialFile

# A note that was being written when the hive was killed; see `config.atomic_write`.
_HALF_NOTE: Final = re.compile(rf"\..+{re.escape(NOTE)}\..+\Z")
_SETTLED_S: Final = 3600.0


def expired_parts(folder: Path, *, now: float, keep_s: float) -> Iterator[tuple[Path, Path]]:
    """Yield each file below *folder* to remove, after the model file that it belongs to. Blocking.

    Args:
        now: the time, in seconds since 1970, as files have it.
        keep_s: for how long a part that can be continued is kept after its last byte.
    """
    for path in sorted(folder.rglob("*")):
        name = path.name
        if path.is_symlink() or not path.is_file():
            continue
        age_s = now - path.stat().st_mtime
        if name.endswith(PART):
            target = path.with_name(name.removesuffix(PART))
            if age_s > keep_s or PartialFile(target).version() is None:
                yield target, path
                yield target, target.with_name(target.name + NOTE)
        elif name.endswith(NOTE):
            target = path.with_name(name.removesuffix(NOTE))
            if not target.with_name(target.name + PART).exists():
                yield target, path
        elif _HALF_NOTE.match(name) and age_s > _SETTLED_S:
            yield path, path
