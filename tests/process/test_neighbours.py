"""How hives get models from each other: fetched once for all, checked, taken up where they stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rbee.daemonkit import tickets
from tests.support.gguf_files import write_gguf
from tests.support.hives import KEY, HiveProcess, StartHive
from tests.support.hub import Hub, Slow
from tests.support.neighbours import Neighbours
from tests.support.queens import machine_with_fake, named
from tests.support.waiting import eventually

pytestmark = pytest.mark.process

MIB = 1024 * 1024
REPO, FILE = "bees/tiny-GGUF", "tiny-Q4_K_M.gguf"
MODEL = f"hf:{REPO}"
# Megabits a second: a model of 4 MiB takes four seconds, so that there is time to interrupt it.
SLOWLY = 8


@pytest.fixture(name="content")
def _content(tmp_path: Path) -> bytes:
    return write_gguf(tmp_path / "hub.gguf", size=4 * MIB).read_bytes()


@pytest.fixture(name="hub")
def _hub(content: bytes) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPO, FILE, content)
        yield hub


@pytest.fixture(name="fleet")
def _fleet(tmp_path: Path, hub: Hub) -> Iterator[Neighbours]:
    with machine_with_fake(tmp_path / "machine") as machine:
        fleet = Neighbours(machine, hub)
        try:
            yield fleet
        finally:
            fleet.close()


def sent_by(hub: Hub, file: str = FILE) -> int:
    """Return the bytes of a file that have left the hub."""
    return sum(seen.bytes_sent for seen in hub.downloads(REPO, file))


def has_model(fleet: Neighbours, node: str, content: bytes) -> bool:
    (file,) = fleet.files(node)
    return file.read_bytes() == content


@pytest.mark.B88
def test_three_hives_fetch_once(fleet: Neighbours, hub: Hub, content: bytes) -> None:
    """Of hives that want a model at once, one asks the hub; the others wait, are told so, and copy it from there."""
    hub.fail(REPO, FILE, Slow(2 * MIB), times=None)
    nodes = ["h1", "h2", "h3"]
    for node in nodes:
        fleet.add(node)

    pulls = [fleet.pull(node, MODEL) for node in nodes]
    stories = [pull.ended_well().told for pull in pulls]

    assert all(has_model(fleet, node, content) for node in nodes)
    assert sent_by(hub) == len(content)
    (fetcher,) = [node for node, story in zip(nodes, stories, strict=True) if "downloaded and added" in story]
    for node, story, pull in zip(nodes, stories, pulls, strict=True):
        if node != fetcher:
            assert f"{fetcher} fetches it; it comes from there" in story
            assert "copying it from h" in story
            assert any(0 < step["bytes_downloaded"] < len(content) for step in pull.stages)
    (row,) = fleet.queen.get("/v2/models/list")["models"]
    assert row["reference"] == MODEL
    assert [copy["node"] for copy in row["nodes"]] == nodes
    assert len({copy["local_path"] for copy in row["nodes"]}) == 3


def test_what_a_neighbour_has_is_not_asked_for_elsewhere(fleet: Neighbours, hub: Hub, content: bytes) -> None:
    """A model that another node has comes from there, all parts of it, where the hub is gone too."""
    parts = [f"Q8_0/x-{number:05d}-of-00002.gguf" for number in (1, 2)]
    for part in parts:
        hub.add(REPO, part, write_gguf(Path(fleet.queen.machine.root) / "part.gguf", size=90_000).read_bytes())
    fleet.add("h1")
    model = f"hf:{REPO}:Q8_0"
    fleet.pull("h1", model).ended_well()
    asked = len(hub.requests)
    fleet.add("h2")

    pull = fleet.pull("h2", model).ended_well()

    assert len(hub.requests) == asked
    assert "copied from h1 and added to the catalog" in pull.told
    assert {step.get("source") for step in pull.stages if step["stage"] == "downloading"} <= {"h1"}
    homes = [fleet.hives[node].home / "models" for node in ("h1", "h2")]
    there, here = [[path.relative_to(home) for path in home.rglob("*.gguf")] for home in homes]
    assert sorted(here) == sorted(there) == [Path("hf") / REPO / part for part in parts]


@pytest.mark.B88
@pytest.mark.parametrize("others", [0, 1], ids=["then the hub", "then another hive"])
def test_a_neighbour_dies_in_the_middle_of_a_copy(fleet: Neighbours, hub: Hub, content: bytes, others: int) -> None:
    """What was received is kept, and the next source gives only the rest: another hive, else the hub."""
    fleet.add("h1", share_mbps=SLOWLY)
    fleet.pull("h1", MODEL).ended_well()
    fetched = sent_by(hub)
    fleet.add("h2")
    if others:
        fleet.add("h3")
        fleet.pull("h3", MODEL).ended_well()
    pull = fleet.pull("h2", MODEL)
    eventually(lambda: fleet.received("h2") > 0.4 * len(content), within=20, because="40 % are there")

    fleet.hives["h1"].kill()
    pull.ended_well()

    assert has_model(fleet, "h2", content)
    assert "No other hive gives all of" in pull.told if not others else "h1:" in pull.told
    if others:
        assert sent_by(hub) == fetched
        assert fleet.sent("h3") < 0.7 * len(content)
    else:
        assert 0 < sent_by(hub) - fetched < 0.7 * len(content)
        assert "downloading it" in pull.told


@pytest.mark.B88
def test_wrong_bytes_of_a_neighbour_are_dropped(fleet: Neighbours, hub: Hub, content: bytes) -> None:
    """A copy whose checksum is not that of the neighbour's catalog is not used, and the hub is asked instead."""
    fleet.add("h1")
    fleet.pull("h1", MODEL).ended_well()
    fleet.flip_bit("h1")
    fleet.add("h2")

    pull = fleet.pull("h2", MODEL).ended_well()

    assert has_model(fleet, "h2", content)
    assert "sha256" in pull.told
    assert sent_by(hub) == 2 * len(content)


