"""How a real hive starts, keeps its queens informed, gives its logs, and fails in words."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from rbee.contracts.control import SILENCE_LIMIT_S
from tests.support.hives import KEY, StartHive, alive
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process


# --- start ---------------------------------------------------------------------------------------------------


@pytest.mark.B12
def test_health_says_status_version_and_api(start_hive: StartHive) -> None:
    """Health needs no key and says status, version and API version, and nothing of the machine."""
    hive = start_hive()

    answer = httpx.get(hive.url + "/v1/health", trust_env=False).json()

    assert answer.keys() == {"status", "version", "api_version"}
    assert (answer["status"], answer["api_version"]) == ("alive", "v1")
    assert httpx.get(hive.url + "/v1/workers/list", trust_env=False).status_code == 401


def test_two_hives_do_not_share_a_home(start_hive: StartHive) -> None:
    """A second hive on a home says which process has it, and goes."""
    first = start_hive()

    second = start_hive(fails=True)

    assert second.announced is not None
    error = second.announced["error"]
    assert error["code"] == "ALREADY_RUNNING"
    assert str(first.process.pid) in error["message"]
    assert second.process.wait(10) == 1


def test_a_broken_catalog_is_named_at_start(start_hive: StartHive, tmp_path: Path) -> None:
    """A models.db that is no database stops the start, names the file and the next step, and is left as it is."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models.db").write_text("no database at all")

    hive = start_hive(fails=True)

    assert hive.announced is not None
    error = hive.announced["error"]
    assert error["code"] == "STATE_CORRUPT"
    assert "models.db" in error["message"]
    assert "mv " in error["hint"]
    assert (tmp_path / "home" / "models.db").read_text() == "no database at all"


@pytest.mark.parametrize(
    ("settings", "env", "says"),
    [
        ({"slots": 0}, {}, "slots"),
        ({"slotz": 1}, {}, "RBEE_HIVE_SLOTZ"),
        ({"cache_type": "q8_0", "flash_attention": "false"}, {}, "cache_type q8_0 needs flash attention"),
        ({"cache_type": "q3"}, {}, "cache_type"),
        ({"prompt_batch": 1}, {}, "prompt_batch"),
        ({"speculate": 63}, {}, "speculate"),
        ({"context_length": 1}, {}, "context_length"),
        ({"host": "0.0.0.0"}, {"RBEE_HIVE_API_KEY": ""}, "key"),
    ],
)
def test_a_wrong_setting_ends_with_78(
    start_hive: StartHive, settings: dict[str, Any], env: dict[str, str], says: str
) -> None:
    """A setting that is wrong or unknown, or an open address without a key, ends the start with one sentence."""
    hive = start_hive(fails=True, env=env, **settings)

    assert hive.process.wait(10) == 78
    assert hive.announced is not None
    assert says in hive.announced["error"]["message"]
    assert "Traceback" not in hive.log.read_text()


def test_a_taken_port_is_said(start_hive: StartHive) -> None:
    """A port that another program has stops the start with PORT_IN_USE."""
    first = start_hive()

    second = start_hive("other", fails=True, port=first.port)

    assert second.announced is not None
    assert second.announced["error"]["code"] == "PORT_IN_USE"


# --- the queen's channel -------------------------------------------------------------------------------------


@pytest.mark.B46
def test_a_queen_is_told_everything_and_then_every_change(start_hive: StartHive, model: str) -> None:
    """A queen hears what the hive has at once, then each change; a second queen hears the same."""
    hive = start_hive()
    with hive.queen() as first, hive.queen() as second:
        for queen in (first, second):
            hello = queen.next()
            assert hello.kind == "hello"
            assert [device.backend for device in hello.detection.devices][-1] == "cpu"
            assert hello.workers == []
            # Nobody has looked into the catalog, or there is nothing in it.
            assert not hello.models
        link = hive.spawn(model)
        for queen in (first, second):
            change = queen.until("worker_changed")
            assert change.link.api_key == link["api_key"]
            assert change.link.worker.worker_id == link["worker"]["worker_id"]
        hive.serving(link["worker"]["worker_id"])
        # A model that is used in place is cataloged while its worker already starts.
        while [row.reference for row in first.until("models_changed").models] != [model]:
            pass
        with hive.queen() as late:
            hello = late.next()
            assert hello.kind == "hello"
            assert [each.worker.state for each in hello.workers] == ["idle"]
            assert [row.reference for row in hello.models or ()] == [model]


def test_a_hive_without_a_catalog_says_so_too(start_hive: StartHive, tmp_path: Path) -> None:
    """A database that cannot be used leaves no queen waiting to hear which models there are."""
    hive = start_hive(models_db=f"sqlite:///{tmp_path / 'nowhere' / 'models.db'}")

    with hive.queen() as queen:
        hello = queen.next()
        assert hello.kind == "hello"
        told = hello.models if hello.models is not None else queen.until("models_changed").models

    assert told == []


def test_the_hive_beats(start_hive: StartHive) -> None:
    """A queen that is connected hears a beat every 2 s."""
    hive = start_hive()
    with hive.queen() as queen:
        times: list[float] = []
        while len(times) < 3:
            if json.loads(queen.channel.recv(10 * slowness()))["kind"] == "beat":
                times.append(time.monotonic())

    assert 3.0 < times[2] - times[0] < 6.0 * slowness()


