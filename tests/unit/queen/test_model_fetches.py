"""How the queen has several nodes get one model: who asks the origin, who waits, and what happens when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry, DownloadProgress, Neighbour
from rbee.contracts.references import Provider
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.queen.fleet import model_fetches
from rbee.queen.fleet.control_channels import ControlChannels
from rbee.queen.fleet.model_fetches import ModelFetches
from rbee.queen.fleet.state import FleetState
from rbee.queen.progress import SharedJob
from tests.unit.queen.fleet import hello

MODEL = "hf:bees/tiny"


def entry(reference: str = MODEL) -> CatalogEntry:
    return CatalogEntry(
        id="tiny-1",
        provider=Provider.HF,
        reference=reference,
        local_path="/models/tiny.gguf",
        size_bytes=100,
        sha256="0" * 64,
        downloaded_at_unix=1,
    )


class Node:
    """A hive that gets a model when a test says so. `asked` are the sources that it was given, each time."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.given: list[str] = []
        self.was_asked = asyncio.Event()
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def download(self, _model: str, neighbours: Sequence[Neighbour] = (), _on_retry: object = None) -> Any:
        if self.end.done():
            self.end = asyncio.get_running_loop().create_future()
        self.was_asked.set()
        self.was_asked = asyncio.Event()
        self.asked.append([each.node for each in neighbours])
        self.given = [each.ticket for each in neighbours]
        return DownloadProgress(stage="downloading", bytes_total=100)

    async def download_progress(self, _model: str) -> AsyncIterator[DownloadProgress]:
        yield DownloadProgress(stage="downloading", bytes_downloaded=40, bytes_total=100)
        await asyncio.shield(self.end)
        yield DownloadProgress(stage="complete", entry=entry(), fetched=True)

    def finish(self) -> None:
        self.end.set_result(None)

    def fail(self, code: ErrorCode, **details: Any) -> None:
        self.end.set_exception(RbeeError(code, "It failed.", details=details))


class Nodes:
    """The nodes of a queen, and the jobs that have each of them get the model."""

    def __init__(self, background: BackgroundTasks, *names: str) -> None:
        self.fleet = FleetState(lambda: 0.0)
        self.nodes = {name: Node() for name in names}
        for name in names:
            self.fleet.add_node(name, f"http://{name}:9200")
            self.fleet.apply(name, hello().model_copy(update={"models": [], "hive_id": name}))
        self.issued = 0
        self._background = background
        self.fetches = ModelFetches(self.fleet, cast("ControlChannels", self), background)

    def client(self, node: str) -> Node:
        return self.nodes[node]

    def copy_ticket(self, node: str, path: str, *, now: float) -> str:
        self.issued += 1
        return f"ticket {self.issued} of {now} for {path} of {node}"

    def want(self, name: str, model: str = MODEL) -> asyncio.Future[CatalogEntry]:
        job = SharedJob.start(self._background, lambda feed: self.fetches.ensure(feed, name, model), name=name)
        return asyncio.ensure_future(job.result())

    @property
    def asked(self) -> dict[str, list[list[str]]]:
        """Who was asked to get the model, and from where: an empty list is the origin."""
        return {name: node.asked for name, node in self.nodes.items() if node.asked}


async def settled() -> None:
    """Let everything happen that can happen now."""
    for _ in range(50):
        await asyncio.sleep(0)


def among(*names: str) -> Callable[[Callable[[Nodes], Awaitable[None]]], Callable[[], None]]:
    """Run a test with these nodes."""

    def add(test: Callable[[Nodes], Awaitable[None]]) -> Callable[[], None]:
        async def work() -> None:
            async with BackgroundTasks() as background:
                await asyncio.wait_for(test(Nodes(background, *names)), 10)

        def run() -> None:
            asyncio.run(work())

        run.__doc__ = test.__doc__
        return run

    return add


@among("h1", "h2", "h3", "h4", "h5")
async def test_one_asks_the_origin(nodes: Nodes) -> None:
    """While one node fetches, the others wait; then each gets it from whoever has it, two from one at a time."""
    jobs = [nodes.want(name) for name in nodes.nodes]
    await settled()
    assert nodes.asked == {"h1": [[]]}

    nodes.nodes["h1"].finish()
    await settled()
    assert nodes.asked == {"h1": [[]], "h2": [["h1"]], "h3": [["h1"]]}

    nodes.nodes["h2"].finish()
    await settled()
    assert nodes.asked["h4"] == [["h2", "h1"]]
    for name in ("h3", "h4", "h5"):
        nodes.nodes[name].finish()
    await asyncio.gather(*jobs)
    assert [asked for asked in nodes.asked.values() if asked == [[]]] == [[[]]]


