"""Declared models on real daemons: they come up unasked, come back, give way to each other and are rolled out."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.gguf_files import write_gguf
from tests.support.hives import KEY, StartHive
from tests.support.machine import Machine
from tests.support.queens import QueenProcess, ended_well, machine_with_fake, told
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process

LOAD_S = 0.4
GB = 1_000_000_000


@pytest.fixture(name="need", scope="module")
def _need(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Give the bytes that a worker of a test's model is expected to take."""
    with machine_with_fake(tmp_path_factory.mktemp("need")) as machine:
        queen = QueenProcess(machine)
        queen.task()
        need: int = queen.worker()["need_bytes"]
        return need


class Fleet:
    """One machine with memory for some workers, and declared models a, b, c of a file each."""

    def __init__(self, machine: Machine, memory_bytes: int) -> None:
        self.machine = machine
        machine.configure("hive", cpu_memory_gb=memory_bytes / GB, slots=4)
        self.queen = QueenProcess(machine)

    def declare(self, name: str, **more: Any) -> None:
        """Declare a model of that name."""
        path = self.machine.root / f"{name}.gguf"
        if not path.exists():
            write_gguf(path)
        body = {"model": f"file://{path}", **more}
        response = self.queen.http.put(f"/v2/served/{name}", json=body)
        assert response.status_code == 200, response.text

    def ask(self, name: str, **fields: Any) -> str:
        """Have a model write; give the narration."""
        events = self.queen.task(model=name, **fields)
        assert ended_well(events), events[-3:]
        return told(events)

    def status(self, name: str) -> tuple[str, str]:
        """Give how a declared model stands, and why."""
        rows = {row["declared"]["name"]: row for row in self.queen.get("/v2/served")["served"]}
        return rows[name]["state"], rows[name]["reason"]

    def serving(self) -> Counter[str]:
        """Count the workers that serve, by name."""
        return Counter(row["served"] for row in self.queen.workers() if row["state"] in ("idle", "busy"))

    def becomes(self, **wanted: int) -> None:
        """Wait until exactly these models have so many workers."""
        eventually(lambda: self.serving() == Counter(wanted), within=20, because=f"{wanted} serve")

    def another(self, *, than: str) -> str:
        """Wait until the only worker, which serves, is another one; return its id."""

        def serves() -> str:
            found = [row["worker_id"] for row in self.queen.workers() if row["state"] in ("idle", "busy")]
            return str(found[0]) if len(found) == 1 and found[0] != than else ""

        return eventually(serves, within=30, because="another worker serves")

    def evictions(self) -> int:
        """Count the workers that gave way so far."""
        lines = self.queen.http.get("/metrics").text.splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("rbee_queen_evictions_total"))


@contextmanager
def fleet(root: Path, memory_bytes: float, **fake: Any) -> Iterator[Fleet]:
    with machine_with_fake(root, **{"load_s": LOAD_S, **fake}) as machine:
        yield Fleet(machine, int(memory_bytes))


def verdicts(it: Fleet, name: str) -> list[str]:
    return [row["verdict"] for row in it.queen.get("/v2/explain", model=name)["candidates"]]


def test_a_declared_model_comes_up_unasked_and_comes_back(tmp_path: Path, need: int) -> None:
    """After its declaration, the end of its worker, of its hive, and of the queen, its replica serves again."""
    with fleet(tmp_path, 3 * need) as it:
        it.declare("a", replicas=1, slots=2)
        it.becomes(a=1)
        assert it.queen.worker()["slots_total"] == 2
        eventually(lambda: it.status("a") == ("serving", ""), within=5, because="it is told that it serves")
        before = it.queen.worker()["worker_id"]
        for _ in range(2):
            psutil.Process(it.queen.worker()["pid"]).kill()
            before = it.another(than=before)
        it.queen.hive().kill()
        it.another(than=before)
        it.queen.running.process.kill()
        it.queen.running.process.wait(10)
        it.queen = QueenProcess(it.machine)
        it.becomes(a=1)
        it.ask("a")


def test_an_idle_model_gives_way_to_one_that_is_asked_for(tmp_path: Path, need: int) -> None:
    """Its worker ends, its memory is seen to be back, and the other one answers; and the other way round."""
    with fleet(tmp_path, 1.5 * need) as it:
        it.declare("a")
        it.declare("b")
        it.ask("b")  # so that its size is known
        it.ask("a")
        eventually(
            lambda: verdicts(it, "b") == ["fits_after_eviction"], within=5, because="its hive reports that a is idle"
        )
        assert "ending a, unused for" in it.ask("b")
        assert it.serving() == Counter(b=1)
        it.ask("a")
        assert (it.serving(), it.evictions()) == (Counter(a=1), 3)


