"""The hot path: a worker's bytes reach the client as they come, and no stream ends in silence."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.dialects import Dialect
from rbee.daemonkit.sse import encode
from rbee.errors import RbeeError
from rbee.queen.relay.connection import (
    UpstreamError,
    UpstreamTimeout,
)
from rbee.queen.relay.pool import UpstreamPool
from rbee.queen.relay.stream import StreamObserver
from rbee.queen.relay.token_usage import without_comments
from rbee.queen.usage.ledger import Usage
from tests.unit.queen.upstreams import (
    HEAD,
    Client,
    Exchange,
    TinyWorker,
    post,
    relayed,
    with_worker,
)

GOOD = (
    b'data: {"token":"A","index":0}\n\n: ping\n\ndata: {"token":"\\n\\nevent: error \\"done\\":","index":1}\n\n'
    b'data: {"done":true,"total_tokens":2,"duration_ms":5}\n\ndata: [DONE]\n\n'
)


@given(st.lists(st.integers(0, len(GOOD)), max_size=8))
def test_a_stream_reads_the_same_however_it_is_cut(cuts: list[int]) -> None:
    """Where chunks begin and end changes neither the bytes nor the count nor the end."""
    observer = StreamObserver()
    edges = sorted({0, len(GOOD), *cuts})

    pieces = [observer.feed(GOOD[a:b]) for a, b in itertools.pairwise(edges)]

    assert b"".join(pieces) == GOOD
    assert (observer.tokens, observer.done, observer.failed, observer.terminator_seen) == (2, True, False, True)
    assert all(piece == b"" or piece.endswith(b"\n") for piece in pieces)


LINES = (
    b': usage 3 0 0 0\n{"message": {"content": "A"}, "done": false}\n: progress 5\n: ping\n'
    b'{"message": {"tool_calls": [{"arguments": {"x": "\\n: no comment"}}]}, "done": false}\n'
    b': usage 3 1 2 900\n{"done": true, "done_reason": "stop"}\n'
)


@given(st.lists(st.integers(0, len(LINES)), max_size=8))
def test_lines_of_json_reach_a_client_without_comments(cuts: list[int]) -> None:
    """However a stream of Ollama's is cut, its client reads nothing but JSON, and the queen the counts."""
    observer = StreamObserver(Dialect.OLLAMA)
    edges = sorted({0, len(LINES), *cuts})

    pieces = b"".join(without_comments(observer.feed(LINES[a:b])) for a, b in itertools.pairwise(edges))

    assert [json.loads(line).get("done") for line in pieces.splitlines()] == [False, False, True]
    assert (observer.tokens, observer.done, observer.failed, observer.terminator_seen) == (2, True, False, True)
    assert observer.usage == Usage(1, 3, 1, 2, 900)


@given(st.lists(st.integers(0, 1000), max_size=8))
def test_a_call_of_a_response_is_not_silence(cuts: list[int]) -> None:
    """Pieces of a response's text and of the arguments of its calls count as tokens, and nothing else does."""
    told = (
        encode({"type": "response.output_item.added"}, "response.output_item.added"),
        encode({"delta": "it ends with .delta\n"}, "response.output_text.delta"),
        encode({"delta": '{"city":'}, "response.function_call_arguments.delta"),
        encode({"arguments": "{}"}, "response.function_call_arguments.done"),
        encode({"response": {}}, "response.completed"),
    )
    stream = b"".join(told)
    observer = StreamObserver(Dialect.RESPONSES)

    for start, end in itertools.pairwise(sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})):
        observer.feed(stream[start:end])

    assert (observer.tokens, observer.done) == (2, True)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_whole_stream_is_passed_on_unchanged(at_once: bool) -> None:
    """Every byte that the worker sends reaches the client, and tokens are counted, whether it must be waited for."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(HEAD)
        await exchange.tokens(5)
        await exchange.done(5)

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        client, observer = Client(at_once=at_once), StreamObserver()
        upstream = await post(pool, worker)
        assert upstream.status == 200

        await relayed(upstream, client, observer, stall_s=5)

        assert (observer.tokens, observer.done, observer.terminator_seen) == (5, True, True)
        assert bool(client.waited_for) is not at_once
        assert client.received.count(b"\n\n") == 7
        assert client.received.endswith(b"data: [DONE]\n\n")
        assert b"authorization: bearer k" in worker.requests[0].lower()

    with_worker(script, scenario)


def test_a_connection_is_kept_for_the_next_request() -> None:
    """A second request uses the connection of the first."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(HEAD)
        await exchange.done(0)

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        for _ in range(3):
            upstream = await post(pool, worker)
            await relayed(upstream, Client(), StreamObserver(), stall_s=5)
            pool.release(worker.url, upstream)

        assert (worker.connections, len(worker.requests)) == (1, 3)

    with_worker(script, scenario)


