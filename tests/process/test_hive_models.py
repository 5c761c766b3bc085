"""How a real hive fetches, follows, lists and removes models."""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.faults import Reset, Slow
from tests.support.gguf_files import write_gguf
from tests.support.hives import HiveProcess, StartHive
from tests.support.hub import Hub
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process

MIB = 1024 * 1024
REPO, FILE = "bees/tiny-GGUF", "tiny-Q4_K_M.gguf"


@pytest.fixture(name="hub")
def _hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPO, FILE, write_gguf(tmp_path / "hub.gguf", size=4 * 1024 * 1024).read_bytes())
        yield hub


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
    eventually(
        lambda: hive.post("/v1/models/download", {"model": reference})["stage"] == "complete",
        within=5,
        because="what is here is complete at once",
    )
    details = hive.get("/v1/models/show", model=reference)
    assert (details["vocabulary_size"], details["layers"], details["quantization"]) == (28, 4, "Q4_1")
    assert hive.get(f"/v1/models/{details['id']}") == details


def test_a_part_in_a_folder_serves_its_whole_model(start_hive: StartHive, hub: Hub, tmp_path: Path) -> None:
    """A file is named with its folder; any part of a split model leads to a worker of the whole, of that folder."""
    parts = [f"x-{number:05d}-of-00002.gguf" for number in (1, 2)]
    for folder, size in (("Q6_K", 50_000), ("Q8_0", 90_000)):
        for part in parts:
            hub.add(REPO, f"{folder}/{part}", write_gguf(tmp_path / part, size=size).read_bytes())
    hive = start_hive(env=hub.environ(tmp_path))

    worker = hive.spawn(f"hf:{REPO}:Q6_K/{parts[1]}")["worker"]

    assert hive.serving(worker["worker_id"])["model_ref"] == f"hf:{REPO}:Q6_K/{parts[0]}"
    (row,) = hive.get("/v1/models/list")["models"]
    assert row["local_path"].endswith(f"{REPO}/Q6_K/{parts[0]}")
    assert sorted(path.name for path in Path(row["local_path"]).parent.iterdir()) == parts
    assert hub.downloads(REPO, f"Q8_0/{parts[0]}") == []


def test_a_signature_is_in_no_error_and_no_log(start_hive: StartHive, tmp_path: Path) -> None:
    """What an address is signed with is shown by nobody, also where its download fails."""
    hive = start_hive(allow_private_sources="127.0.0.1")
    signed = "https://127.0.0.1:1/x.gguf?X-Amz-Signature=deadbeef&Expires=1"

    hive.http.post("/v1/models/download", json={"model": signed})
    events = repr(list(hive.stream("/v1/models/download/progress", model=signed)))
    shown = hive.http.get("/v1/models/show", params={"model": signed}).text
    removed = hive.http.delete(f"/v1/models/{quote(signed, safe='')}").text

    assert "x.gguf?masked=" in events
    for text in (events, shown, removed, *(log.read_text() for log in tmp_path.rglob("*.log"))):
        assert "deadbeef" not in text


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


def code_of(hive: HiveProcess, reference: str) -> str:
    """Ask for a download that fails; give its code, whether it was quick enough for the answer or is in the stream."""
    response = hive.http.post("/v1/models/download", json={"model": reference})
    if response.status_code >= 400:
        return str(response.json()["error"]["code"])
    (name, told) = hive.stream("/v1/models/download/progress", model=reference)[-1]
    assert name == "error", told
    return str(told["error"]["code"])


def figure(hive: HiveProcess, name: str) -> float:
    text = hive.http.get("/metrics").text
    return float(text.split(f"\n{name} ")[1].split()[0])


def test_downloads_are_counted(start_hive: StartHive, hub: Hub, tmp_path: Path) -> None:
    """Bytes are counted once, those that were there not at all; downloads by how they end, and while they run."""
    hub.fail(REPO, FILE, Reset(0.5))
    hub.fail(REPO, FILE, Slow(2_000_000))
    hive = start_hive(env=hub.environ(tmp_path))
    size = 4 * MIB

    hive.post("/v1/models/download", {"model": f"hf:{REPO}"})
    eventually(lambda: figure(hive, "rbee_hive_downloads_running") == 1, within=5, because="it is on its way")
    hive.stream("/v1/models/download/progress", model=f"hf:{REPO}")
    hive.post("/v1/models/download", {"model": f"hf:{REPO}"})
    code = code_of(hive, "hf:bees/none")

    assert figure(hive, "rbee_hive_downloads_running") == 0
    assert size <= figure(hive, "rbee_hive_downloaded_bytes_total") < 1.5 * size
    assert figure(hive, 'rbee_hive_downloads_total{outcome="done"}') == 1
    assert figure(hive, f'rbee_hive_downloads_total{{outcome="{code}"}}') == 1


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