def test_a_model_that_generates_is_waited_for(tmp_path: Path, need: int) -> None:
    """Nobody's answer is cut for another model, and who waits is told for whom."""
    with fleet(tmp_path, 1.5 * need, tokens_per_s=40) as it:
        it.declare("a")
        it.declare("b")
        long = it.queen.aside(model="a", max_tokens=int(80 * slowness()))
        long.tokens(5)
        assert "waits for memory on localhost: the rest is used by a, which is in use" in it.ask("b")
        assert ended_well(long.ended())
        assert it.serving() == Counter(b=1)


def test_two_models_that_are_asked_for_at_once_take_turns(tmp_path: Path, need: int) -> None:
    """Twenty requests for each of two models that exclude each other are all answered, with at most four swaps."""
    with fleet(tmp_path, 1.5 * need, tokens_per_s=100) as it:
        it.declare("a")
        it.declare("b")
        it.ask("a")
        with ThreadPoolExecutor(40) as pool:
            names = ["a", "b"] * 20
            answers = list(pool.map(lambda name: it.queen.task(model=name, max_tokens=20), names))
        assert all(map(ended_well, answers)), [each[-1] for each in answers if not ended_well(each)]
        swaps = it.evictions()
        assert 1 <= swaps <= 4


def test_two_requests_that_need_the_same_memory_are_both_answered(tmp_path: Path, need: int) -> None:
    """One model gives way, one after the other gets its memory, and no worker is ended that is in use."""
    with fleet(tmp_path, 1.5 * need) as it:
        for name in "abc":
            it.declare(name)
        it.ask("a")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(it.ask, ["b", "c"]))
        assert sum(it.serving().values()) == 1
        assert it.evictions() == 2


def test_a_pinned_model_never_gives_way(tmp_path: Path, need: int) -> None:
    """A request for another one is refused with figures; a second pinned one has the reason in its status."""
    with fleet(tmp_path, 1.5 * need) as it:
        it.declare("a", replicas=1, keep="always")
        it.becomes(a=1)
        it.declare("b", replicas=1, keep="always")

        def told() -> bool:
            state, reason = it.status("b")
            return state == "missing" and "MB" in reason

        eventually(told, within=10, because="there is no memory for b")
        status, error = it.queen.refused("POST", "/v2/tasks", it.queen.request_body(model="b"))
        assert (status, error["code"]) == (507, "RAM_EXHAUSTED")
        assert it.serving() == Counter(a=1)
        assert it.evictions() == 0


def test_changed_settings_are_rolled_out_without_a_lost_request(tmp_path: Path, need: int) -> None:
    """With memory for both the new worker comes first, without it the old one ends first; every request is answered."""
    for memory in (3 * need, 1.5 * need):
        root = tmp_path / str(memory)
        root.mkdir()
        with fleet(root, memory, tokens_per_s=200) as it:
            it.declare("a", replicas=1, slots=2)
            it.becomes(a=1)
            before = it.queen.worker()["worker_id"]
            with requests(lambda: it.ask("a", max_tokens=10)) as errors:
                it.declare("a", replicas=1, slots=3)
                eventually(
                    lambda: [row["slots_total"] for row in it.queen.workers()] == [3], within=20, because="rolled out"
                )
            assert errors == []
            assert it.queen.worker()["worker_id"] != before


def test_requests_follow_a_declaration_that_changes_while_they_wait(tmp_path: Path, need: int) -> None:
    """A dozen requests that wait while their model is declared anew are answered by the new worker, with few loads."""
    with fleet(tmp_path, 1.5 * need) as it:
        it.declare("a", replicas=1)
        with ThreadPoolExecutor(12) as pool:
            answers = [pool.submit(it.ask, "a") for _ in range(12)]
            it.declare("a", replicas=1, slots=3)
            for answer in answers:
                answer.result()
        eventually(
            lambda: [row["slots_total"] for row in it.queen.workers()] == [3], within=20, because="the new one serves"
        )
        loads = it.queen.running.stderr.read_text().count("hive localhost: started worker")
        assert loads <= 3


def test_a_request_that_waits_for_a_load_that_is_ended_waits_for_the_next_one(tmp_path: Path, need: int) -> None:
    """Where a declaration changes while its worker loads, and there is no memory for two, no request is lost."""
    with fleet(tmp_path, 1.5 * need, load_s=2 * slowness()) as it:
        it.declare("a", replicas=1, slots=3)
        it.becomes(a=1)  # so that its size is known
        it.declare("a", replicas=1, slots=2)
        eventually(
            lambda: [(row["state"], row["options"]["slots"]) for row in it.queen.workers()] == [("loading", 2)],
            within=20,
            because="the next one loads",
        )
        it.declare("a", replicas=1, slots=3)
        assert "is loading a.gguf" in it.ask("a")
        assert it.queen.worker()["slots_total"] == 3
        assert "ended before it was ready" not in it.queen.running.stderr.read_text()


