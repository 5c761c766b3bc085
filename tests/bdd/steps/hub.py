"""The stand-in model hub, and the model that is fetched from it."""

from __future__ import annotations

import struct
from pathlib import Path

from pytest_bdd import given, parsers, then, when

from tests.support.commands import Result
from tests.support.gguf_files import write_gguf
from tests.support.hub import Hub, Reset, Slow
from tests.support.machine import Machine
from tests.support.waiting import eventually, slowness

REPO, FILE = "bees/tiny-GGUF", "tiny-Q4_K_M.gguf"
MIB = 1024 * 1024


@given(parsers.parse("a model hub with a model of {size:d} MiB"))
def hub_with_model(machine: Machine, hub: Hub, size: int) -> None:
    content = write_gguf(machine.root / "on-the-hub.gguf", size=size * MIB).read_bytes()
    hub.add(REPO, FILE, content)
    machine.env.update(hub.environ(machine.root / "hf"))


@given(parsers.parse("the hub closes the connection at {percent:d} percent of the file {times:d} times"))
def hub_breaks(hub: Hub, percent: int, times: int) -> None:
    hub.fail(REPO, FILE, Reset(at=percent / 100), times=times)


@given(parsers.parse("the hub sends {rate:d} MiB per second"))
def hub_is_slow(hub: Hub, rate: int) -> None:
    # Others have time to come while it sends, also where they come slowly.
    hub.fail(REPO, FILE, Slow(bytes_per_s=int(rate * MIB / slowness())))


@given(parsers.parse("the hive goes on with a download for {seconds:d} second when nobody waits for it"))
def short_grace(machine: Machine, seconds: int) -> None:
    machine.configure("hive", download_grace_s=seconds)


@given("bee is a small file with a long text for its number of heads")
def hostile_bee(machine: Machine) -> None:
    path = write_gguf(machine.root / "sound.gguf", size=64)
    key, sound = b"llama.attention.head_count_kv", struct.pack("<II", 4, 4)
    text = b"x" * 1000
    content = path.read_bytes()
    assert content.count(key + sound) == 1
    (machine.root / "hostile.gguf").write_bytes(
        content.replace(key + sound, key + struct.pack("<IQ", 8, len(text)) + text)
    )
    machine.configure("models", bee=f"file://{machine.root / 'hostile.gguf'}")


@given("the hub's model was pulled")
def pulled(machine: Machine) -> None:
    result = machine.run("rbee-keeper", "models", "pull", "--node", "localhost", f"hf:{REPO}")
    assert result.code == 0, result


def cataloged(machine: Machine) -> dict[str, object]:
    result = machine.run("rbee-keeper", "models", "list", "--node", "localhost", "--json")
    assert result.code == 0, result
    (entry,) = result.json["models"]
    row: dict[str, object] = entry
    return row


@when("the file of the model is deleted")
def deleted(machine: Machine) -> None:
    Path(str(cataloged(machine)["local_path"])).unlink()


@when("some of the model was received")
def some_received(machine: Machine) -> None:
    part = machine.home / "models" / "hf" / REPO / f"{FILE}.part"
    eventually(lambda: part.exists() and part.stat().st_size > 0, within=20, because="a part of the file is there")


@then(parsers.parse("no download runs within {seconds:d} seconds"))
def no_download(machine: Machine, seconds: int) -> None:
    def none() -> bool:
        result = machine.run("rbee-keeper", "models", "list", "--node", "localhost", "--json")
        assert result.code == 0, result
        return not result.json["downloads"]

    eventually(none, within=seconds, because="nobody waits for the download")


@then("the hub sent the rest only")
def sent_rest(hub: Hub) -> None:
    assert any(span not in (None, "bytes=0-") for span in hub.ranges(REPO, FILE))


@then("the file of the model is identical to the hub's")
def same_file(machine: Machine) -> None:
    assert Path(str(cataloged(machine)["local_path"])).read_bytes() == (machine.root / "on-the-hub.gguf").read_bytes()


@then("the hub sent the file once")
def sent_once(hub: Hub) -> None:
    assert len(hub.downloads(REPO, FILE)) == 1


@then(parsers.parse("the hub sent less than {size:d} MiB"))
def sent_less(hub: Hub, size: int) -> None:
    assert sum(seen.bytes_sent for seen in hub.downloads(REPO, FILE)) < size * MIB


@then(parsers.parse("the one model has a reference, a path, a size of {size:d} MiB and a time"))
def row_complete(machine: Machine, result: Result, size: int) -> None:
    (entry,) = result.json["models"]
    assert entry["reference"].startswith(f"hf:{REPO}")
    assert entry["local_path"].startswith(str(machine.home / "models"))
    assert entry["size_bytes"] == (machine.root / "on-the-hub.gguf").stat().st_size
    assert entry["size_bytes"] // MIB == size
    assert entry["downloaded_at_unix"] > 1_600_000_000


@then(
    parsers.parse(
        "the model has a vocabulary of {vocabulary:d}, end token {end:d}, quantisation {quantisation}, "
        "{layers:d} layers and a context of {context:d}"
    )
)
def metadata(result: Result, vocabulary: int, end: int, quantisation: str, layers: int, context: int) -> None:
    shown = result.json
    assert (shown["vocabulary_size"], shown["end_token"], shown["quantization"]) == (vocabulary, end, quantisation)
    assert (shown["layers"], shown["context_length"]) == (layers, context)
