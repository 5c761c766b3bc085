"""The page of a large fleet and of a small one, with names as long as people make them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from bench import simulated_hives
from tests.console.browser import browse, link
from tests.support.checkout import ROOT
from tests.support.machine import Machine
from tests.support.queens import QueenProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.xdist_group("clients"), pytest.mark.timeout(600)]
GPUS: Final = 8
NODE: Final = "node-gpu-server-in-the-attic-of-the-old-farmhouse-by-mill-{:02}"
SERVED: Final = "a-model-for-everybody-who-writes-long-letters-to-the-tax-office"
CLIENT: Final = "the-department-of-apiculture-and-of-other-useful-insects-2026"


@contextmanager
def fleet(port: int, hives: int) -> Iterator[None]:
    """Run hives with eight GPUs each, which compute nothing."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.simulated_hives", str(port), str(hives), str(GPUS)], cwd=ROOT
    )

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually(answers, within=20, because="the hives serve")
        yield
    finally:
        process.terminate()
        process.wait(10)


def register(queen: QueenProcess, port: int, hives: int) -> None:
    """Register the hives, and one machine that nobody reaches."""
    nodes = [
        {
            "node_name": NODE.format(number),
            "ssh_host": simulated_hives.address(number),
            "hive_port": port,
            "hive_key": simulated_hives.KEY,
        }
        for number in range(hives)
    ]
    nodes.append({**nodes[0], "node_name": NODE.format(99), "ssh_host": "127.1.9.9"})
    queen.post("/v2/registry/beehives/add-many", {"nodes": nodes})
    workers = hives * simulated_hives.WORKERS_A_HIVE
    eventually(lambda: len(queen.workers()) == workers + 1, within=30, because="all workers are known")


@pytest.mark.parametrize("hives", [1, 40])
def test_nothing_is_wider_than_the_screen(modules: Path, machine: Machine, hives: int) -> None:
    """Names of sixty characters and eight devices a machine fit on a screen and on a phone, and axe finds nothing."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    port = machine.ports[9]
    with fleet(port, hives):
        register(queen, port, hives)
        queen.http.put(f"/v2/served/{SERVED}", json={"model": queen.model, "replicas": 1}).raise_for_status()
        model = "hf:an-organisation-with-a-name/Bees-Instruct-480B-A35B-Preview-2026-11-GGUF:UD-Q4_K_XL"
        queen.http.put("/v2/served/other", json={"model": model, "replicas": 0}).raise_for_status()
        with queen.client(CLIENT, models=[SERVED]) as client:
            asked = {"model": SERVED, "messages": [{"role": "user", "content": "Bees?"}], "max_tokens": 3}
            client.post("/v1/chat/completions", json=asked).raise_for_status()
        shown = {
            "fleet": NODE.format(hives - 1),
            "models": "an-organisation-with-a-name",
            "activity": CLIENT,
            "chat": "New conversation",
            "logs": "worker started",
            "keys": CLIENT,
        }
        for width in (1280, 390):
            steps: list[tuple[Any, ...]] = []
            for view, text in shown.items():
                steps += [
                    ("view", view),
                    ("sees" if view != "models" else "sees_title", text),
                    ("axe", view),
                    ("widest",),
                ]
                steps += [("shot", f"{hives}-nodes-{width}-{view}", view != "logs")]
            if hives > 1:  # then one looks for a machine by a word of it
                word = "Not connected"
                steps += [("view", "fleet"), ("fills", "Show", word), ("sees", f"1 of {hives + 2} machines")]
                steps += [("count", ".nodes > section")]
            found = browse(modules, link(machine), *steps, width=width, axe=True)
            if hives > 1:
                assert found["texts"].pop() == 1
            assert {view: rules for view, rules in found["violations"].items() if rules} == {}
            assert max(found["texts"]) <= 0, dict(zip(shown, found["texts"], strict=True))
