"""The end of a hive is believed when nobody listens at its address any more."""

from __future__ import annotations

import asyncio

from rbee.queen.shutdown import wait_until_closed


async def listening() -> tuple[asyncio.Server, str]:
    """Listen as a hive does."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_a_hive_that_still_listens_is_not_gone() -> None:
    """What says that it ends and goes on is told with its address and the time that it had."""

    async def ask() -> str | None:
        server, url = await listening()
        async with server:
            return await wait_until_closed(url, 0.2)

    doubt = asyncio.run(ask())

    assert doubt is not None
    assert "127.0.0.1" in doubt
    assert "0.2 s" in doubt


def test_a_hive_is_gone_once_its_address_is_closed() -> None:
    """It may take a moment to close."""

    async def ask() -> str | None:
        server, url = await listening()
        asking = asyncio.ensure_future(wait_until_closed(url, 10))
        _, waiting = await asyncio.wait({asking}, timeout=0.2)
        assert waiting
        server.close()
        await server.wait_closed()
        return await asking

    assert asyncio.run(ask()) is None
