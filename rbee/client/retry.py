"""How often to try again, and how long to wait in between."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Retries:
    """The waits before each further attempt, in seconds: one first attempt, then one for each delay."""

    delays_s: tuple[float, ...]

    def waits(self, rand: Callable[[], float] = random.random) -> Iterator[float]:
        """Give each delay times a random 0.5 to 1.5, so that many who failed at once do not return at once."""
        for delay in self.delays_s:
            yield delay * (0.5 + rand())


HTTP_CONNECT: Final = Retries((0.1, 0.2, 0.4))
DOWNLOAD: Final = Retries((0.1, 0.2, 0.4, 0.8, 1.6, 3.2))
BUSY_WORKER: Final = Retries((1.0, 2.0, 4.0))

CONNECT_TIMEOUT_S: Final = 5.0
CONTROL_TIMEOUT_S: Final = 10.0
NO_TOKEN_TIMEOUT_S: Final = 60.0
GRACEFUL_STOP_S: Final = 30.0