def test_a_copy_is_taken_up_where_it_stopped(fleet: Neighbours, content: bytes) -> None:
    """A copy that an operator gave up continues at the next request; the neighbour sends the rest only."""
    fleet.add("h1", share_mbps=SLOWLY)
    fleet.pull("h1", MODEL).ended_well()
    fleet.add("h2", download_grace_s=1)
    pull = fleet.pull("h2", MODEL)
    eventually(lambda: fleet.received("h2") > 0.4 * len(content), within=20, because="40 % are there")
    pull.leave()
    hive = fleet.hives["h2"]
    eventually(lambda: not hive.get("/v1/models/list")["downloads"], within=10, because="nobody waits for it")

    fleet.pull("h2", MODEL).ended_well()

    assert has_model(fleet, "h2", content)
    assert fleet.sent("h1") < 1.4 * len(content)


def test_what_a_hive_sends_is_bounded(fleet: Neighbours, content: bytes) -> None:
    """`share_mbps` is what all copies from a hive have together."""
    fleet.add("h1", share_mbps=32)
    fleet.pull("h1", MODEL).ended_well()
    fleet.add("h2")
    fleet.add("h3")
    began = time.monotonic()

    pulls = [fleet.pull(node, MODEL) for node in ("h2", "h3")]
    for pull in pulls:
        pull.ended_well()

    assert time.monotonic() - began > 0.9 * 2 * len(content) * 8 / 32e6
    assert fleet.sent("h1") == 2 * len(content)


def test_where_the_first_fails_the_next_one_fetches(fleet: Neighbours, hub: Hub, content: bytes) -> None:
    """A node that waits for another's download makes its own when that is canceled."""
    hub.fail(REPO, FILE, Slow(MIB))
    fleet.add("h1")
    fleet.add("h2")
    first = fleet.pull("h1", MODEL)
    eventually(lambda: fleet.received("h1") > 0, within=20, because="h1 fetches it")
    second = fleet.pull("h2", MODEL)
    eventually(lambda: "it comes from there" in second.told, within=10, because="h2 waits for it")

    fleet.queen.http.delete("/v2/models/download", params={"node": "h1", "model": MODEL}).raise_for_status()

    assert named(first.ended().events, "error")[0]["error"]["code"] == "CANCELED"
    second.ended_well()
    assert has_model(fleet, "h2", content)


