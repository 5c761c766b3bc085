"""The control channel: send every connected queen what this hive has, as it changes, and renew the lease."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from rbee.contracts.control import HEARTBEAT_INTERVAL_S, QUEEN_MESSAGE, SILENCE_LIMIT_S, Heartbeat, Hello, HiveMessage
from rbee.contracts.devices import DeviceEnergy
from rbee.daemonkit.json_body import JsonParser
from rbee.errors import RbeeError

log = logging.getLogger(__name__)
# The channel of a queen that does not read is closed before its messages fill the memory.
MAX_WAITING: Final = 10_000
_parse_message = JsonParser(QUEEN_MESSAGE)
_POLICY_VIOLATION: Final = 1008
_GOING_AWAY: Final = 1001


class ControlChannels:
    """The channels to all queens.

    Args:
        hello: returns what the hive is and has.
        on_lease: called whenever a queen has sent something.
        energy: returns the last reading of each device that tells what it takes.
    """

    def __init__(
        self,
        hello: Callable[[], Awaitable[Hello]],
        on_lease: Callable[[], None],
        *,
        energy: Callable[[], list[DeviceEnergy]] = list,
    ) -> None:
        self._energy = energy
        self._hello = hello
        self._on_lease = on_lease
        self._outboxes: set[asyncio.Queue[str]] = set()

    @property
    def connected(self) -> int:
        """Return how many queens are connected."""
        return len(self._outboxes)

    def publish(self, message: HiveMessage) -> None:
        """Send a message to every queen, in the order of the calls."""
        text = message.model_dump_json()
        for outbox in list(self._outboxes):
            try:
                outbox.put_nowait(text)
            except asyncio.QueueFull:
                log.warning("a queen does not read its channel; closing it")
                self._outboxes.discard(outbox)

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one queen until either side closes the channel, or the queen is silent for too long."""
        await websocket.accept()
        peer = f"{websocket.client.host}:{websocket.client.port}" if websocket.client else "?"
        log.info("queen connected", extra={"fields": {"peer": peer}})
        outbox: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        # Changes while the hello is built are sent after it: each carries the whole state of its subject.
        self._outboxes.add(outbox)
        self._on_lease()
        tasks = {
            asyncio.ensure_future(self._send(websocket, outbox)),
            asyncio.ensure_future(self._receive(websocket)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            reasons = [task.result() for task in done]
            log.info("queen disconnected", extra={"fields": {"peer": peer, "reason": reasons[0]}})
        finally:
            self._outboxes.discard(outbox)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if websocket.application_state is not WebSocketState.DISCONNECTED:
                with contextlib.suppress(RuntimeError, WebSocketDisconnect, OSError):
                    await websocket.close(_GOING_AWAY)

    async def _send(self, websocket: WebSocket, outbox: asyncio.Queue[str]) -> str:
        try:
            await websocket.send_text((await self._hello()).model_dump_json())
            loop = asyncio.get_running_loop()
            next_heartbeat = loop.time() + HEARTBEAT_INTERVAL_S
            while outbox in self._outboxes:
                try:
                    text = await asyncio.wait_for(outbox.get(), max(next_heartbeat - loop.time(), 0))
                except TimeoutError:
                    text = Heartbeat(energy=self._energy()).model_dump_json()
                    next_heartbeat = loop.time() + HEARTBEAT_INTERVAL_S
                await websocket.send_text(text)
        except (WebSocketDisconnect, OSError, RuntimeError):
            return "the connection closed"
        return "it did not read its messages"

    async def _receive(self, websocket: WebSocket) -> str:
        while True:
            try:
                text = await asyncio.wait_for(websocket.receive_text(), SILENCE_LIMIT_S)
                _parse_message(text.encode())
            except TimeoutError:
                return f"silent for {SILENCE_LIMIT_S:g} s"
            except (WebSocketDisconnect, RuntimeError):
                return "it closed the connection"
            except (RbeeError, KeyError):
                with contextlib.suppress(RuntimeError, OSError):
                    await websocket.close(_POLICY_VIOLATION, "invalid message")
                return "it sent an invalid message"
            self._on_lease()