def test_a_silent_queen_is_hung_up_on(start_hive: StartHive) -> None:
    """A channel on which the queen says nothing for 10 s is closed by the hive; one with leases stays."""
    hive = start_hive()
    with hive.queen() as silent, ThreadPoolExecutor(1) as pool:
        closed = pool.submit(silent.until_closed, SILENCE_LIMIT_S + 10)
        with hive.queen() as faithful:
            while not closed.done():
                faithful.lease()
                assert faithful.channel.recv(5 * slowness())

    assert SILENCE_LIMIT_S - 1 < closed.result() < SILENCE_LIMIT_S + 3 * slowness()


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("wrong", 401)])
def test_the_channel_needs_the_key(start_hive: StartHive, key: str | None, status: int) -> None:
    """Without the right key the channel is refused with the one error body."""
    hive = start_hive()
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{hive.port}/v1/control", additional_headers=headers, proxy=None)

    assert caught.value.response.status_code == status
    assert json.loads(caught.value.response.body or b"{}")["error"]["code"].endswith("_API_KEY")


def test_nonsense_on_the_channel_closes_it(start_hive: StartHive) -> None:
    """A message that is not a queen's closes that channel, and harms nobody else."""
    hive = start_hive()
    with hive.queen() as queen:
        queen.channel.send("nonsense")
        assert queen.until_closed(within=10) < SILENCE_LIMIT_S - 1

    assert hive.get("/v1/health")["status"] == "alive"
    assert "Traceback" not in hive.log.read_text()


@pytest.mark.B67
def test_without_a_queen_workers_are_fenced(start_hive: StartHive, model: str) -> None:
    """When no queen is heard for the fence's time workers are stopped and the hive stays; leases keep them."""
    fence_s = 2 * slowness()
    hive = start_hive(fence_after_s=fence_s)
    with hive.queen() as queen:
        worker = hive.spawn(model)["worker"]
        began = time.monotonic()

        def renewed_for_longer() -> bool:
            queen.lease()
            return time.monotonic() - began > fence_s + 1

        eventually(renewed_for_longer, within=fence_s + 10, because="leases were renewed for longer than the fence")
        assert hive.workers()

    eventually(lambda: not hive.workers(), within=fence_s + 3, because="the fence stops the worker")
    assert not alive(worker["pid"])
    assert hive.get("/v1/health")["status"] == "alive"


def test_a_hive_may_leave_with_its_queen(start_hive: StartHive, model: str) -> None:
    """With on_queen_lost=exit the hive stops its workers and ends with code 0."""
    hive = start_hive(fence_after_s=3, on_queen_lost="exit")
    worker = hive.spawn(model)["worker"]

    assert hive.process.wait(15 * slowness()) == 0
    assert not alive(worker["pid"])


# --- logs and the rest ---------------------------------------------------------------------------------------


@pytest.mark.B62
def test_logs_are_followed_until_the_end(start_hive: StartHive, model: str) -> None:
    """The log stream has the lines of the hive and of its workers as they come, and ends with the hive."""
    hive = start_hive()
    seen: list[Any] = []

    def follow() -> None:
        hive.stream("/v1/logs", into=seen, follow="true", lines=5)

    reader = threading.Thread(target=follow)
    reader.start()
    worker = hive.spawn(model)["worker"]
    hive.serving(worker["worker_id"])
    eventually(
        lambda: any(data["source"] == worker["worker_id"] for _, data in list(seen)),
        within=10,
        because="a line of the worker has come down the stream",
    )
    assert hive.terminate() == 0
    reader.join(10)

    assert not reader.is_alive()
    sources = {data["source"] for _, data in seen}
    assert sources == {"rbee-hive", worker["worker_id"]}
    lines = [data["line"] for _, data in seen if data["source"] == worker["worker_id"]]
    assert "stand-in worker starting" in lines


def test_logs_without_following_end_at_once(start_hive: StartHive) -> None:
    """Without follow the last lines come and the stream is done."""
    hive = start_hive()

    events = hive.stream("/v1/logs", lines=1)

    assert len(events) == 2
    assert events[-1][1] == "[DONE]"


def test_the_rest_is_listed(start_hive: StartHive, model: str) -> None:
    """Backends, worker programs and figures can be asked for."""
    hive = start_hive()
    worker = hive.spawn(model)["worker"]
    hive.serving(worker["worker_id"])

    assert hive.get("/v1/backends/list")["counts"]["cpu"] == 1
    assert hive.get("/v1/worker-binaries/list")["binaries"][0]["path"].endswith("stand_in_worker.py")
    figures = hive.http.get("/metrics").text
    assert 'rbee_hive_workers{state="idle"} 1.0' in figures
    memory = {
        kind: float(
            figures.split(f'rbee_hive_device_memory_bytes{{backend="cpu",device="0",kind="{kind}"}} ')[1].split()[0]
        )
        for kind in ("total", "used", "free")
    }
    assert memory["used"] + memory["free"] == memory["total"] > memory["free"] > 0
    assert KEY not in figures