def _has_grown(part: Path, size: int) -> bool:
    return part.exists() and part.stat().st_size >= size


def test_however_often_a_hive_is_killed_its_download_ends_whole(
    start_hive: StartHive, hub: Hub, tmp_path: Path
) -> None:
    """Killed again and again in mid-download, no life calls whole what is not, and each loses 8 MiB at most."""
    content = write_gguf(tmp_path / "large.gguf", size=24 * MIB).read_bytes()
    hub.add(REPO, FILE, content)
    part = tmp_path / "home" / "models" / "hf" / REPO / f"{FILE}.part"
    chance = random.Random(7)
    kills, kept = 4, []
    hub.fail(REPO, FILE, Slow(int(6 * MIB / slowness())), times=kills)  # so that no life has time for all of it
    for _ in range(kills):
        hive = start_hive(env=hub.environ(tmp_path))
        assert hive.get("/v1/models/list")["models"] == []
        before = part.stat().st_size if part.exists() else 0
        hive.post("/v1/models/download", {"model": f"hf:{REPO}"})
        grown = before + chance.randrange(MIB, 4 * MIB)
        eventually(partial(_has_grown, part, grown), within=30, because="some more is there")
        hive.kill()
        kept.append(part.stat().st_size)

    last = start_hive(env=hub.environ(tmp_path))
    assert last.get("/v1/models/list")["models"] == []
    last.post("/v1/models/download", {"model": f"hf:{REPO}"})
    last.stream("/v1/models/download/progress", model=f"hf:{REPO}")

    (row,) = last.get("/v1/models/list")["models"]
    assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert Path(row["local_path"]).read_bytes() == content
    assert row.get("problem") is None
    starts = sorted(int((fields or "bytes=0-")[len("bytes=") : -1]) for fields in hub.ranges(REPO, FILE))
    assert len(starts) == kills + 1
    assert all(0 <= have - start <= 8 * MIB for have, start in zip(kept, starts[1:], strict=True))
    assert not list((tmp_path / "home" / "models").rglob("*.part*"))


def test_a_hive_killed_between_the_file_and_its_row_finds_it_again(
    start_hive: StartHive, hub: Hub, tmp_path: Path
) -> None:
    """A whole file that was never cataloged is checked and cataloged without another byte; a spoilt one is not."""
    content = (tmp_path / "hub.gguf").read_bytes()
    place = tmp_path / "home" / "models" / "hf" / REPO / FILE
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    hive = start_hive(env=hub.environ(tmp_path))

    hive.post("/v1/models/download", {"model": f"hf:{REPO}"})
    hive.stream("/v1/models/download/progress", model=f"hf:{REPO}")
    assert hub.downloads(REPO, FILE) == []
    (row,) = hive.get("/v1/models/list")["models"]
    assert hive.http.delete(f"/v1/models/{row['id']}").status_code == 204

    place.write_bytes(content[:-1] + b"x")
    hive.post("/v1/models/download", {"model": f"hf:{REPO}"})
    hive.stream("/v1/models/download/progress", model=f"hf:{REPO}")
    assert len(hub.downloads(REPO, FILE)) == 1
    assert place.read_bytes() == content


