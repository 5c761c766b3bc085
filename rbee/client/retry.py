"""Retry delays and timeouts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Retries:
    """The delays before each retry, in seconds."""

    delays_s: tuple[float, ...]

    def waits(self, rand: Callable[[], float] = random.random) -> Iterator[float]:
        """Yield each delay times a random 0.5 to 1.5, so that clients that failed together do not retry together."""
        for delay in self.delays_s:
            yield delay * (0.5 + rand())


HTTP_CONNECT: Final = Retries((0.1, 0.2, 0.4))
DOWNLOAD: Final = Retries((0.1, 0.2, 0.4, 0.8, 1.6, 3.2))
BUSY_WORKER: Final = Retries((1.0, 2.0, 4.0))

CONNECT_TIMEOUT_S: Final = 5.0
CONTROL_TIMEOUT_S: Final = 10.0
NO_TOKEN_TIMEOUT_S: Final = 60.0
GRACEFUL_STOP_S: Final = 30.0
