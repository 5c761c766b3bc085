"""How a real hive starts, watches and ends its workers (stand-ins, as real processes)."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.gguf_files import write_gguf
from tests.support.hives import StartHive, alive
from tests.support.machine import free_ports
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process


@pytest.mark.B27
@pytest.mark.B28
def test_a_worker_is_started_and_comes_up(start_hive: StartHive, model: str) -> None:
    """A spawn answers at once with `loading`, the worker calls back, and the list shows it with its slots."""
    hive = start_hive(env={"STAND_IN_LOAD_S": "0.3"})

    link = hive.spawn(model, slots=3)

    worker = link["worker"]
    assert worker["state"] == "loading"
    assert worker["context_length"] == 2048
    row = hive.serving(worker["worker_id"])
    assert (row["slots_total"], row["slots_available"], row["backend"], row["device"]) == (3, 3, "cpu", 0)
    log = (hive.home / "logs" / f"{worker['worker_id']}.log").read_text()
    assert "is registered" in log
    process = psutil.Process(worker["pid"])
    assert link["api_key"] not in " ".join(process.cmdline())
    assert link["api_key"] not in hive.log.read_text()


def test_the_ready_route_opens_for_that_workers_key_only(start_hive: StartHive, model: str) -> None:
    """The callback takes the key of the worker it is about; not another's, not the queen's, and no other route."""
    hive = start_hive()
    one, two = hive.spawn(model), hive.spawn(model)
    report = {"worker_id": one["worker"]["worker_id"], "url": "x", "model_ref": "x", "backend": "cpu", "device": 0}

    def answer(key: str, path: str = "/v1/workers/ready") -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(hive.url + path, json=report, headers=headers, trust_env=False).status_code

    assert answer(one["api_key"]) == 200
    assert answer(two["api_key"]) == 401
    assert answer("nonsense") == 401
    assert answer(one["api_key"], "/v1/admin/shutdown") == 401


def test_a_port_in_use_is_skipped_and_said(start_hive: StartHive, model: str) -> None:
    """A port of another program is passed over; the answer and the log say so."""
    port = free_ports(1)[0]
    hive = start_hive(first_worker_port=port)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        worker = hive.spawn(model)["worker"]

    assert not worker["url"].endswith(f":{port}")
    assert f"port {port}" in worker["detail"]
    assert any(f"port {port}" in line.get("remark", "") for line in hive.logged())


def test_a_port_lost_at_the_last_moment_is_no_failure(start_hive: StartHive, model: str, tmp_path: Path) -> None:
    """A worker whose port was taken between choice and bind comes up on another, under the same id."""
    hive = start_hive(env={"STAND_IN_PORT_LOST": str(tmp_path / "lost")})
    before = hive.spawn(model)["worker"]

    row = hive.serving(before["worker_id"])

    assert row["url"] != before["url"]
    assert before["url"].rpartition(":")[2] in row["detail"]
    assert row["pid"] != before["pid"]


@pytest.mark.B61
def test_a_worker_is_stopped_with_a_receipt(start_hive: StartHive, model: str) -> None:
    """Stopping a worker ends its process and says what was returned; a second time it is not found."""
    hive = start_hive()
    worker = hive.spawn(model)["worker"]
    hive.serving(worker["worker_id"])

    receipt = hive.post(f"/v1/workers/{worker['worker_id']}/shutdown")

    assert receipt["gone"]
    assert not receipt["killed"]
    assert receipt["memory_returned_bytes"] > 0
    assert not alive(worker["pid"])
    assert hive.workers() == []
    assert hive.refused(f"/v1/workers/{worker['worker_id']}/shutdown")["code"] == "WORKER_NOT_FOUND"


def test_a_worker_that_does_not_end_is_killed(start_hive: StartHive, model: str) -> None:
    """A worker that ignores the signal is killed after the limit, and the receipt says so."""
    hive = start_hive(env={"STAND_IN_STUBBORN": "1"}, stop_timeout_s=0.5)
    worker = hive.spawn(model)["worker"]
    hive.serving(worker["worker_id"])

    receipt = hive.post(f"/v1/workers/{worker['worker_id']}/shutdown")

    assert receipt["killed"]
    assert not alive(worker["pid"])


@pytest.mark.B39
def test_a_crash_is_noticed_at_once(start_hive: StartHive, model: str) -> None:
    """A worker that dies is out of the list within 1 s; the queen hears why, with its last lines."""
    hive = start_hive(env={"STAND_IN_CRASH_S": "0.5"})
    with hive.queen() as queen:
        worker = hive.spawn(model)["worker"]
        eventually(lambda: not alive(worker["pid"]), within=10, because="the stand-in crashes")
        began = time.monotonic()
        gone = queen.until("worker_gone")

        assert time.monotonic() - began < 1 * slowness()
        assert gone.crashed
        assert gone.error.code == "WORKER_CRASHED"
        assert "about to crash" in gone.log_tail
        assert hive.workers() == []


def test_a_hive_refuses_what_it_has_in_quarantine(start_hive: StartHive, model: str) -> None:
    """After three crashes a spawn is QUARANTINED and queens are told, unless it is asked for in spite of that."""
    hive = start_hive(env={"STAND_IN_CRASH_S": "0"})
    with hive.queen() as queen:
        for _ in range(3):
            hive.spawn(model)
            queen.until("worker_gone")
        (told,) = queen.until("quarantine_changed").quarantined
        error = hive.refused("/v1/workers/spawn", {"model": model})

        assert (told.model_ref, told.crashes) == (model, 3)
        assert (error["code"], error["details"]["crashes"]) == ("QUARANTINED", 3)
        assert "signal 11" in error["message"]
        assert 'hive_quarantined{kind="model"} 1' in hive.http.get("/metrics").text
        with hive.queen() as late:
            assert late.until("hello").quarantined == [told]
        hive.spawn(model, in_quarantine_too=True)
        assert queen.until("quarantine_changed").quarantined == []


@pytest.mark.parametrize("code", ["CUDA_DEVICE_FAILED", "GPU_VRAM_EXHAUSTED", "MODEL_INVALID"])
def test_a_failed_load_is_told_in_the_workers_words(start_hive: StartHive, model: str, code: str) -> None:
    """Why a model does not load is the worker's own error, handed on to the queen."""
    hive = start_hive(env={"STAND_IN_FAIL": code})
    with hive.queen() as queen:
        hive.spawn(model)
        gone = queen.until("worker_gone")
        figures = hive.http.get("/metrics").text

    assert f'rbee_hive_model_loads_total{{outcome="{code}"}} 1.0' in figures
    assert "rbee_hive_evictions_total 0.0" in figures
    assert gone.error.code == code
    assert gone.error.message == "The stand-in was told to fail."
    assert "the model cannot be loaded" in gone.log_tail


