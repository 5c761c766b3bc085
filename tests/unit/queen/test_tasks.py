"""A task is in the registry until it has ended, and each way to end it early has the same end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.contracts.keys import Right
from rbee.contracts.tasks import TaskAccepted, TaskRequest
from rbee.daemonkit.background import BackgroundTasks
from rbee.daemonkit.http1 import ClientConnection
from rbee.errors import RbeeError
from rbee.queen.client_ids import ClientIds
from rbee.queen.database import Database
from rbee.queen.fleet.state import FleetState
from rbee.queen.keys.access import ADMIN
from rbee.queen.keys.access import Client as KeyHolder
from rbee.queen.progress import Event
from rbee.queen.relay.pool import UpstreamPool
from rbee.queen.relay.response_sink import ResponseSink
from rbee.queen.relay.stream import StreamObserver
from rbee.queen.tasks.registry import TaskRegistry
from rbee.queen.tasks.scheduler import Scheduler
from rbee.queen.tasks.task import QueenServices, answer
from rbee.queen.usage.store import UsageStore

BEE = KeyHolder("bee", frozenset(Right))


class StuckScheduler:
    """Never finds a worker."""

    def __init__(self) -> None:
        self.queue: list[object] = []

    def check_node(self, _node: str | None) -> None:
        """Know every node."""

    def check(self, _placement: object) -> None:
        """Leave the decision to later."""

    async def acquire(self, *_: object) -> None:
        await asyncio.Event().wait()


class Client:
    """A client's connection, and what was sent on it."""

    def __init__(self) -> None:
        self.failures: list[ErrorCode] = []
        self.messages: list[str] = []
        self.ended = False
        self.leave: Callable[[], object] | None = None
        self.accepted = asyncio.Event()
        self.task_id = ""

    def write(self, _data: bytes) -> bool:
        return True

    async def send(self, data: bytes) -> None:
        raise AssertionError(data)

    async def comment(self, text: str) -> None:
        raise AssertionError(text)

    async def start(self, ignored: bytes = b"") -> None:
        raise AssertionError(ignored)

    def on_disconnect(self, call: Callable[[], object] | None) -> None:
        self.leave = call

    async def emit(self, event: Event) -> None:
        assert isinstance(event, TaskAccepted)
        self.task_id = event.task_id
        self.accepted.set()

    async def fail(self, error: RbeeError, _request_id: str | None) -> None:
        self.failures.append(error.code)
        self.messages.append(error.message)

    async def end(self) -> None:
        self.ended = True


def registry_of(max_tasks: int = 10) -> TaskRegistry:
    """Make a registry whose tasks find no worker."""
    scheduler = cast("Scheduler", StuckScheduler())
    services = QueenServices(
        scheduler,
        FleetState(lambda: 0.0),
        UpstreamPool(1, 1),
        BackgroundTasks(),
        ClientIds("secret"),
        60,
        UsageStore(Database(None, Paths(Path("nowhere"))), keep_days=1, create=False),
        lambda: 0.0,
    )
    return TaskRegistry(services, aliases={}, max_tasks=max_tasks, max_tasks_per_client=None)


async def run(
    registry: TaskRegistry,
    client: Client,
    end: Callable[[str], object],
    holder: KeyHolder = BEE,
    **options: float,
) -> None:
    """Run a task until *end*, called with its id, has ended it."""
    request = TaskRequest.model_validate({"model": "hf:bees/honey", "prompt": "Hum", **options})
    admission = registry.admit(request, holder, model="honey", draining=False)
    running = asyncio.ensure_future(
        answer(admission, cast("ResponseSink", client), cast("ClientConnection", client), "request-1")
    )
    await client.accepted.wait()
    assert len(registry) == 1
    ending = end(client.task_id)
    if asyncio.iscoroutine(ending):
        await ending
    await asyncio.wait_for(running, 5)
    assert len(registry) == 0


@pytest.mark.parametrize("who", [KeyHolder("bee"), ADMIN])
def test_a_deleted_task_ends_with_canceled(who: KeyHolder) -> None:
    """Its own client and the operator may cancel it; the stream gets its end."""

    async def check() -> Client:
        client, registry = Client(), registry_of()
        await run(registry, client, lambda task_id: registry.cancel(task_id, who))
        return client

    client = asyncio.run(check())

    assert (client.failures, client.ended) == ([ErrorCode.CANCELED], True)


def test_a_client_that_leaves_is_sent_nothing() -> None:
    """Nobody reads the end of such a task."""

    async def check() -> Client:
        client, registry = Client(), registry_of()
        await run(registry, client, lambda _: client.leave and client.leave())
        return client

    client = asyncio.run(check())

    assert (client.failures, client.ended) == ([], False)


def test_an_end_that_was_told_is_told_once() -> None:
    """A task whose stream has brought the worker's own error is sent no second one when its deadline comes then."""

    async def check() -> Client:
        client, registry = Client(), registry_of()

        async def end(task_id: str) -> None:
            registry._tasks[task_id].activity.observer = observer = StreamObserver()
            observer.feed(b'event: error\ndata: {"error": {}}\n\n')
            await registry.cancel(task_id, BEE)

        await run(registry, client, end)
        return client

    client = asyncio.run(check())

    assert (client.failures, client.ended) == ([], True)