@among("h1", "h2", "h3")
async def test_when_a_source_fails_one_goes_to_the_origin(nodes: Nodes) -> None:
    """Of two nodes whose source dies, one asks the origin and the other waits for it."""
    first = nodes.want("h1")
    await settled()
    nodes.nodes["h1"].finish()
    await first
    others = [nodes.want("h2"), nodes.want("h3")]
    await settled()
    nodes.fleet.lost("h1", "it died")

    for name in ("h2", "h3"):
        nodes.nodes[name].fail(ErrorCode.DOWNLOAD_FAILED, neighbours=["h1"])
        await settled()
    assert sorted([nodes.asked["h2"], nodes.asked["h3"]]) == [[["h1"]], [["h1"], []]]

    last = "h2" if nodes.asked["h2"] == [["h1"], []] else "h3"
    nodes.nodes[last].finish()
    await settled()
    other = "h3" if last == "h2" else "h2"
    assert nodes.asked[other] == [["h1"], [last]]
    nodes.nodes[other].finish()
    await asyncio.gather(*others)


@among("h1", "h2", "h3")
async def test_when_the_first_fails_the_next_one_fetches(nodes: Nodes) -> None:
    """An origin that one node cannot reach is asked by the next; only the first one's request fails."""
    jobs = {name: nodes.want(name) for name in nodes.nodes}
    await settled()

    nodes.nodes["h1"].fail(ErrorCode.MODEL_ACCESS_DENIED)
    await settled()

    with pytest.raises(RbeeError, match="It failed"):
        await jobs["h1"]
    assert nodes.asked == {"h1": [[]], "h2": [[]]}
    nodes.nodes["h2"].finish()
    await settled()
    nodes.nodes["h3"].finish()
    assert await jobs["h3"] == entry()
    assert nodes.asked["h3"] == [["h2"]]


@among("h1")
async def test_two_requests_for_one_node_are_one(nodes: Nodes) -> None:
    """Whoever wants the same on the same node waits for the same, also by another spelling."""
    jobs = [nodes.want("h1"), nodes.want("h1"), nodes.want("h1", f"{MODEL}")]
    await settled()

    assert nodes.asked == {"h1": [[]]}
    nodes.nodes["h1"].finish()
    assert await asyncio.gather(*jobs) == [entry()] * 3


@among("h1", "h2")
async def test_who_waits_keeps_the_download_going(nodes: Nodes) -> None:
    """A download whose first client has left goes on for the node that waits for it, which then copies it."""
    first = nodes.want("h1")
    await settled()
    second = nodes.want("h2")
    await settled()

    first.cancel()
    await settled()
    nodes.nodes["h1"].finish()
    await settled()

    assert nodes.asked == {"h1": [[]], "h2": [["h1"]]}
    nodes.nodes["h2"].finish()
    assert await second == entry()


def test_nobody_waits_for_a_machine_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is lost while it fetches holds the others up for a while, not for ever."""
    monkeypatch.setattr(model_fetches, "LOST_CHECK_S", 0.01)

    @among("h1", "h2")
    async def lost(nodes: Nodes) -> None:
        nodes.want("h1")
        await settled()
        second = nodes.want("h2")
        await settled()

        nodes.fleet.lost("h1", "it is off")
        await nodes.nodes["h2"].was_asked.wait()
        await settled()

        assert nodes.asked["h2"] == [[]]
        nodes.nodes["h2"].finish()
        await second

    lost()


def test_tickets_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that takes long gets fresh tickets, and hears of nodes that have the model by now."""
    monkeypatch.setattr(model_fetches, "RENEW_S", 0.01)

    @among("h1", "h2", "h3")
    async def renewed(nodes: Nodes) -> None:
        nodes.fleet.apply("h1", hello().model_copy(update={"models": [entry()], "hive_id": "h1"}))
        job = nodes.want("h2")
        await settled()
        first = nodes.nodes["h2"].given
        nodes.fleet.apply("h3", hello().model_copy(update={"models": [entry()], "hive_id": "h3"}))
        for _ in range(2):
            await nodes.nodes["h2"].was_asked.wait()
            await settled()

        assert nodes.asked["h2"][0] == ["h1"]
        assert sorted(nodes.asked["h2"][-1]) == ["h1", "h3"]
        assert not set(first) & set(nodes.nodes["h2"].given)
        nodes.nodes["h2"].finish()
        await job

    renewed()