@pytest.mark.B33
def test_a_model_that_does_not_load_in_time_is_said(start_hive: StartHive, model: str) -> None:
    """The loading timeout names how far the worker was, and its log."""
    hive = start_hive(env={"STAND_IN_LOAD_S": "60"}, loading_timeout_s=1)
    with hive.queen() as queen:
        worker = hive.spawn(model)["worker"]
        gone = queen.until("worker_gone")

    assert gone.error.code == "LOADING_TIMEOUT"
    assert "28 of 32 layers" in gone.error.message
    assert f"{worker['worker_id']}.log" in gone.error.hint
    assert not alive(worker["pid"])


def test_a_worker_that_never_binds_is_ended(start_hive: StartHive, model: str) -> None:
    """A worker whose port is not bound in time is killed, with an error of its own."""
    hive = start_hive(env={"STAND_IN_UNBOUND": "1"}, bind_timeout_s=1)
    with hive.queen() as queen:
        hive.spawn(model)
        gone = queen.until("worker_gone")

    assert gone.error.code == "WORKER_START_FAILED"


@pytest.mark.B45
@pytest.mark.B48
def test_an_idle_worker_is_stopped_and_the_hive_stays(start_hive: StartHive, model: str) -> None:
    """After the idle time a worker and its memory are gone, and the hive answers; a busy one stays."""
    hive = start_hive(idle_timeout_s=1.5 * slowness())  # in it the test has to take a slot of the busy one
    with hive.queen() as queen:
        busy = hive.spawn(model)
        row = hive.serving(busy["worker"]["worker_id"])
        httpx.post(row["url"] + "/busy", trust_env=False)
        idle = hive.spawn(model)["worker"]
        gone = queen.until("worker_gone")

        assert gone.worker_id == idle["worker_id"]
        assert "idle" in gone.reason
        assert not gone.crashed
        assert not alive(idle["pid"])
        assert [(each["worker_id"], each["state"]) for each in hive.workers()] == [(row["worker_id"], "busy")]
        assert hive.get("/v1/health")["status"] == "alive"
        figures = hive.http.get("/metrics").text
    assert "rbee_hive_evictions_total 1.0" in figures
    assert 'rbee_hive_model_loads_total{outcome="done"} 2.0' in figures
    assert "rbee_hive_model_load_seconds_count 2.0" in figures


