"""Tell what a load takes of a GPU, whatever others give back there at the same time.

A worker that ends while another one loads returns gigabytes: what is free before and after a load says nothing then.
Buffers are allocated within moments, so the readings in between show how far the free memory has fallen.
"""

from __future__ import annotations

from collections.abc import Callable

from rbee.worker.engine.protocol import LoadProgress


class DeviceMemory:
    """The memory of one device, read now and whenever `look` is called.

    `free_before` is what was free at first, `taken` the deepest fall since then, from any reading to a later one.

    Args:
        read_free: returns the free bytes.
    """

    def __init__(self, read_free: Callable[[], int]) -> None:
        self._read_free = read_free
        self.free_before = self._highest = read_free()
        self.taken = 0

    def look(self) -> None:
        """Read what is free."""
        free = self._read_free()
        self._highest = max(self._highest, free)
        self.taken = max(self.taken, self._highest - free)

    def watched(self, progress: LoadProgress) -> LoadProgress:
        """Return *progress*, with a look at each call."""

        def looking(share: float, layers: int) -> bool:
            self.look()
            return progress(share, layers)

        return looking
