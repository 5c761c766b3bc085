"""The run: kill something, see what became of it, ask once more, repeat."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from tests.chaos.fleet import Fleet, fleet, seconds_until_gone
from tests.chaos.load import Load
from tests.chaos.tally import ORPHANS_GONE_S, REGISTRY_RIGHT_S, Tally
from tests.support.queens import count, ended_well
from tests.support.waiting import slowness

VICTIMS = {"llm-worker-rbee": 7, "rbee-hive": 5, "queen-rbee": 4, "rbee-keeper": 4}
CLIENTS = 2
LONGEST_WAIT_S = 0.6
ANSWER_WITHIN_S = 60.0
Say = Callable[[str], None]


def run(root: Path, *, kills: int, seed: int, say: Say) -> Tally:
    """Kill *kills* daemons; what is random follows from *seed*."""
    tally, chance = Tally(seed), random.Random(seed)
    with fleet(root) as made, Load(made, tally, clients=CLIENTS, seed=seed):
        _answered(made, tally)
        # One of each kind to begin with, so that a short run leaves nobody out.
        planned = chance.sample(list(VICTIMS), len(VICTIMS))
        while tally.kills.total() < kills:
            victim = planned[0] if planned else chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
            time.sleep(chance.uniform(0, LONGEST_WAIT_S))
            if victim == "rbee-keeper":
                _kill_keeper(made, tally, chance)
            elif not _kill_daemon(made, tally, chance, victim):
                continue  # none runs just now
            planned = planned[1:]
            number = tally.kills.total()
            if number % 10 == 0 or number == kills:
                say(f"{number} of {kills} kills, {len(tally.violations)} promises broken")
    return tally


def _kill_daemon(made: Fleet, tally: Tally, chance: random.Random, victim: str) -> bool:
    running = made.processes(victim)
    if not running:
        _answered(made, tally)
        return False
    process = chance.choice(running)
    descendants = _descendants(process)
    was_attic = process.pid == made.attic.process.pid
    if victim == "queen-rbee":
        made.doomed.add(process.pid)
    began = time.monotonic()
    process.send_signal(signal.SIGKILL)
    _orphans_gone(tally, victim, descendants, began)
    if victim == "queen-rbee":
        made.restart_queen()
        began = time.monotonic()
    else:
        lost = {process.pid} | descendants if victim == "llm-worker-rbee" else descendants
        _noticed(made, tally, victim, lost, began)
    if was_attic:
        made.restart_attic()
    _registry_right(made, tally, victim, began)
    _answered(made, tally)
    _cancelled(made, tally)
    tally.kills[victim] += 1
    return True


def _kill_keeper(made: Fleet, tally: Tally, chance: random.Random) -> None:
    """Kill a keeper at any moment of its cold start or its answer: its queen, hive and worker go with it."""
    keeper = made.infer(max_tokens=400)
    time.sleep(chance.uniform(0, 3.0))
    # A process that it starts in the very moment of its end is found afterwards.
    before = {process.pid for process in made.keepers.processes()} - {keeper.process.pid}
    began = time.monotonic()
    keeper.process.kill()
    keeper.process.wait()
    _orphans_gone(tally, "rbee-keeper", before | {process.pid for process in made.keepers.processes()}, began)
    tally.kills["rbee-keeper"] += 1
    began = time.monotonic()
    after = made.infer().wait(ANSWER_WITHIN_S)
    tally.took("cold start after a keeper", time.monotonic() - began)
    if after.code:
        tally.broken(f"the next infer after a killed keeper failed: {after.stderr.strip().splitlines()[-3:]}")


def _orphans_gone(tally: Tally, victim: str, pids: set[int], began: float) -> None:
    if not pids:
        return
    seconds, left = seconds_until_gone(pids, began, 5 * ORPHANS_GONE_S * slowness())
    tally.took(f"orphans of {victim} gone", seconds)
    if left or seconds > ORPHANS_GONE_S * slowness():
        tally.broken(f"{len(left)} of {len(pids)} orphans of {victim} were there after {seconds:.1f} s")


def _noticed(made: Fleet, tally: Tally, victim: str, pids: set[int], began: float) -> None:
    """Wait until the queen no longer lists what is gone."""
    while pids & {row["pid"] for row in made.queen.workers()}:
        if time.monotonic() - began > REGISTRY_RIGHT_S * slowness():
            tally.broken(f"the queen still lists workers of a killed {victim}")
            return
        time.sleep(0.01)
    tally.took(f"{victim} noticed by the queen", time.monotonic() - began)


def _registry_right(made: Fleet, tally: Tally, victim: str, began: float) -> None:
    """Wait until what the queen lists is what runs; under load it may be wrong again a moment later."""
    while (wrong := made.contradiction()) is not None:
        if time.monotonic() - began > REGISTRY_RIGHT_S * slowness():
            tally.broken(f"after a killed {victim}, {wrong}")
            return
        time.sleep(0.02)
    tally.took("registry right", time.monotonic() - began)


def _answered(made: Fleet, tally: Tally) -> None:
    """Ask the next question: it must be answered, at the first try."""
    began = time.monotonic()
    try:
        events = made.queen.task(node=None, model=made.model, max_tokens=5)
    except (httpx.HTTPError, AssertionError) as error:
        tally.broken(f"the next request was not taken: {error}")
        return
    tally.took("next request answered", time.monotonic() - began)
    if not ended_well(events) or count(events) != 5:
        tally.broken(f"the next request was not answered: {events[-1]}")


def _cancelled(made: Fleet, tally: Tally) -> None:
    """Cancel an answer in the middle; the acknowledgement means that its slot is free."""
    aside = made.queen.aside(node=None, model=made.model, max_tokens=2000)
    try:
        aside.tokens(2)
        task_id = aside.saw("task")["task_id"]
    except AssertionError as error:
        tally.broken(f"a stream to be cancelled did not come up: {error}")
        return
    began = time.monotonic()
    made.queen.http.delete(f"/v2/tasks/{task_id}").raise_for_status()
    tally.took("cancel acknowledged", time.monotonic() - began)
    aside.ended()


def _descendants(process: psutil.Process) -> set[int]:
    try:
        return {child.pid for child in process.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()