@pytest.mark.B47
def test_a_deaf_worker_is_removed(start_hive: StartHive, model: str) -> None:
    """A worker that answers no health check three times in a row is removed, and told of as crashed."""
    hive = start_hive(env={"STAND_IN_DEAF": "1"}, health_interval_s=0.2)
    with hive.queen() as queen:
        worker = hive.spawn(model)["worker"]
        gone = queen.until("worker_gone", within=60)

    assert "health checks" in gone.reason
    assert gone.error.code == "WORKER_CRASHED"
    assert not alive(worker["pid"])


def test_a_stalled_worker_is_replaced(start_hive: StartHive, model: str) -> None:
    """A worker that gives no token is killed, told of as stalled, and another takes its place."""
    hive = start_hive(env={"STAND_IN_STALLED_S": "99"}, health_interval_s=0.2)
    with hive.queen() as queen:
        first = hive.spawn(model)["worker"]
        row = hive.serving(first["worker_id"])
        httpx.post(row["url"] + "/busy", trust_env=False)
        gone = queen.until("worker_gone")

        assert gone.error.code == "WORKER_STALLED"
        replacement = eventually(hive.workers, within=10, because="a replacement is there")[0]
        assert replacement["worker_id"] != first["worker_id"]
        assert replacement["model_ref"] == first["model_ref"]


def test_who_may_join_gets_the_worker_that_is_loading(start_hive: StartHive, model: str) -> None:
    """A start that may join one under way does, so that a hive and its queen do not both replace a stalled worker."""
    hive = start_hive(env={"STAND_IN_LOAD_S": str(slowness())})
    loading = hive.spawn(model)["worker"]["worker_id"]

    joined = hive.spawn(model, join=True)["worker"]["worker_id"]
    another = hive.spawn(model)["worker"]["worker_id"]
    hive.serving(loading)
    hive.serving(another)
    anew = hive.spawn(model, join=True)["worker"]["worker_id"]

    assert joined == loading
    assert another != loading
    assert anew not in (loading, another)
    assert len(hive.workers()) == 3


@pytest.mark.B68
def test_no_worker_outlives_a_killed_hive(start_hive: StartHive, model: str) -> None:
    """After SIGKILL to the hive its workers are gone within 2 s, whatever they were doing."""
    hive = start_hive(env={"STAND_IN_STUBBORN": "1"})
    pids = [hive.spawn(model)["worker"]["pid"] for _ in range(2)]
    hive.serving(hive.workers()[0]["worker_id"])

    hive.kill()

    eventually(lambda: not any(map(alive, pids)), within=2, because="the workers follow their hive")


@pytest.mark.B29
def test_a_new_life_removes_what_an_old_one_left(start_hive: StartHive, tmp_path: Path) -> None:
    """A hive that starts ends processes that carry its home's mark, and no others, whatever their name."""
    home = tmp_path / "home"
    home.mkdir()
    mark = {**os.environ, "RBEE_HIVE_MARK": str(home.resolve())}
    foreign = {**os.environ, "RBEE_HIVE_MARK": str(tmp_path / "other")}
    ours = psutil.Popen(["sleep", "600"], env=mark)
    theirs = psutil.Popen(["sleep", "600"], env=foreign)
    try:
        hive = start_hive()
        eventually(lambda: not alive(ours.pid), within=5, because="the leftover is removed")
        assert alive(theirs.pid)
        assert hive.workers() == []
    finally:
        for process in (ours, theirs):
            process.kill()
            process.wait(5)


