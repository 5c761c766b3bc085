"""How long machines take to become a fleet: real hosts on this one, which share its cores, so that ten are slow.

The peer is what is promised. Every run's outcome is checked, so that a fast failure is never taken for speed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.rows import Row
from rbee.fleet.events import HostTask
from tests.ansible.machines import MODEL, Controller
from tests.rig.commands import RigError, RigUnavailable
from tests.rig.rig import Rig
from tests.support.constant_load import ask
from tests.support.waiting import eventually

_PROMISED = "promised"
_COUNTS = (1, 3, 10)
_FIRST_S = 180.0
_SECOND_S = 25.0
_DEAD_S = 10.0
_FIRST_TOKEN_S = 300.0
# What a worker has to finish its request; these have none.
_CASCADE_S = 30.0
_WORKERS_EACH = 2
_GONE_S = 10.0
_OURS = "/bin/(rbee-hive|llm-worker-rbee|queen-rbee)"


def provisioning(_rounds: int) -> Iterator[Row]:
    """First and second run on 1, 3 and 10 machines, one machine more, one dead, and the way to a first token."""
    one_s = 0.0
    for count in _COUNTS:
        with _fleet(count) as controller:
            began = time.perf_counter()
            first_s, tasks = _site(controller)
            if count == _COUNTS[0]:
                one_s, one_tasks = first_s, tasks
                key = (controller.home / "secrets" / "api-key").read_text(encoding="utf-8").strip()
                ask(controller.queen_url, key, model=MODEL)
                yield Row("first_token", time.perf_counter() - began, _FIRST_TOKEN_S, _PROMISED, "s", "<=1.0")
            yield Row(f"first_run_{count}", first_s, _FIRST_S, _PROMISED, "s", "<=1.0")
            yield Row(f"tasks_{count}", tasks, count * one_tasks, f"{count} x one", "tasks", "<=1.0")
            second_s, _ = _site(controller, changes=False)
            yield Row(f"second_run_{count}", second_s, _SECOND_S, _PROMISED, "s", "<=1.0")
            if count == _COUNTS[-1]:
                yield _one_dead(controller, second_s)
                yield from _cascade(controller)
            if count == _COUNTS[1]:
                yield _one_more(controller, one_s)


def _one_dead(controller: Controller, alive_s: float) -> Row:
    """Measure by how much one machine without a cable delays the others."""
    dead = controller.rig["h2"]
    dead.cut_cable()
    try:
        took, _ = _site(controller, changes=False, dead=dead.name)
    finally:
        dead.mend_cable()
    return Row("one_dead_delay", max(0.1, took - alive_s), _DEAD_S, _PROMISED, "s", "<=1.0")


def _one_more(controller: Controller, one_s: float) -> Row:
    """Measure what one machine more costs, beside what one alone did."""
    host = controller.rig.add_host("extra")
    more = Controller(controller.rig, controller.home, queen=True)
    began = time.perf_counter()
    result = more.play("deploy-hives", host.name)
    if not result.report.succeeded:
        raise RuntimeError(str(result.report.error()))
    return Row("one_more", time.perf_counter() - began, one_s, "one alone", "s", "<=1.0")


def _cascade(controller: Controller) -> list[Row]:
    """Measure how long one word to the queen takes to end all hives with two workers each; it ends the fleet.

    Until it has accounted for all, and until every process is seen to be gone.
    """
    key = (controller.home / "secrets" / "api-key").read_text(encoding="utf-8").strip()
    with httpx.Client(
        base_url=controller.queen_url, headers={"Authorization": f"Bearer {key}"}, timeout=300, trust_env=False
    ) as queen:
        for host in controller.rig:
            for _ in range(_WORKERS_EACH):
                answer = queen.post("/v2/workers/spawn", json={"node": host.name, "model": MODEL}).text
                if '"worker":' not in answer:
                    raise RuntimeError(f"{host.name}: {answer[-500:]}")
        began = time.perf_counter()
        receipt = queen.post("/v1/admin/shutdown", json={}).json()
        receipt_s = time.perf_counter() - began
    gone = sum(len(hive["workers"]) for hive in receipt["hives"])
    if gone < _WORKERS_EACH * len(controller.rig):
        raise RuntimeError(f"the receipt names {gone} workers: {receipt}")
    for host in controller.rig:
        eventually(
            lambda host=host: not host.inside("pgrep", "-f", _OURS, check=False).stdout,  # type: ignore[misc]
            within=_GONE_S,
            because=f"nothing of ours runs on {host.name}",
        )
    ended = time.perf_counter() - began
    return [
        Row("cascade_10x2_receipt", receipt_s, _CASCADE_S, _PROMISED, "s", "<=1.0"),
        Row("cascade_10x2_gone", ended, _CASCADE_S, _PROMISED, "s", "<=1.0"),
    ]


@contextmanager
def _fleet(count: int) -> Iterator[Controller]:
    try:
        with Rig(count) as rig, tempfile.TemporaryDirectory(prefix="rbee-bench-") as home:
            yield Controller(rig, Path(home), queen=True)
    except (RigUnavailable, RigError) as reason:
        raise RuntimeError(str(reason)) from reason


def _site(controller: Controller, *, changes: bool = True, dead: str | None = None) -> tuple[float, int]:
    """Run the whole site; give seconds and the tasks that were done on all machines."""
    controller.events.clear()
    began = time.perf_counter()
    report = controller.play("site").report
    took = time.perf_counter() - began
    for name, host in report.hosts.items():
        if name != dead and (host.cause is not None or bool(host.changed) != changes):
            raise RuntimeError(f"{name} came out {host.verdict.value}, changed {host.changed}, because of {host.cause}")
    return took, sum(isinstance(event, HostTask) for event in controller.events)
