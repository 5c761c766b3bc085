"""State what a download may do; a value, made from the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from rbee.hive.models.addresses import AllowedSources
from rbee.hive.models.disk_space import DiskSpace

GB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """What a download may do.

    Attributes:
        stall_s: seconds without a byte that break a transfer.
        max_bytes: the most that all files of a model may have together.
        space: the disk that the models lie on, with what is to stay free of it.
        allowed: the private sources that the operator named.
        grace_s: how long a download goes on that nobody waits for.
        keep_s: how long the part of an unfinished download is kept.
    """

    stall_s: float
    max_bytes: int = 1024 * GB
    space: DiskSpace = field(default_factory=DiskSpace)
    allowed: AllowedSources = field(default_factory=AllowedSources)
    grace_s: float = 30.0
    keep_s: float = 7 * 86400.0
