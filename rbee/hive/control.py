"""The control channel: tell every queen that is connected what this hive has, as it changes, and hear that it lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from rbee.contracts.control import HEARTBEAT_INTERVAL_S, QUEEN_MESSAGE, SILENCE_LIMIT_S, Heartbeat, Hello, HiveMessage

log = logging.getLogger(__name__)
# A queen that does not read is cut off before what it has not read fills the memory.
MAX_WAITING: Final = 10_000
_POLICY_VIOLATION: Final = 1008
_GOING_AWAY: Final = 1001


class ControlChannels:
    """The channels to all queens.

    Args:
        hello: says what the hive is and has.
        on_lease: told whenever a queen has said that it lives.
    """

    def __init__(self, hello: Callable[[], Awaitable[Hello]], on_lease: Callable[[], None]) -> None:
        self._hello = hello
        self._on_lease = on_lease
        self._outboxes: set[asyncio.Queue[str]] = set()

    @property
    def connected(self) -> int:
        """How many queens are connected."""
        return len(self._outboxes)

    def publish(self, message: HiveMessage) -> None:
        """Send a message to every queen, in the order of the calls."""
        text = message.model_dump_json()
        for outbox in list(self._outboxes):
            try:
                outbox.put_nowait(text)
            except asyncio.QueueFull:
                log.warning("a queen does not read its channel and is cut off")
                self._outboxes.discard(outbox)

    async def serve(self, websocket: WebSocket) -> None:
        """Talk to one queen until either side ends it, or the queen is silent for too long."""
        await websocket.accept()
        peer = f"{websocket.client.host}:{websocket.client.port}" if websocket.client else "?"
        log.info("queen connected", extra={"fields": {"peer": peer}})
        outbox: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        # Changes while the hello is made are sent after it: each says the whole state of its thing.
        self._outboxes.add(outbox)
        self._on_lease()
        talking = {
            asyncio.ensure_future(self._send(websocket, outbox)),
            asyncio.ensure_future(self._receive(websocket)),
        }
        try:
            done, _ = await asyncio.wait(talking, return_when=asyncio.FIRST_COMPLETED)
            reasons = [task.result() for task in done]
            log.info("queen gone", extra={"fields": {"peer": peer, "reason": reasons[0]}})
        finally:
            self._outboxes.discard(outbox)
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)
            if websocket.application_state is not WebSocketState.DISCONNECTED:
                with contextlib.suppress(RuntimeError, WebSocketDisconnect, OSError):
                    await websocket.close(_GOING_AWAY)

    async def _send(self, websocket: WebSocket, outbox: asyncio.Queue[str]) -> str:
        beat = Heartbeat().model_dump_json()
        try:
            await websocket.send_text((await self._hello()).model_dump_json())
            loop = asyncio.get_running_loop()
            next_beat = loop.time() + HEARTBEAT_INTERVAL_S
            while outbox in self._outboxes:
                try:
                    text = await asyncio.wait_for(outbox.get(), max(next_beat - loop.time(), 0))
                except TimeoutError:
                    text = beat
                    next_beat = loop.time() + HEARTBEAT_INTERVAL_S
                await websocket.send_text(text)
        except (WebSocketDisconnect, OSError, RuntimeError):
            return "the connection closed"
        return "it did not read its messages"

    async def _receive(self, websocket: WebSocket) -> str:
        while True:
            try:
                text = await asyncio.wait_for(websocket.receive_text(), SILENCE_LIMIT_S)
                QUEEN_MESSAGE.validate_json(text)
            except TimeoutError:
                return f"silent for {SILENCE_LIMIT_S:g} s"
            except (WebSocketDisconnect, RuntimeError):
                return "it closed the connection"
            except (ValidationError, KeyError):
                with contextlib.suppress(RuntimeError, OSError):
                    await websocket.close(_POLICY_VIOLATION, "not a message of a queen")
                return "it sent what is not a message of a queen"
            self._on_lease()
