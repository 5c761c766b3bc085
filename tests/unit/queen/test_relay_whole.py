"""Answers that are no streams are relayed from their first byte on."""

from __future__ import annotations

import json
from typing import cast

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.queen.relay.pool import UpstreamPool
from rbee.queen.relay.response_sink import ResponseSink
from rbee.queen.relay.stream import StreamObserver, relay_whole
from tests.unit.queen.upstreams import HEAD, Client, Exchange, TinyWorker, post, with_worker


def test_an_error_in_place_of_a_whole_answer_is_the_clients_error() -> None:
    """A worker that sent its head early and could not finish sends the error as the body, in pieces or at once."""
    body = json.dumps(RbeeError(ErrorCode.INVALID_REQUEST, "the grammar explodes", param="grammar").body()).encode()

    async def script(exchange: Exchange) -> None:
        await exchange.write(HEAD)
        await exchange.chunk(body[:20])
        await exchange.chunk(body[20:])
        await exchange.write(b"0\r\n\r\n")

    async def scenario(worker: TinyWorker, pool: UpstreamPool) -> None:
        client, observer = Client(), StreamObserver()

        with pytest.raises(RbeeError, match="the grammar explodes") as caught:
            await relay_whole(await post(pool, worker), cast("ResponseSink", client), observer)

        assert (caught.value.code, caught.value.param) == (ErrorCode.INVALID_REQUEST, "grammar")
        assert (client.received, observer.failed) == (b"", True)

    with_worker(script, scenario)
