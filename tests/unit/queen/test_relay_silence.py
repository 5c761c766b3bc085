"""Streams without tokens: a worker that stands still, one that reads a long prompt, a machine that is gone."""

from __future__ import annotations

import asyncio

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.queen.relay import stream
from rbee.queen.relay.connection import HIGH_WATER_BYTES, UpstreamLost
from rbee.queen.relay.pool import UpstreamPool
from rbee.queen.relay.stream import StallGuard, StreamObserver, relay
from tests.unit.queen.upstreams import HEAD, Client, Exchange, TinyWorker, post, relayed, with_worker


def test_a_worker_without_tokens_is_stalled() -> None:
    """Pings are no tokens: a worker that only pings is abandoned after the limit."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(HEAD)
        await exchange.tokens(1)
        while not exchange.writer.is_closing():
            await exchange.chunk(b": ping\n\n")
            await asyncio.sleep(0.02)

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        with pytest.raises(RbeeError) as caught:
            await relayed(await post(pool, worker), Client(), StreamObserver(), stall_s=0.2)

        assert caught.value.code is ErrorCode.WORKER_STALLED
        assert caught.value.details["tokens"] == 1

    with_worker(script, scenario)


def test_a_worker_that_tells_of_progress_is_not_stalled() -> None:
    """A long prompt that is read gives no token for long: the comments that say so count, and reach the client."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(HEAD)
        for count in range(1, 31):
            await exchange.chunk(b": progress %d of 30 prompt tokens, 0 tokens\n\n" % count)
            await asyncio.sleep(0.02)
        await exchange.tokens(1)
        await exchange.done(1)

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        client, observer = Client(), StreamObserver()
        await relayed(await post(pool, worker), client, observer, stall_s=0.3)

        assert observer.tokens == 1
        assert b": progress 30 of 30 prompt tokens" in client.received

    with_worker(script, scenario)


@pytest.mark.parametrize("silent", [True, False])
def test_a_stream_ends_with_its_machine_unless_it_goes_on(silent: bool) -> None:
    """A lost hive ends the silent streams of its machine within seconds; a worker that still sends is not touched."""
    lost = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.write(HEAD)
        await exchange.tokens(1)
        await lost.wait()
        for _ in range(0 if silent else 20):
            await exchange.tokens(1)
            await asyncio.sleep(0.02)
        if silent:
            await exchange.writer.wait_closed()
        await exchange.done(21)

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        upstream, observer, client = await post(pool, worker), StreamObserver(), Client()
        guard = StallGuard(upstream, 60)
        relaying = asyncio.ensure_future(relay(upstream, client, observer, guard))
        await client.arrived.wait()

        guard.hive_lost("no message for 10 s")
        lost.set()
        async with asyncio.timeout(2):
            if not silent:
                await relaying
                assert observer.tokens == 21
                return
            with pytest.raises(RbeeError) as caught:
                await relaying
        assert caught.value.code is ErrorCode.CONNECTION_TIMEOUT
        assert "lost after 1 tokens: no message for 10 s" in caught.value.message

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "LOST_SILENCE_S", 0.3)
        with_worker(script, scenario)


def test_a_request_that_is_not_answered_yet_ends_with_its_machine() -> None:
    """A request on a kept connection to a machine that is gone does not wait for the time of an answer."""
    received = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        received.set()
        await exchange.writer.wait_closed()

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        sending = asyncio.ensure_future(post(pool, worker))
        await received.wait()
        pool.abort_unanswered("elsewhere", UpstreamLost("gone"))
        await asyncio.sleep(0.02)
        assert not sending.done()

        pool.abort_unanswered("attic", UpstreamLost("its machine was lost"))

        with pytest.raises(UpstreamLost, match="machine was lost"):
            await sending
        assert worker.connections == 1

    with_worker(script, scenario)


def test_a_slow_client_slows_the_worker_and_is_no_stall() -> None:
    """What a client does not take is held to a bound, the rest stays with the worker, and nothing is lost."""
    sent = 0
    big = b'data: {"token":"' + b"b" * 4096 + b'","index":0}\n\n'

    async def script(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.write(HEAD)
        for _ in range(8000):
            await exchange.chunk(big)
            sent += 1
        await exchange.done(8000)

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        client, observer = Client(), StreamObserver()
        client.gate.clear()
        upstream = await post(pool, worker)
        relaying = asyncio.ensure_future(relayed(upstream, client, observer, stall_s=0.3))
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.2)

        assert upstream._held <= HIGH_WATER_BYTES + 512 * 1024
        assert sent < 8000
        client.gate.set()
        await relaying
        assert observer.tokens == 8000
        assert len(client.received) > 8000 * 4096

    with_worker(script, scenario)
