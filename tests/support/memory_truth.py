"""Compare what is estimated for a load with what a real worker then takes, used to the full."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rbee.contracts.devices import Backend
from rbee.contracts.engine import CacheName
from rbee.gguf.header import read_header
from rbee.hive.memory import LoadOptions, estimate
from tests.support.models import smollm2_as, smollm2_path
from tests.support.worker import worker

Quantisation = Literal["Q4_1", "F16", "Q4_0", "Q8_0"]
# Eight prompts at once take long on a machine that is busy with something else.
PATIENCE_S = 300.0
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Case:
    """A model and how it is loaded."""

    quantisation: Quantisation
    context: int
    slots: int
    cache_type: CacheName = "f16"
    flash_attention: bool | None = None
    prompt_batch: int | None = None
    speculate: int = 0

    @property
    def name(self) -> str:
        """Name it in a table."""
        cache = "" if self.cache_type == "f16" else f", cache {self.cache_type}"
        flash = "" if self.flash_attention is None else f", flash {self.flash_attention}".lower()
        batch = "" if self.prompt_batch is None else f", batch {self.prompt_batch}"
        guesses = f", guesses {self.speculate}" if self.speculate else ""
        return f"{self.quantisation}, {self.slots} x {self.context}{cache}{flash}{batch}{guesses}"

    @property
    def load(self) -> LoadOptions:
        """Give it as the hive knows it."""
        return LoadOptions(
            Backend.CPU,
            self.slots,
            self.context,
            self.cache_type,
            self.flash_attention,
            self.prompt_batch,
            self.speculate,
        )

    @property
    def options(self) -> list[str]:
        """Give the worker's options."""
        named = {
            "--context-length": self.context,
            "--slots": self.slots,
            "--cache-type": self.cache_type,
            "--flash-attention": self.flash_attention,
            "--prompt-batch": self.prompt_batch,
            "--speculate": self.speculate,
        }
        return [word for name, value in named.items() if value is not None for word in (name, str(value).lower())]


@dataclass(frozen=True, slots=True)
class Truth:
    """What was expected and what was taken, in bytes."""

    case: Case
    expected: int
    taken: int

    @property
    def error(self) -> float:
        """Give how much was expected too much, as a share of what was taken; negative means too little."""
        return self.expected / self.taken - 1


CASES = (
    Case("Q4_1", 512, 1),
    Case("Q4_1", 2048, 4),
    Case("Q4_1", 8192, 1),
    Case("Q4_1", 1024, 8),
    Case("Q4_1", 1024, 2, "q8_0"),
    Case("Q4_1", 2048, 2, flash_attention=False),
    Case("Q4_1", 1024, 2, prompt_batch=512),
    Case("Q4_1", 1024, 2, prompt_batch=16),
    Case("Q4_1", 1024, 2, speculate=32),
    Case("Q4_0", 1024, 2),
    Case("Q8_0", 1024, 2),
    Case("F16", 1024, 2),
)


def measure(case: Case, folder: Path) -> Truth:
    """Load the model in a worker, use every slot at once, and look at the most it took.

    A prompt of more than one batch touches all that a longer one would: the cache is written through when it is made.
    """
    path = smollm2_path() if case.quantisation == "Q4_1" else smollm2_as(case.quantisation)
    expected = estimate(read_header(path), case.load)
    with worker(folder, *case.options, model=path) as running:
        running.until_idle()
        running.http.timeout = PATIENCE_S
        prompt = "bees and honey, flowers and wax; " * 16
        asking = [
            threading.Thread(target=running.infer, kwargs={"prompt": prompt, "raw": True, "max_tokens": 8})
            for _ in range(case.slots)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        return Truth(case, expected, peak_bytes(running.process.pid))


def peak_bytes(pid: int) -> int:
    """Read the most memory that a process has held."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, status
    return int(found[1]) * 1024
