"""How a real hive starts, keeps its queens informed, serves models and logs, and fails in words."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from rbee.contracts.control import SILENCE_LIMIT_S
from tests.support.faults import Reset, Slow
from tests.support.gguf_files import write_gguf
from tests.support.hives import KEY, HiveProcess, alive
from tests.support.hub import Hub
from tests.support.nvml import Gpu, Gpus
from tests.support.waiting import eventually

pytestmark = pytest.mark.process

StartHive = Callable[..., HiveProcess]
REPO, FILE = "bees/tiny-GGUF", "tiny-Q4_K_M.gguf"


@pytest.fixture(name="start_hive")
def _start_hive(tmp_path: Path) -> Iterator[StartHive]:
    started: list[HiveProcess] = []

    def start(home: str = "home", *, fails: bool = False, **more: Any) -> HiveProcess:
        hive = HiveProcess(tmp_path / home, **more)
        started.append(hive)
        assert fails or "port" in (hive.announced or {}), hive.log.read_text()
        return hive

    yield start
    for hive in started:
        hive.close()


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> str:
    return f"file://{write_gguf(tmp_path / 'tiny.gguf')}"


@pytest.fixture(name="hub")
def _hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPO, FILE, write_gguf(tmp_path / "hub.gguf", size=4 * 1024 * 1024).read_bytes())
        yield hub


def detect(*argv: str, env: dict[str, str]) -> str:
    command = [sys.executable, "-m", "rbee.hive", "detect", *argv]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True).stdout


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


def test_a_broken_catalogue_is_named_at_start(start_hive: StartHive, tmp_path: Path) -> None:
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


# --- devices -------------------------------------------------------------------------------------------------


def test_detect_prints_devices_and_the_registrys_form(tmp_path: Path) -> None:
    """`rbee-hive detect` lists devices with memory, and both forms that the registry keeps."""
    gpus = Gpus.build(tmp_path, Gpu(total_mb=24576, used_mb=576), Gpu(total_mb=8192, used_mb=0))

    listed = json.loads(detect("--json", env=gpus.environ()))
    text = detect(env=gpus.environ())

    assert listed["backends"] == ["cuda", "cpu"]
    assert listed["counts"] == {"cuda": 2, "cpu": 1}
    assert [row["total_bytes"] // 2**20 for row in listed["devices"][:2]] == [24576, 8192]
    assert listed["devices"][0]["free_bytes"] // 2**20 == 24000
    assert 'backends: ["cuda", "cpu"]' in text
    assert 'devices: {"cuda": 2, "cpu": 1}' in text


@pytest.mark.parametrize("mode", ["hang", "hang-memory", "crash", "no-driver", "mismatch", "error", "lost"])
def test_a_broken_driver_is_a_fact(tmp_path: Path, mode: Any) -> None:
    """A driver that hangs, crashes or fails is reported within the limit, and the CPU is there all the same."""
    gpus = Gpus.build(tmp_path, mode=mode)
    began = time.monotonic()

    listed = json.loads(detect("--json", "--timeout", "2", env=gpus.environ()))

    assert time.monotonic() - began < 15
    assert listed["backends"] == ["cpu"]
    assert listed["faults"]["cuda"]


@pytest.mark.B26
@pytest.mark.B38
def test_a_gpu_request_fails_fast_with_what_is_there(start_hive: StartHive, model: str, tmp_path: Path) -> None:
    """Too little VRAM, a device too many and a broken driver each have their error; nothing falls back."""
    gpus = Gpus.build(tmp_path, Gpu(total_mb=8, used_mb=8), Gpu(total_mb=8, used_mb=8))
    hive = start_hive(env=gpus.environ(), detect_timeout_s=1)

    def refused(**wish: Any) -> dict[str, Any]:
        return hive.refused("/v1/workers/spawn", {"model": model, **wish})

    full = refused()
    assert full["code"] == "VRAM_EXHAUSTED"
    assert full["details"]["available_mb"] == 0
    assert "--backend cpu" in full["hint"]
    assert refused(backend="cuda", device=5)["details"]["valid"] == [0, 1]
    gpus.set(mode="hang")
    hung = refused()
    assert hung["code"] == "GPU_NOT_AVAILABLE"
    assert "1 s" in hung["message"]
    assert hive.spawn(model, backend="cpu")["worker"]["backend"] == "cpu"


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
        link = hive.spawn(model)
        for queen in (first, second):
            assert [row.reference for row in queen.until("models_changed").models] in ([], [model])
            change = queen.until("worker_changed")
            assert change.link.api_key == link["api_key"]
            assert change.link.worker.worker_id == link["worker"]["worker_id"]
        hive.serving(link["worker"]["worker_id"])
        with hive.queen() as late:
            hello = late.next()
            assert hello.kind == "hello"
            assert [each.worker.state for each in hello.workers] == ["idle"]
            assert [row.reference for row in hello.models] == [model]


def test_the_hive_beats(start_hive: StartHive) -> None:
    """A queen that is connected hears a beat every 2 s."""
    hive = start_hive()
    with hive.queen() as queen:
        times: list[float] = []
        while len(times) < 3:
            if json.loads(queen.channel.recv(10))["kind"] == "beat":
                times.append(time.monotonic())

    assert 3.0 < times[2] - times[0] < 6.0


def test_a_silent_queen_is_hung_up_on(start_hive: StartHive) -> None:
    """A channel on which the queen says nothing for 10 s is closed by the hive; one with leases stays."""
    hive = start_hive()
    with hive.queen() as silent, ThreadPoolExecutor(1) as pool:
        closed = pool.submit(silent.until_closed, SILENCE_LIMIT_S + 10)
        with hive.queen() as faithful:
            while not closed.done():
                faithful.lease()
                assert faithful.channel.recv(5)

    assert SILENCE_LIMIT_S - 1 < closed.result() < SILENCE_LIMIT_S + 3


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
    hive = start_hive(fence_after_s=2)
    with hive.queen() as queen:
        worker = hive.spawn(model)["worker"]
        for _ in range(6):
            queen.lease()
            time.sleep(0.5)
        assert hive.workers()

    eventually(lambda: not hive.workers(), within=5, because="the fence stops the worker")
    assert not alive(worker["pid"])
    assert hive.get("/v1/health")["status"] == "alive"


def test_a_hive_may_leave_with_its_queen(start_hive: StartHive, model: str) -> None:
    """With on_queen_lost=exit the hive stops its workers and ends with code 0."""
    hive = start_hive(fence_after_s=3, on_queen_lost="exit")
    worker = hive.spawn(model)["worker"]

    assert hive.process.wait(15) == 0
    assert not alive(worker["pid"])


# --- models --------------------------------------------------------------------------------------------------


@pytest.mark.B15
@pytest.mark.B16
@pytest.mark.B17
def test_a_download_streams_its_progress(start_hive: StartHive, hub: Hub, tmp_path: Path) -> None:
    """A download answers at once and streams to `complete` and `[DONE]`; a break is shown; the second is instant."""
    hub.fail(REPO, FILE, Slow(3_000_000))
    hive = start_hive(env=hub.environ(tmp_path))
    reference = f"hf:{REPO}"

    first = hive.post("/v1/models/download", {"model": reference})
    events = [data for _, data in hive.stream("/v1/models/download/progress", model=reference)]

    assert first["stage"] in ("queued", "downloading")
    steps = [data for data in events if isinstance(data, dict)]
    assert any(step["stage"] == "downloading" and step["speed_mbps"] > 0 for step in steps)
    assert steps[-1]["stage"] == "complete"
    assert Path(steps[-1]["local_path"]).is_relative_to(tmp_path / "home" / "models")
    assert events[-1] == "[DONE]"
    assert hive.post("/v1/models/download", {"model": reference})["stage"] == "complete"
    details = hive.get("/v1/models/show", model=reference)
    assert (details["vocabulary_size"], details["layers"], details["quantization"]) == (28, 4, "Q4_1")
    assert hive.get(f"/v1/models/{details['id']}") == details


@pytest.mark.B37
def test_a_failed_download_ends_its_stream_in_words(start_hive: StartHive, hub: Hub, tmp_path: Path) -> None:
    """Each retry is an event with its number and reason; the end is an error event."""
    hub.fail(REPO, FILE, Reset(0.1), times=None)
    hive = start_hive(env=hub.environ(tmp_path))
    hive.post("/v1/models/download", {"model": f"hf:{REPO}"})

    events = hive.stream("/v1/models/download/progress", model=f"hf:{REPO}")

    retries = [data for _, data in events if data.get("stage") == "retrying"]
    assert [retry["attempt"] for retry in retries] == [1, 2, 3, 4, 5, 6]
    assert events[-1][0] == "error"
    assert events[-1][1]["error"]["code"] == "DOWNLOAD_FAILED"


def test_a_killed_hive_resumes_its_download(start_hive: StartHive, hub: Hub, tmp_path: Path) -> None:
    """After SIGKILL in mid-download the next life fetches the rest, and loses less than 8 MiB."""
    hub.fail(REPO, FILE, Slow(1_000_000))
    first = start_hive(env=hub.environ(tmp_path))
    first.post("/v1/models/download", {"model": f"hf:{REPO}"})
    part = tmp_path / "home" / "models" / "hf" / REPO / f"{FILE}.part"
    eventually(lambda: part.exists() and part.stat().st_size > 1_000_000, within=20, because="a quarter is there")

    first.kill()
    have = part.stat().st_size
    second = start_hive(env=hub.environ(tmp_path))
    assert second.get("/v1/models/list")["models"] == []
    second.post("/v1/models/download", {"model": f"hf:{REPO}"})
    events = second.stream("/v1/models/download/progress", model=f"hf:{REPO}")

    assert events[-1][1] == "[DONE]"
    assert hub.ranges(REPO, FILE)[-1] == f"bytes={have}-"


def test_a_spawn_of_an_absent_model_fetches_it(start_hive: StartHive, hub: Hub, tmp_path: Path) -> None:
    """A spawn whose model is not here fetches it first."""
    hive = start_hive(env=hub.environ(tmp_path))

    worker = hive.spawn(f"hf:{REPO}")["worker"]

    assert hive.serving(worker["worker_id"])["model_ref"] == f"hf:{REPO}"


def test_models_are_removed(start_hive: StartHive, hub: Hub, tmp_path: Path, model: str) -> None:
    """A fetched model is removed with its file, one used in place keeps it, one that is loaded is refused."""
    hive = start_hive(env=hub.environ(tmp_path))
    fetched = hive.spawn(f"hf:{REPO}")["worker"]
    hive.post("/v1/models/download", {"model": model})
    rows = {row["reference"]: row for row in hive.get("/v1/models/list")["models"]}
    path = Path(rows[f"hf:{REPO}"]["local_path"])

    def remove(name: str) -> httpx.Response:
        return hive.http.delete(f"/v1/models/{name}")

    assert remove(rows[f"hf:{REPO}"]["id"]).json()["error"]["code"] == "MODEL_IN_USE"
    hive.post(f"/v1/workers/{fetched['worker_id']}/shutdown")
    assert remove(rows[f"hf:{REPO}"]["id"]).status_code == 204
    assert not path.exists()
    assert remove(model).status_code == 204
    assert Path(model.removeprefix("file://")).exists()
    assert remove(model).json()["error"]["code"] == "MODEL_NOT_FOUND"
    assert hive.get("/v1/models/list")["models"] == []


@pytest.mark.parametrize(
    ("content", "code"), [(b"", "MODEL_INVALID"), (b"GGUF", "MODEL_INVALID"), (b"<html>" * 99, "MODEL_INVALID")]
)
def test_what_is_no_model_is_refused_at_once(start_hive: StartHive, tmp_path: Path, content: bytes, code: str) -> None:
    """A file that is empty, truncated or foreign is refused by the download route itself."""
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    hive = start_hive()

    assert hive.refused("/v1/models/download", {"model": f"file://{path}"})["code"] == code


# --- logs and the rest ---------------------------------------------------------------------------------------


@pytest.mark.B62
def test_logs_are_followed_until_the_end(start_hive: StartHive, model: str) -> None:
    """The log stream has the lines of the hive and of its workers as they come, and ends with the hive."""
    hive = start_hive()
    seen: list[Any] = []

    def follow() -> None:
        seen.extend(hive.stream("/v1/logs", follow="true", lines=5))

    reader = threading.Thread(target=follow)
    reader.start()
    worker = hive.spawn(model)["worker"]
    hive.serving(worker["worker_id"])
    time.sleep(0.6)
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
    assert KEY not in figures