@pytest.fixture(name="small_disk")
def _small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 6 MiB where the models go."""
    place = tmp_path / "home" / "models"
    place.mkdir(parents=True)
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], check=False, capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up_in_mid_download_loses_nothing(
    start_hive: StartHive, hub: Hub, tmp_path: Path, small_disk: Path
) -> None:
    """A disk that fills up is DISK_FULL with need and have, leaves nothing that looks whole; the rest comes later."""
    hub.fail(REPO, FILE, Slow(MIB // 2))
    hive = start_hive(env=hub.environ(tmp_path))
    reference = f"hf:{REPO}"
    part = small_disk / "hf" / REPO / f"{FILE}.part"
    hive.post("/v1/models/download", {"model": reference})
    eventually(partial(_has_grown, part, MIB), within=20, because="a quarter is there")
    filler = small_disk / "somebody-elses"
    with contextlib.suppress(OSError), filler.open("wb") as file:  # closing it writes too
        while True:
            file.write(bytes(64 * 1024))
            file.flush()

    (name, told) = hive.stream("/v1/models/download/progress", model=reference)[-1]
    assert (name, told["error"]["code"]) == ("error", "DISK_FULL")
    assert "MB are free" in told["error"]["message"]
    assert hive.get("/v1/models/list")["models"] == []
    assert not part.with_suffix("").exists()
    assert code_of(hive, reference) == "DISK_FULL"

    filler.unlink()
    hive.post("/v1/models/download", {"model": reference})
    hive.stream("/v1/models/download/progress", model=reference)
    (row,) = hive.get("/v1/models/list")["models"]
    assert Path(row["local_path"]).read_bytes() == (tmp_path / "hub.gguf").read_bytes()
    assert int((hub.ranges(REPO, FILE)[-1] or "bytes=0-")[len("bytes=") : -1]) >= MIB


def test_an_offline_hive_asks_nobody(start_hive: StartHive, hub: Hub, tmp_path: Path) -> None:
    """With HF_HUB_OFFLINE the hub is not asked, at once, and the setting is named; what is here is used."""
    hive = start_hive(env={**hub.environ(tmp_path), "HF_HUB_OFFLINE": "1"})

    hive.http.post("/v1/models/download", json={"model": f"hf:{REPO}"})
    events = hive.stream("/v1/models/download/progress", model=f"hf:{REPO}")

    told = events[-1][1]["error"]
    assert told["code"] == "DOWNLOAD_FAILED"
    assert "HF_HUB_OFFLINE" in told["message"]
    assert "network" not in told["hint"]
    assert [data["stage"] for _, data in events[:-1]].count("retrying") == 0
    assert hub.requests == []
    place = tmp_path / "home" / "models" / "hf" / REPO / FILE
    place.parent.mkdir(parents=True)
    place.write_bytes((tmp_path / "hub.gguf").read_bytes())
    worker = hive.spawn(f"hf:{REPO}")["worker"]
    assert hive.serving(worker["worker_id"])["model_ref"] == f"hf:{REPO}"


@pytest.mark.parametrize("named", ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"])
def test_a_part_of_a_split_model_means_all_of_it(start_hive: StartHive, tmp_path: Path, named: str) -> None:
    """Whichever part is named, the model is one, by its first part, and its worker loads that."""
    for number in (1, 2):
        write_gguf(tmp_path / f"m-0000{number}-of-00002.gguf")
    hive = start_hive()

    worker = hive.spawn(f"file://{tmp_path / named}")["worker"]

    first = tmp_path / "m-00001-of-00002.gguf"
    assert worker["model_ref"] == f"file://{first}"
    hive.serving(worker["worker_id"])
    (row,) = hive.get("/v1/models/list")["models"]
    assert row["local_path"] == str(first)


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


def test_a_download_is_listed_and_canceled(start_hive: StartHive, hub: Hub, tmp_path: Path) -> None:
    """A download that runs is in the list; DELETE ends it for its followers, twice is fine, and its part stays."""
    hub.fail(REPO, FILE, Slow(MIB))
    hive = start_hive(env=hub.environ(tmp_path))
    reference = f"hf:{REPO}"
    part = tmp_path / "home" / "models" / "hf" / REPO / f"{FILE}.part"
    hive.post("/v1/models/download", {"model": reference})
    events: list[tuple[str, Any]] = []
    follower = threading.Thread(
        target=hive.stream, args=("/v1/models/download/progress", events), kwargs={"model": reference}
    )
    follower.start()
    eventually(partial(_has_grown, part, 1), within=20, because="some of it is there")

    (row,) = hive.get("/v1/models/list")["downloads"]
    answers = [hive.http.delete("/v1/models/download", params={"model": reference}).status_code for _ in range(2)]
    follower.join(10)

    assert (row["reference"], row["bytes_total"]) == (reference, len((tmp_path / "hub.gguf").read_bytes()))
    assert answers == [204, 204]
    assert events[-1][0] == "error"
    assert events[-1][1]["error"]["code"] == "CANCELED"
    assert hive.get("/v1/models/list")["downloads"] == []
    assert part.exists()
    unknown = hive.http.delete("/v1/models/download", params={"model": "hf:bees/none"})
    assert unknown.json()["error"]["code"] == "MODEL_NOT_FOUND"


def test_a_download_ends_when_its_follower_has_left(start_hive: StartHive, hub: Hub, tmp_path: Path) -> None:
    """A download goes on for a while after its last follower has disconnected, and then ends."""
    hub.fail(REPO, FILE, Slow(MIB // 4))
    hive = start_hive(env=hub.environ(tmp_path), download_grace_s=0.5)
    hive.post("/v1/models/download", {"model": f"hf:{REPO}"})
    with hive.http.stream("GET", "/v1/models/download/progress", params={"model": f"hf:{REPO}"}) as response:
        lines = response.iter_lines()
        eventually(lambda: "downloading" in next(lines), within=10, because="it is on its way")
        assert hive.get("/v1/models/list")["downloads"] != []

    eventually(lambda: hive.get("/v1/models/list")["downloads"] == [], within=8, because="nobody follows it any more")
    assert len(hub.downloads(REPO, FILE)) <= 1
