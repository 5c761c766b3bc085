"""The fleet that is killed: a queen with its own hive, a hive that is not its own, keepers with queens of their own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.commands import Running
from tests.support.gguf_files import write_gguf
from tests.support.hives import KEY as HIVE_KEY
from tests.support.hives import HiveProcess
from tests.support.machine import BIN, Machine, processes_of
from tests.support.queens import QueenProcess
from tests.support.waiting import eventually

FENCE_S = 30.0
TOKENS_PER_S = 200
ATTIC = "attic"


class Fleet:
    """Everything that runs, and how to bring back what was killed.

    `doomed` are the process ids of the queens that were killed, noted before they were.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.doomed: set[int] = set()
        self.main = _machine(root / "main")
        self.keepers = _machine(root / "keepers")
        self.attic = self._new_attic()
        self.queen = QueenProcess(self.main)
        self.model = self.queen.model
        self._register()

    def close(self) -> None:
        """End everything."""
        self.queen.http.close()
        self.attic.close()
        self.main.close()
        self.keepers.close()
        # Where a promise was broken something may be left.
        for process in processes_of(self.attic.home):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def processes(self, program: str | None = None) -> list[psutil.Process]:
        """List the processes of the queen's machine and the attic's, of one program or all."""
        found = [*self.main.processes(program), *processes_of(self.attic.home, program)]
        if program in (None, "rbee-hive"):
            found.append(psutil.Process(self.attic.process.pid))
        return found

    def restart_queen(self) -> None:
        """Start a queen in place of one that was killed, as systemd does."""
        self.queen.running.process.wait()
        self.queen.http.close()
        self.queen = QueenProcess(self.main)

    def restart_attic(self) -> None:
        """Start the other hive again, on the port it had."""
        port = self.attic.port
        self.attic.close()
        self.attic = self._new_attic(port)

    def infer(self, max_tokens: int = 8) -> Running:
        """Start a keeper that brings up a queen, a hive and a worker of its own."""
        model = write_gguf(self.keepers.root / "model.gguf")
        prompt = ("--prompt", "hello", "--max-tokens", str(max_tokens))
        return self.keepers.start("rbee-keeper", "infer", "--model", f"file://{model}", *prompt)

    def contradiction(self) -> str | None:
        """Compare what the queen lists with what runs; None if they agree, and no two workers are for one purpose."""
        try:
            listed = {row["pid"]: row for row in self.queen.workers()}
        except httpx.HTTPError as error:
            return f"the queen does not answer: {error}"
        running = {process.pid for process in self.processes("llm-worker-rbee")}
        if set(listed) != running:
            return f"the queen lists {sorted(listed)}, and {sorted(running)} run"
        nodes = [row["node"] for row in listed.values()]
        if len(nodes) != len(set(nodes)):
            return f"a worker was started twice: {nodes}"
        return None

    def _new_attic(self, port: int = 0) -> HiveProcess:
        self.main.environ()
        env = {"RBEE_CONFIG": str(self.main.home / "config.toml")}
        program = BIN / "llm-worker-rbee"
        return HiveProcess(self.root / "attic", env=env, port=port, worker_binary=program, fence_after_s=FENCE_S)

    def _register(self) -> None:
        node: dict[str, Any] = {"node_name": ATTIC, "ssh_host": "127.0.0.1", "hive_port": self.attic.port}
        self.queen.post("/v2/registry/beehives/add", {**node, "hive_key": HIVE_KEY})
        eventually(self._attic_connected, within=15, because="the queen reaches the other hive")

    def _attic_connected(self) -> bool:
        return any(hive["node"] == ATTIC and hive["connected"] for hive in self.queen.get("/v2/hives/list")["hives"])


@contextmanager
def fleet(root: Path) -> Iterator[Fleet]:
    """Run a fleet below *root*."""
    made = Fleet(root)
    try:
        yield made
    finally:
        made.close()


def seconds_until_gone(pids: set[int], began: float, within_s: float) -> tuple[float, set[int]]:
    """Wait until processes are gone; give the time that took since *began* and those left after *within_s*."""
    left = set(pids)
    while left := {pid for pid in left if _lives(pid)}:
        if time.monotonic() - began > within_s:
            break
        time.sleep(0.005)
    return time.monotonic() - began, left


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _machine(root: Path) -> Machine:
    root.mkdir(parents=True)
    machine = Machine(root)
    machine.tables["worker"] = {"engine": "fake", "fake": {"tokens_per_s": TOKENS_PER_S}}
    return machine
