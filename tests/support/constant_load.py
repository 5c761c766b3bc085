"""Requests to a queen, one after the other on several threads, until somebody has seen enough."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

import httpx

_WITHIN_S = 120.0


def ask(url: str, key: str, **fields: Any) -> None:
    """Have one task done, on a connection of its own and with no second try. Raises RuntimeError if it fails."""
    body = {"prompt": "Name a bee.", "max_tokens": 3, **fields}
    try:
        with httpx.stream(
            "POST",
            f"{url}/v2/tasks",
            json=body,
            headers={"Authorization": f"Bearer {key}"},
            timeout=_WITHIN_S,
            trust_env=False,
        ) as response:
            said = response.read().decode()
    except httpx.HTTPError as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    if response.status_code != 200 or '"done":true' not in said:
        raise RuntimeError(f"HTTP {response.status_code}: {said[-1500:]}")


class ConstantLoad:
    """Ask *streams* times at once for as long as the context lasts; then `answered` and `failures` say how it went."""

    def __init__(self, url: str, key: str, *, streams: int, **fields: Any) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._wish = {"url": url, "key": key, **fields}
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._go_on) for _ in range(streams)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_WITHIN_S)

    def _go_on(self) -> None:
        while not self._over.is_set():
            try:
                ask(**self._wish)
            except RuntimeError as failure:
                with self._lock:
                    self.failures.append(str(failure))
            else:
                with self._lock:
                    self.answered += 1
