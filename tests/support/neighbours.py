"""A queen over several hives of this machine, which fetch from the stand-in hub and copy from each other."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from tests.support.hives import KEY, HiveProcess
from tests.support.hub import Hub
from tests.support.machine import Machine
from tests.support.queens import Event, QueenProcess, named, told
from tests.support.waiting import eventually, slowness


class Neighbours:
    """Hives h1, h2 and so on of one queen that has no hive of its own; close it at the end."""

    def __init__(self, machine: Machine, hub: Hub) -> None:
        self._machine = machine
        self._hub = hub
        machine.configure("queen", local_hive=False)
        self.queen = QueenProcess(machine)
        self.hives: dict[str, HiveProcess] = {}

    def add(self, node: str, **settings: Any) -> HiveProcess:
        """Start a hive, and wait until the queen knows what it has."""
        home = self._machine.root / node
        hive = self.hives[node] = HiveProcess(home, env=self._hub.environ(home), node=node, **settings)
        spec = {"node_name": node, "ssh_host": "127.0.0.1", "hive_port": hive.port, "hive_key": KEY, "replace": True}
        self.queen.post("/v2/registry/beehives/add", spec)
        eventually(lambda: self._row(node)["connected"], within=10, because=f"{node} is connected")
        return hive

    def restart(self, node: str, **settings: Any) -> None:
        """Start a hive again, with other settings."""
        before = self.hives[node]
        before.terminate()
        before.close()
        eventually(lambda: not self._row(node)["connected"], within=15, because=f"{node} has ended")
        self.add(node, port=before.port, **settings)

    def flip_bit(self, node: str) -> None:
        """Change the last byte of the model's file so that only its checksum tells."""
        (file,) = self.files(node)
        before = file.stat()
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def pull(self, node: str, model: str) -> Pull:
        """Begin to have a model on a node."""
        return Pull(self.queen, node, model)

    def files(self, node: str) -> list[Path]:
        """Return the files that a node has of models, parts too."""
        return sorted(path for path in (self.hives[node].home / "models").rglob("*") if path.is_file())

    def received(self, node: str) -> int:
        """Return how many bytes there are of the file that a node gets."""
        return sum(path.stat().st_size for path in self.files(node) if path.suffix == ".part")

    def sent(self, node: str) -> int:
        """Return how many bytes of models a hive has sent to others."""
        text = self.hives[node].http.get("/metrics").text
        return int(float(text.split("\nrbee_hive_shared_bytes_total ")[1].split()[0]))

    def close(self) -> None:
        """End the hives, which have logged no bug; the queen is the machine's."""
        for hive in self.hives.values():
            hive.close()
        for node, hive in self.hives.items():
            text = hive.log.read_text()
            assert "BUG" not in text, f"{node} tells of a bug:\n{text}"
            assert "Traceback" not in text, f"{node} holds a traceback:\n{text}"

    def _row(self, node: str) -> dict[str, Any]:
        rows = self.queen.get("/v2/hives/list")["hives"]
        row: dict[str, Any] = next(row for row in rows if row["node"] == node)
        return row


class Pull:
    """A download to a node that runs while the test goes on; its events can be looked at as they come."""

    def __init__(self, queen: QueenProcess, node: str, model: str) -> None:
        self.events: list[Event] = []
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(queen, node, model), daemon=True)
        self._thread.start()

    @property
    def told(self) -> str:
        """Return the narration so far."""
        return told(self.events)

    @property
    def stages(self) -> list[dict[str, Any]]:
        """Return the progress so far."""
        return [data["download"] for data in named(self.events, "progress") if data.get("download")]

    def ended(self) -> Pull:
        """Wait for the end."""
        self._thread.join(120 * slowness())
        assert not self._thread.is_alive(), self.events
        return self

    def ended_well(self) -> Pull:
        """Wait for the end, which is a good one."""
        assert self.ended().events[-1] == ("message", "[DONE]"), self.events
        return self

    def leave(self) -> None:
        """Wait for it no longer, as an operator does with Ctrl-C."""
        self._left.set()
        self.ended()

    def _run(self, queen: QueenProcess, node: str, model: str) -> None:
        with queen.streaming("/v2/models/download", {"node": node, "model": model}) as stream:
            for event in stream:
                self.events.append(event)
                if self._left.is_set():
                    return