def model_id(hive: HiveProcess) -> str:
    (row,) = hive.get("/v1/models/list")["models"]
    return str(row["id"])


def test_a_ticket_opens_one_model_and_nothing_else(
    start_hive: StartHive, hub: Hub, content: bytes, tmp_path: Path
) -> None:
    """Files go to who has the hive's key or a ticket for the model; neither is in a log."""
    hive = start_hive(env=hub.environ(tmp_path))
    hive.post("/v1/models/download", {"model": MODEL})
    hive.stream("/v1/models/download/progress", model=MODEL)
    path = f"/v1/model-files/{model_id(hive)}"
    ticket = tickets.issue(KEY, path, now=time.time(), life_s=tickets.COPY_LIFE_S)

    def ask(path: str, shown: str | None = None, **headers: str) -> httpx.Response:
        key = {"Authorization": f"Bearer {shown}"} if shown else {}
        return httpx.get(hive.url + path, headers={**key, **headers}, trust_env=False, timeout=60)

    listed = ask(path, ticket).json()
    assert [(file["name"], file["size_bytes"]) for file in listed["files"]] == [(FILE, len(content))]
    for shown in (ticket, ticket, KEY):
        assert ask(f"{path}/0", shown).content == content
    part = ask(f"{path}/0", ticket, Range="bytes=100-199")
    assert (part.status_code, part.content) == (206, content[100:200])
    late = tickets.issue(KEY, path, now=time.time() - 3600, life_s=tickets.COPY_LIFE_S)
    other = tickets.issue(KEY, f"{path}-2", now=time.time(), life_s=tickets.COPY_LIFE_S)
    assert ask(f"{path}/0").status_code == 401
    for shown in (late, other, "x", ticket[:-1]):
        assert ask(f"{path}/0", shown).status_code == 401
    for elsewhere in ("/v1/models/list", "/v1/admin/shutdown", f"/v1/models/{model_id(hive)}", "/v1/model-files/x/0"):
        assert ask(elsewhere, ticket).status_code == 401
    for text in (log.read_text() for log in tmp_path.rglob("*.log")):
        assert ticket not in text
        assert KEY not in text


def test_only_what_was_downloaded_is_given_away(start_hive: StartHive, hub: Hub, model: str, tmp_path: Path) -> None:
    """What is not in the catalog, is used in place, has changed or is gone, is refused in words."""
    hive = start_hive(env=hub.environ(tmp_path))
    hive.post("/v1/models/download", {"model": model})
    in_place = model_id(hive)

    def refusal(path: str, **headers: str) -> tuple[int, str]:
        response = hive.http.get(f"/v1/model-files/{path}", headers=headers)
        return response.status_code, response.json()["error"]["message"]

    assert refusal(f"{in_place}/0") == (404, f"{model} cannot be copied from here: its checksums are not known.")
    hive.http.delete(f"/v1/models/{in_place}").raise_for_status()
    hive.post("/v1/models/download", {"model": MODEL})
    hive.stream("/v1/models/download/progress", model=MODEL)
    known = model_id(hive)
    assert refusal("nothing-1234/0")[0] == 404
    assert refusal(f"{known}/1") == (404, f"{MODEL} has no file 1: it has 1, counted from 0.")
    for crooked in (f"{known}/-1", f"{known}/x", "..%2F..%2Fetc%2Fpasswd/0", f"{known}/0/../../../home"):
        assert refusal(crooked)[0] in (400, 404)
    for span in ("bytes=0-1,3-4", "bytes=-5", "bytes=999999999-", "lines=1-2", "bytes=5-1"):
        assert refusal(f"{known}/0", Range=span)[0] == 400
    (file,) = (tmp_path / "home" / "models").rglob("*.gguf")
    os.utime(file)
    assert "has changed since" in refusal(known)[1]
    file.unlink()
    assert "is gone" in refusal(f"{known}/0")[1]