def test_a_kept_connection_that_died_is_replaced() -> None:
    """A worker that closes a sleeping connection costs a new one, not an error."""

    async def script(exchange: Exchange) -> None:
        if exchange.number == 2:
            exchange.writer.close()
            return
        await exchange.write(HEAD)
        await exchange.done(0)

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        first = await post(pool, worker)
        await relayed(first, Client(), StreamObserver(), stall_s=5)
        pool.release(worker.url, first)

        second = await post(pool, worker)
        client = Client()
        await relayed(second, client, StreamObserver(), stall_s=5)

        assert client.received.endswith(b"data: [DONE]\n\n")
        assert worker.connections == 2

    with_worker(script, scenario)


def test_a_worker_that_died_of_a_request_on_a_kept_connection_was_sent_it() -> None:
    """Where no new connection can be had, the request went out on the kept one: it must not be tried elsewhere."""
    ending: list[Callable[[], None]] = []

    async def script(exchange: Exchange) -> None:
        if exchange.number == 2:
            ending[0]()
            exchange.writer.close()
            return
        await exchange.write(HEAD)
        await exchange.done(0)

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        ending.append(worker.stop_listening)
        first = await post(pool, worker)
        await relayed(first, Client(), StreamObserver(), stall_s=5)
        pool.release(worker.url, first)

        with pytest.raises(UpstreamError):
            await post(pool, worker)
        with pytest.raises(OSError, match="Connect call failed"):
            await post(pool, worker)

    with_worker(script, scenario)


def test_a_stream_that_breaks_off_is_a_crash_with_its_count() -> None:
    """A connection cut in mid-stream is WORKER_CRASHED with the tokens that came, and no torn line is passed on."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(HEAD)
        await exchange.tokens(3)
        await exchange.chunk(b'data: {"token":"hal')
        exchange.writer.transport.abort()

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        client, observer = Client(), StreamObserver()
        upstream = await post(pool, worker)

        with pytest.raises(RbeeError) as caught:
            await relayed(upstream, client, observer, stall_s=5)

        assert caught.value.code is ErrorCode.WORKER_CRASHED
        assert caught.value.details["tokens"] == 3
        assert client.received.endswith(b'"index":2}\n\n')
        pool.release(worker.url, upstream)

    with_worker(script, scenario)


def test_a_stream_that_ends_without_an_end_is_a_crash() -> None:
    """A complete answer without done or error is broken all the same."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(HEAD)
        await exchange.tokens(2)
        await exchange.write(b"0\r\n\r\n")

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        with pytest.raises(RbeeError, match="broke off after 2 tokens") as caught:
            await relayed(await post(pool, worker), Client(), StreamObserver(), stall_s=5)

        assert caught.value.code is ErrorCode.WORKER_CRASHED

    with_worker(script, scenario)


def test_the_workers_own_error_is_passed_on() -> None:
    """An error event ends the stream in words; nothing is added to it."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(HEAD)
        await exchange.tokens(1)
        await exchange.chunk(b'event: error\ndata: {"error":{"code":"INTERNAL"}}\n\n')
        await exchange.write(b"0\r\n\r\n")

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        client, observer = Client(), StreamObserver()

        await relayed(await post(pool, worker), client, observer, stall_s=5)

        assert observer.failed
        assert client.received.endswith(b'"INTERNAL"}}\n\n')

    with_worker(script, scenario)


def test_a_result_whose_connection_breaks_is_still_a_result() -> None:
    """Once done was said, a missing `[DONE]` is supplied."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(HEAD)
        await exchange.chunk(b'data: {"done":true,"total_tokens":0,"duration_ms":1}\n\n')
        exchange.writer.close()

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        client = Client()

        await relayed(await post(pool, worker), client, StreamObserver(), stall_s=5)

        assert client.received.endswith(b"data: [DONE]\n\n")

    with_worker(script, scenario)


def test_closing_the_upstream_is_noticed_by_the_worker() -> None:
    """A client that leaves makes the relay's owner release the connection, which the worker sees as gone."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(HEAD)
        while True:
            await exchange.tokens(1)
            await asyncio.sleep(0.01)

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        upstream = await post(pool, worker)
        relaying = asyncio.ensure_future(relayed(upstream, Client(), StreamObserver(), stall_s=5))
        await asyncio.sleep(0.05)
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)

        pool.release(worker.url, upstream)

        await asyncio.wait_for(worker.lost.wait(), 5)

    with_worker(script, scenario)


def test_what_is_no_http_is_broken() -> None:
    """Something else on the worker's port is an error, not a hang."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(b"SSH-2.0-OpenSSH_9.6\r\n")

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        with pytest.raises(UpstreamError, match="does not speak HTTP"):
            await post(pool, worker)

    with_worker(script, scenario)


def test_a_worker_that_does_not_begin_to_answer_is_silent() -> None:
    """A request that was taken and not answered in time is told apart from one that could not be sent."""

    async def script(exchange: Exchange) -> None:
        await asyncio.sleep(10)

    async def scenario(worker: TinyWorker, _: UpstreamPool) -> None:
        impatient = UpstreamPool(connect_timeout_s=5, answer_timeout_s=0.1)

        with pytest.raises(UpstreamTimeout):
            await post(impatient, worker)

    with_worker(script, scenario)