def test_a_request_for_what_is_not_declared_any_more_is_refused(tmp_path: Path, need: int) -> None:
    """One that waits for memory is told so, and nothing gives way for it."""
    with fleet(tmp_path, 1.5 * need, tokens_per_s=30) as it:
        it.declare("a")
        it.declare("b")
        busy = it.queen.aside(model="a", max_tokens=int(90 * slowness()))
        busy.tokens(3)
        waiting = it.queen.aside(model="b")
        eventually(lambda: "waits for memory" in told(waiting.events), within=10, because="b waits for a")
        assert it.queen.http.delete("/v2/served/b").status_code == 204
        assert waiting.saw("error")["error"]["code"] == "MODEL_NOT_FOUND"
        assert ended_well(busy.ended())
        assert (it.serving(), it.evictions()) == (Counter(a=1), 0)


def test_a_start_that_failed_is_told_until_one_does_not(tmp_path: Path, need: int) -> None:
    """Of a model on demand nobody else says why it does not come: its state and the explanation do."""
    with fleet(tmp_path, 3 * need) as it:
        gone = it.machine.root / "a.gguf"
        it.declare("a")
        gone.unlink()
        assert not ended_well(it.queen.task(model="a"))
        eventually(lambda: it.status("a")[0] == "on demand", within=10, because="the next look finds no start")
        reason = it.status("a")[1]
        assert reason.startswith("its last start failed: localhost: ")
        assert str(gone) in reason
        assert reason in it.queen.get("/v2/explain", model="a")["next"]
        write_gguf(gone)
        it.ask("a")
        eventually(lambda: it.status("a")[1] == "", within=5, because="its last start did not fail")


def test_what_is_kept_follows_the_declaration(tmp_path: Path, need: int) -> None:
    """A worker that was kept always gives way once its model is on demand, and one that is pinned later stays."""
    with fleet(tmp_path, 1.5 * need) as it:
        it.declare("a", replicas=1, keep="always")
        it.becomes(a=1)
        it.declare("a")
        it.declare("b")
        it.ask("b")
        it.declare("b", keep="always")
        status, error = it.queen.refused("POST", "/v2/tasks", it.queen.request_body(model="a"))
        assert (status, error["code"]) == (507, "RAM_EXHAUSTED")
        assert it.serving() == Counter(b=1)


def test_what_is_not_declared_any_more_ends(tmp_path: Path, need: int) -> None:
    """Its workers end once they are idle."""
    with fleet(tmp_path, 3 * need) as it:
        it.declare("a", replicas=2)
        it.becomes(a=2)
        assert it.queen.http.delete("/v2/served/a").status_code == 204
        it.becomes()


def test_a_model_that_crashes_every_worker_is_tried_with_patience(tmp_path: Path, need: int) -> None:
    """The reason is in its status, the pauses grow, and the others are served."""
    with machine_with_fake(tmp_path, load_fails="model") as machine:
        it = Fleet(machine, 3 * need)
        it.declare("a", replicas=1)

        def twice() -> bool:
            state, reason = it.status("a")
            return state == "missing" and "failed 2 times" in reason

        eventually(twice, within=20, because="it was tried twice")


def test_two_queens_on_one_hive_serve_each_its_own_model(tmp_path: Path, start_hive: StartHive) -> None:
    """Where both declare the same name, a request to it is answered by the model that its queen has declared."""
    hive = start_hive()
    node = {"node_name": "h1", "ssh_host": "127.0.0.1", "hive_port": hive.port, "hive_key": KEY}
    with machine_with_fake(tmp_path / "one") as one, machine_with_fake(tmp_path / "two") as two:
        queens = {}
        for machine in (one, two):
            machine.configure("queen", local_hive=False)
            model = f"file://{write_gguf(machine.root / 'own.gguf')}"
            machine.configure("served.chat", model=model, slots=3)
            queens[model] = QueenProcess(machine)
            queens[model].post("/v2/registry/beehives/add", node)
        for model, queen in queens.items():
            queen.post("/v1/completions", {"model": "chat", "prompt": "x", "max_tokens": 2})
            ((worker,),) = [row["workers"] for row in queen.get("/v2/served")["served"]]
            assert [row["model_ref"] for row in hive.workers() if row["worker_id"] == worker["worker_id"]] == [model]
        assert len(hive.workers()) == 2


@contextmanager
def requests(one: Callable[[], object]) -> Iterator[list[Exception]]:
    """Send one request after the other from three threads while the block runs; give what went wrong."""
    over = threading.Event()
    errors: list[Exception] = []

    def run() -> None:
        while not over.is_set():
            try:
                one()
            except (AssertionError, OSError) as error:
                errors.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield errors
    finally:
        over.set()
        for thread in threads:
            thread.join(30 * slowness())
