"""A queen with a real model, an honest client, and a hostile one that goes through all attacks, round after round."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx

from tests.hostile.attacks import ATTACKS, Target, name_of
from tests.support.machine import Machine
from tests.support.queens import QueenProcess, parsed
from tests.support.waiting import slowness

MODEL = "demo"
TOKENS = 16
QUIET_ANSWERS = 10
MAX_SLOWER = 2.0
MAX_GROWTH = 1.15
WARM_ROUNDS = 10
"""Rounds until the allocators have had the largest bodies at once that they will have."""

_WITHIN_S = 120.0
_NO_ANSWER = ("ReadTimeout", "without an error body")


@dataclass
class Findings:
    """What a run saw: first tokens in seconds, memory in bytes by program, and what was broken."""

    quiet_first_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    answers: dict[str, Counter[str]] = field(default_factory=dict)
    early_bytes: dict[str, int] = field(default_factory=dict)
    late_bytes: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def slower(self) -> float:
        """Return the median first token under attack, over that of a quiet queen."""
        return median(self.first_s) / median(self.quiet_first_s)

    @property
    def growth(self) -> dict[str, float]:
        """Return the memory at the end over that after `WARM_ROUNDS`, by program."""
        return {name: self.late_bytes[name] / early for name, early in self.early_bytes.items()}

    @property
    def exceeded(self) -> list[str]:
        """Return the limits that were exceeded; only a long run on a quiet machine tells."""
        slow = [f"first tokens came {self.slower:.2f} x later than in quiet"] if self.slower > MAX_SLOWER else []
        grown = [f"the memory of {name} grew {by:.2f} x" for name, by in self.growth.items() if by > MAX_GROWTH]
        return slow + grown

    def receipt(self) -> str:
        """Describe the run for a person."""
        lines = [
            f"{name:18} " + ", ".join(f"{how} x {count}" for how, count in sorted(seen.items()))
            for name, seen in self.answers.items()
        ]
        if self.first_s and self.quiet_first_s:
            lines.append(
                f"honest client: {len(self.first_s)} answers, first token {median(self.first_s) * 1000:.0f} ms, "
                f"quiet {median(self.quiet_first_s) * 1000:.0f} ms: {self.slower:.2f} x"
            )
        lines += [
            f"{name:18} {self.early_bytes[name] / 1e6:.1f} -> {self.late_bytes[name] / 1e6:.1f} MB ({growth:.2f} x)"
            for name, growth in self.growth.items()
        ]
        return "\n".join([*lines, *(f"BROKEN: {violation}" for violation in self.violations), *self.exceeded])


def run(root: Path, *, seconds: float, seed: int, say: Callable[[str], None]) -> Findings:
    """Attack a queen below *root* for *seconds*, and at least once with each attack."""
    machine, findings, chance = Machine(root), Findings(), random.Random(seed)
    try:
        queen = QueenProcess(machine)
        honest, hostile = (_client_of(queen, name) for name in ("honest", "eve"))
        _answer(honest)  # loads the model
        findings.quiet_first_s = [_answer(honest) for _ in range(QUIET_ANSWERS)]
        stopping = threading.Event()
        asking = threading.Thread(target=_keep_asking, args=(honest, findings, stopping), daemon=True)
        asking.start()
        ends = time.monotonic() + seconds
        try:
            for number in itertools.count(1):
                _round(hostile, chance, findings)
                say(f"{max(0, ends - time.monotonic()):.0f} s left, {len(findings.first_s)} honest answers")
                if number <= WARM_ROUNDS:
                    findings.early_bytes = _memory(machine)
                if time.monotonic() >= ends:
                    break
        finally:
            stopping.set()
            asking.join(_WITHIN_S * slowness())
        findings.late_bytes = _memory(machine)
    finally:
        machine.close()
    for name, seen in findings.answers.items():
        findings.violations += [f"{name}: {how}" for how in seen if how.startswith("500") or how.endswith(_NO_ANSWER)]
    return findings


def _client_of(queen: QueenProcess, name: str) -> Target:
    key = queen.post("/v2/keys/add", {"name": name})["key"]
    return Target("127.0.0.1", queen.machine.queen_port, key, MODEL)


def _round(target: Target, chance: random.Random, findings: Findings) -> None:
    for attack in ATTACKS:
        findings.answers.setdefault(name_of(attack), Counter())[attack(target, chance)] += 1


def _answer(target: Target) -> float:
    """Have one streamed answer; return the seconds to its first token. Raises RuntimeError if it is not whole."""
    body = {
        "model": target.model,
        "messages": [{"role": "user", "content": f"Name a bee. {random.random()}"}],
        "max_tokens": TOKENS,
        "stream": True,
    }
    began, first, events = time.monotonic(), 0.0, []
    with httpx.stream(
        "POST",
        f"http://{target.host}:{target.port}/v1/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {target.key}"},
        timeout=_WITHIN_S * slowness(),
        trust_env=False,
    ) as response:
        if response.status_code != 200:
            raise RuntimeError(f"{response.status_code}: {response.read()[:500]!r}")
        for _, data in parsed(response.iter_lines()):
            events.append(data)
            if not first and isinstance(data, dict) and data["choices"] and data["choices"][0]["delta"].get("content"):
                first = time.monotonic() - began
    if not any(isinstance(data, dict) and data["choices"] and data["choices"][0]["finish_reason"] for data in events):
        raise RuntimeError(f"the answer is not whole: {events[-3:]}")
    return first


def _keep_asking(target: Target, findings: Findings, stopping: threading.Event) -> None:
    while not stopping.is_set():
        try:
            findings.first_s.append(_answer(target))
        except (RuntimeError, httpx.HTTPError, KeyError) as error:
            findings.violations.append(f"an honest answer failed: {type(error).__name__}: {error}")


def _memory(machine: Machine) -> dict[str, int]:
    """Return the resident bytes of each program."""
    found: dict[str, int] = {}
    for program in ("queen-rbee", "rbee-hive", "llm-worker-rbee"):
        for process in machine.processes(program):
            found[program] = found.get(program, 0) + process.memory_info().rss
    return found