@pytest.mark.B49
def test_the_end_takes_all_workers_along(start_hive: StartHive, model: str) -> None:
    """SIGTERM to a hive with 3 workers ends all of them and then the hive, with code 0; the catalog is kept."""
    hive = start_hive()
    with ThreadPoolExecutor(3) as pool:
        links = list(pool.map(lambda _: hive.spawn(model), range(3)))
    pids = [link["worker"]["pid"] for link in links]
    assert len({link["worker"]["url"] for link in links}) == 3

    assert hive.terminate() == 0

    assert not any(map(alive, pids))
    again = start_hive()
    assert again.workers() == []
    assert [row["reference"] for row in again.get("/v1/models/list")["models"]] == [model]


def test_the_shutdown_route_gives_a_receipt(start_hive: StartHive, model: str) -> None:
    """The shutdown route answers when the workers are gone, with each of them, and the hive ends with code 0."""
    hive = start_hive()
    worker = hive.spawn(model)["worker"]

    receipt = hive.post("/v1/admin/shutdown")

    assert [row["worker_id"] for row in receipt["workers"]] == [worker["worker_id"]]
    assert receipt["gone"]
    assert not alive(worker["pid"])
    assert hive.process.wait(10) == 0


def test_a_hive_that_ends_takes_no_new_work(start_hive: StartHive, model: str) -> None:
    """While the hive waits for a worker to end, a spawn is refused with DRAINING."""
    hive = start_hive(env={"STAND_IN_STUBBORN": "1"}, stop_timeout_s=2)
    hive.serving(hive.spawn(model)["worker"]["worker_id"])
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(httpx.post, hive.url + "/v1/admin/shutdown", headers=dict(hive.http.headers), timeout=60)
        eventually(
            lambda: hive.workers()[0]["state"] == "stopping", within=2, because="the hive is stopping its worker"
        )
        error = hive.refused("/v1/workers/spawn", {"model": model})
        assert error["code"] == "DRAINING"
        assert ending.result().json()["workers"][0]["killed"]


@pytest.mark.B24
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"backend": "cuda"}, "BACKEND_UNAVAILABLE"),
        ({"backend": "metal"}, "BACKEND_UNAVAILABLE"),
        ({"device": 5}, "INVALID_DEVICE"),
        ({"slots": 64, "context_length": 2048}, "RAM_EXHAUSTED"),
        ({"backend": "tpu"}, "INVALID_BACKEND"),
        ({"device": -1}, "INVALID_REQUEST"),
        ({"slots": 0}, "INVALID_REQUEST"),
        ({"model": "nonsense"}, "INVALID_MODEL_REF"),
        ({"model": "file:///no/such.gguf"}, "MODEL_NOT_FOUND"),
    ],
)
def test_what_cannot_be_is_refused_before_a_worker_starts(
    start_hive: StartHive, tmp_path: Path, fields: dict[str, Any], code: str
) -> None:
    """Preflight refuses with its own code, and no process is started."""
    # The header claims a cache of many terabytes, so that no machine has the memory.
    path = write_gguf(tmp_path / "vast.gguf", layers=4096, embedding=4096)
    hive = start_hive(env={"LD_LIBRARY_PATH": ""})

    error = hive.refused("/v1/workers/spawn", {"model": f"file://{path}", **fields})

    assert error["code"] == code
    assert error["message"]
    assert error["hint"]
    assert hive.workers() == []


def test_a_missing_worker_program_is_said(start_hive: StartHive, model: str) -> None:
    """Without a worker program a spawn is refused with the command that installs one."""
    hive = start_hive(worker_binary="/no/such/program")

    error = hive.refused("/v1/workers/spawn", {"model": model})

    assert error["code"] == "WORKER_BINARY_NOT_FOUND"
    assert "install" in error["hint"]
