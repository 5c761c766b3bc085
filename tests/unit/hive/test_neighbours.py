"""What a hive takes from another one that a queen names: the model that was meant, within the rate that was set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from rbee.contracts.models import Neighbour
from rbee.errors import RbeeError
from rbee.hive.models.neighbours import plan
from rbee.hive.models.remote import BrokenTransferError, RemoteFile
from rbee.hive.models.send_rate import SendRate
from rbee.model_reference import HubRef, UrlRef

REF = HubRef("bees/tiny")
NEIGHBOUR = Neighbour(node="h2", url="http://h2:9200", model_id="tiny-1", ticket="t", sha256="a" * 64, size_bytes=300)
FILES = [{"name": "Q4_K_M/tiny.gguf", "size_bytes": 300, "sha256": "a" * 64}]


def planned(body: Any, ref: HubRef | UrlRef = REF, *, status: int = 200) -> list[RemoteFile]:
    """Return what is planned where the other hive answers *body*."""

    async def pieces() -> AsyncIterator[bytes]:
        yield body if isinstance(body, bytes) else json.dumps(body).encode()

    async def work() -> list[RemoteFile]:
        answer = httpx.Response(status, content=pieces())
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answer)) as client:
            return await plan(NEIGHBOUR, ref, client)

    return asyncio.run(work())


def test_the_files_are_those_of_the_reference() -> None:
    """A copy lies where a download would, and is asked for with the ticket in a header."""
    (file,) = planned({"reference": REF.canonical, "files": FILES})

    assert file.path == "hf/bees/tiny/Q4_K_M/tiny.gguf"
    assert file.url == "http://h2:9200/v1/model-files/tiny-1/0"
    assert (file.size, file.sha256) == (300, "a" * 64)
    assert file.headers["Authorization"] == "Bearer t"


def test_the_place_of_an_address_is_its_own() -> None:
    """A file of an address lies where its address says, whatever the other hive calls it."""
    ref = UrlRef("https://a.example/x.gguf")

    (file,) = planned({"reference": ref.canonical, "files": [{**FILES[0], "name": "elsewhere.gguf"}]}, ref)

    assert file.path.startswith("https/a.example/x-")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "../../../.ssh/authorized_keys"}, "the file must lie inside"),
        ({"name": "/etc/x.gguf"}, "the file must lie inside"),
        ({"name": "a\\..\\x.gguf"}, "the file must lie inside"),
        ({"name": "mmproj-tiny.gguf"}, "none of them is a model"),
        ({"name": "notes.txt"}, "has no GGUF file"),
        ({"sha256": "b" * 64}, "the file has the sha256"),
        ({"size_bytes": 301}, "another size"),
    ],
)
def test_other_files_than_the_model_are_not_taken(change: dict[str, Any], reason: str) -> None:
    """What a list of files names is checked before a byte is asked for: paths, checksum, size, kind."""
    with pytest.raises(RbeeError, match=reason):
        planned({"reference": REF.canonical, "files": [{**FILES[0], **change}]})


def test_a_list_of_something_else_is_not_taken() -> None:
    """Another model, no files, too much and nonsense are no list of the model's files."""
    for body in (
        {"reference": "hf:bees/other", "files": FILES},
        {"reference": REF.canonical, "files": []},
        {"reference": REF.canonical, "files": [*FILES, {**FILES[0], "name": "second.gguf", "size_bytes": 0}]},
        {"something": "else"},
        b"x" * 2_000_000,
    ):
        with pytest.raises(RbeeError):
            planned(body)


def test_a_refusal_is_told_in_the_hives_words() -> None:
    """What the other hive says is passed on; one that is busy may be asked again."""
    error = {"code": "MODEL_NOT_FOUND", "message": "It is gone.", "type": "t", "details": {}, "hint": ""}

    with pytest.raises(RbeeError, match="It is gone"):
        planned({"error": error}, status=404)
    for status in (429, 503):
        with pytest.raises(BrokenTransferError):
            planned({}, status=status)


def test_a_rate_is_kept_by_all_together() -> None:
    """Pieces leave one after the other, at the rate; a pause is not made up for."""
    rate = SendRate(100)

    assert [rate.reserve(50, 10.0) for _ in range(3)] == [0.0, 0.5, 1.0]
    assert rate.reserve(50, 11.0) == 0.5
    assert [rate.reserve(50, 60.0), rate.reserve(50, 60.0)] == [0.0, 0.5]
