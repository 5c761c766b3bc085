"""A send that need not wait costs no task, and one that must is finished by whoever awaits it."""

from __future__ import annotations

import asyncio

import pytest

from rbee.queen.at_once import begin


def test_what_never_waits_is_done_at_once() -> None:
    """Work without a wait has ended when `begin` returns, outside any event loop."""
    done = []

    async def work() -> None:
        done.append(1)

    assert begin(work()) is None
    assert done == [1]


def test_what_is_left_is_finished_by_its_awaiter() -> None:
    """Every wait of the work is waited for, in its order, and what comes after it happens."""

    async def story() -> None:
        gates = [asyncio.Event(), asyncio.Event()]
        seen = []

        async def work() -> None:
            for number, gate in enumerate(gates):
                await gate.wait()
                seen.append(number)

        rest = begin(work())
        assert rest is not None
        assert not seen
        loop = asyncio.get_running_loop()
        for gate in gates:
            loop.call_soon(gate.set)
        await asyncio.wait_for(_finished(rest), 5)
        assert seen == [0, 1]

    asyncio.run(story())


def test_a_cancellation_reaches_the_work() -> None:
    """Who awaits the rest and is cancelled cancels the work, whose `finally` may wait itself."""

    async def story() -> None:
        seen = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                seen.append("cleaned up")

        rest = begin(work())
        assert rest is not None
        waiting = asyncio.create_task(_finished(rest))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, 5)
        assert seen == ["cleaned up"]

    asyncio.run(story())


def test_a_failure_is_raised_where_it_happens() -> None:
    """Work that fails before its first wait fails in `begin`, later in whoever awaits it."""

    async def fails() -> None:
        raise ValueError("at once")

    async def fails_later() -> None:
        await asyncio.sleep(0)
        raise ValueError("later")

    with pytest.raises(ValueError, match="at once"):
        begin(fails())

    async def story() -> None:
        rest = begin(fails_later())
        assert rest is not None
        with pytest.raises(ValueError, match="later"):
            await rest

    asyncio.run(story())


async def _finished(rest: object) -> None:
    await rest  # type: ignore[misc]