def test_a_queen_that_stops_ends_its_tasks_with_draining() -> None:
    """The client of a task that could not be waited for is told so."""

    async def check() -> Client:
        client, registry = Client(), registry_of()
        await run(registry, client, lambda _: registry.abort_all())
        return client

    client = asyncio.run(check())

    assert (client.failures, client.ended) == ([ErrorCode.DRAINING], True)


def test_a_deadline_ends_a_task_that_waits() -> None:
    """A request with a deadline is not held longer than that, and its client is told what it was waiting for."""

    async def check() -> Client:
        client = Client()
        await run(registry_of(), client, lambda _: None, deadline_s=0.05)
        return client

    client = asyncio.run(check())

    assert (client.failures, client.ended) == ([ErrorCode.REQUEST_TIMEOUT], True)
    assert client.messages == ["The request exceeded its deadline of 0.05 s; it was waiting for a worker."]


def test_the_first_cause_counts() -> None:
    """What comes after the first reason to end a task changes nothing of what its client is sent."""

    async def check() -> Client:
        client, registry = Client(), registry_of()

        async def end(task_id: str) -> None:
            canceling = asyncio.ensure_future(registry.cancel(task_id, BEE))
            await asyncio.sleep(0)
            await registry.abort_all()
            await canceling

        await run(registry, client, end)
        return client

    assert asyncio.run(check()).failures == [ErrorCode.CANCELED]


def test_a_task_too_many_is_not_admitted() -> None:
    """QUEUE_FULL comes before anything is sent, and an ended task makes room."""

    async def check() -> None:
        registry = registry_of(max_tasks=1)
        request = TaskRequest.model_validate({"model": "hf:bees/honey", "prompt": "Hum"})
        with registry.admit(request, BEE, model="honey", draining=False):
            with pytest.raises(RbeeError) as caught, registry.admit(request, BEE, model="honey", draining=False):
                pass
            assert caught.value.code is ErrorCode.QUEUE_FULL
        with registry.admit(request, BEE, model="honey", draining=False):
            assert len(registry) == 1

    asyncio.run(check())


def test_a_client_is_told_of_a_failure_no_more_than_it_may_know() -> None:
    """An operator reads what a task was waiting for; a client without that right reads that it took too long."""

    async def check() -> Client:
        client = Client()
        await run(registry_of(), client, lambda _: None, KeyHolder("bee"), deadline_s=0.05)
        return client

    assert asyncio.run(check()).messages == ["The request exceeded its deadline."]


def test_one_client_does_not_keep_all_places() -> None:
    """Where all places are taken, a task of the client with the most gives its place to one of another client."""

    async def check() -> list[Client]:
        registry = registry_of(max_tasks=4)
        request = TaskRequest.model_validate({"model": "hf:bees/honey", "prompt": "Hum"})
        clients: list[Client] = []
        running: list[asyncio.Future[None]] = []

        def ask(name: str) -> None:
            client = Client()
            admission = registry.admit(request, KeyHolder(name), model="honey", draining=False)
            clients.append(client)
            running.append(
                asyncio.ensure_future(
                    answer(admission, cast("ResponseSink", client), cast("ClientConnection", client), "request")
                )
            )

        for name in ("many", "many", "many", "many", "few", "few", "few"):
            ask(name)
            await clients[-1].accepted.wait() if len(clients) < 7 else await asyncio.wait(running[-1:], timeout=5)
        assert isinstance(running[-1].exception(), RbeeError)
        assert [registry.of_client(name) for name in ("many", "few")] == [2, 2]
        await registry.abort_all()
        await asyncio.gather(*running, return_exceptions=True)
        return clients

    clients = asyncio.run(check())

    # The latest of those that waited longest in number; the third of the other client would only turn it around.
    assert [client.failures[0] for client in clients[:6]] == [
        *(ErrorCode.DRAINING, ErrorCode.DRAINING),
        *(ErrorCode.QUEUE_FULL, ErrorCode.QUEUE_FULL),
        *(ErrorCode.DRAINING, ErrorCode.DRAINING),
    ]


def test_a_key_has_as_many_tasks_at_once_as_it_may() -> None:
    """One more is refused with 429, and an ended one makes room."""

    async def check() -> None:
        registry, limited = registry_of(), KeyHolder("bee", max_tasks=1)
        request = TaskRequest.model_validate({"model": "hf:bees/honey", "prompt": "Hum"})
        with registry.admit(request, limited, model="honey", draining=False):
            with pytest.raises(RbeeError) as caught, registry.admit(request, limited, model="honey", draining=False):
                pass
            assert caught.value.code is ErrorCode.TOO_MANY_REQUESTS
            assert caught.value.retry_after_s
        with registry.admit(request, limited, model="honey", draining=False):
            assert registry.of_client("bee") == 1

    asyncio.run(check())
