"""Clients that ask without pause, and see how each of their streams ends."""

from __future__ import annotations

import random
import threading

import httpx

from tests.chaos.fleet import Fleet
from tests.chaos.tally import Tally
from tests.support.queens import Event, parsed

TOKENS = 60
PAUSE_S = 0.05


class Load:
    """Some clients, each with a stream at a time, from `with` to its end."""

    def __init__(self, fleet: Fleet, tally: Tally, *, clients: int, seed: int) -> None:
        self._fleet = fleet
        self._tally = tally
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(seed + number),), daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(90)

    def _ask(self, chance: random.Random) -> None:
        while not self._stopping.is_set():
            queen = self._fleet.queen
            body = {"model": self._fleet.model, "prompt": "hello", "max_tokens": chance.randint(1, TOKENS)}
            key = {"Authorization": str(queen.http.headers["Authorization"])}
            events: list[Event] = []
            try:
                with (
                    httpx.Client(base_url=queen.url, headers=key, trust_env=False, timeout=60) as client,
                    client.stream("POST", "/v2/tasks", json=body) as response,
                ):
                    if response.status_code == 200:
                        events.extend(parsed(response.iter_lines()))
                    else:
                        response.read()
                        self._tally.ended(f"refused {response.json()['error']['code']}")
                        continue
            except httpx.ConnectError:
                continue  # between two queens there is nobody to ask
            except httpx.HTTPError as error:
                self._tally.ended("cut with their queen")
                if queen.pid not in self._fleet.doomed:
                    self._tally.broken(f"a stream was cut although its queen lives: {error}")
                continue
            finally:
                self._stopping.wait(PAUSE_S)
            self._tally.ended(self._ending(events))

    def _ending(self, events: list[Event]) -> str:
        if any(name == "message" and isinstance(data, dict) and data.get("done") for name, data in events):
            return "done"
        errors = [data["error"]["code"] for name, data in events if name == "error"]
        if errors:
            return f"error {errors[-1]}"
        self._tally.broken(f"a stream ended in silence after {len(events)} events")
        return "silence"
