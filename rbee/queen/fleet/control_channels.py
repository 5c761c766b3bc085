"""Keep one control channel to each hive open: the queen dials it, and dials again when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from rbee.client.hive import HiveClient
from rbee.client.retry import CONNECT_TIMEOUT_S
from rbee.contracts.control import HEARTBEAT_INTERVAL_S, HIVE_MESSAGE, SILENCE_LIMIT_S, Hello, Lease
from rbee.contracts.errors import ErrorCode
from rbee.daemonkit import tickets
from rbee.daemonkit.background import BackgroundTasks
from rbee.daemonkit.json_body import JsonParser
from rbee.errors import RbeeError
from rbee.queen.fleet.state import FleetState

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.1
LAST_DELAY_S = 5.0
DIALS_AT_ONCE = 64
DIAL_TURN_S = 0.5
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

_parse_message = JsonParser(HIVE_MESSAGE)

OnReached = Callable[[str, Hello], Awaitable[None]]
OnLost = Callable[[str, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Channel:
    client: HiveClient
    key: str | None
    task: asyncio.Task[None]


class ControlChannels:
    """Keep a channel to each node that was opened; what it receives goes into *fleet*.

    Args:
        queen_id: the sender of the leases.
        on_reached, on_lost: called on each change, to keep it in the node registry.
        rand: returns 0 to 1, for the jitter.
    """

    def __init__(
        self,
        fleet: FleetState,
        background: BackgroundTasks,
        *,
        queen_id: str,
        on_reached: OnReached,
        on_lost: OnLost,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._fleet = fleet
        self._background = background
        self._lease = Lease(queen_id=queen_id).model_dump_json()
        self._on_reached = on_reached
        self._on_lost = on_lost
        self._rand = rand
        self._channels: dict[str, _Channel] = {}
        self._dials = asyncio.Semaphore(DIALS_AT_ONCE)

    async def open(self, node: str, url: str, key: str | None) -> None:
        """Add *node* and keep a channel to its hive; one that was open is replaced."""
        await self._close(node)
        self._fleet.add_node(node, url)
        client = HiveClient(node, url, key)
        self._channels[node] = _Channel(
            client, key, self._background.start(self._run(node, url, key), name=f"channel to {node}")
        )

    async def close(self, node: str, reason: str) -> None:
        """Close the channel to a hive that has ended, and keep its node as one that is not connected."""
        await self._close(node)
        self._fleet.lost(node, reason, ended=True)

    async def forget(self, node: str) -> None:
        """Close the channel and remove the node."""
        await self._close(node)
        self._fleet.remove_node(node)

    async def hang_up(self) -> None:
        """Stop receiving on every channel; the hives can still be reached over HTTP."""
        tasks = [channel.task for channel in self._channels.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close_all(self) -> None:
        """Close every channel."""
        for node in list(self._channels):
            await self._close(node)

    def client(self, node: str) -> HiveClient:
        """Return the HTTP client of *node*'s hive. Raises RbeeError NODE_NOT_FOUND, CONNECTION_TIMEOUT."""
        channel = self._channels.get(node)
        if channel is not None:
            return channel.client
        hive = self._fleet.registry.hive(node)
        if hive is None:
            raise RbeeError(ErrorCode.NODE_NOT_FOUND, f"There is no node named {node}.")
        because = f": {hive.last_error}" if hive.last_error else ""
        raise RbeeError(ErrorCode.CONNECTION_TIMEOUT, f"The hive on {node} is not running{because}.")

    def copy_ticket(self, node: str, path: str, *, now: float) -> str | None:
        """Return a ticket for copying what lies at *path* of *node*'s hive; None for a hive whose key is not known."""
        channel = self._channels.get(node)
        if channel is None or channel.key is None:
            return None
        return tickets.issue(channel.key, path, now=now, life_s=tickets.COPY_LIFE_S)

    async def _close(self, node: str) -> None:
        channel = self._channels.pop(node, None)
        if channel is not None:
            channel.task.cancel()
            await asyncio.gather(channel.task, return_exceptions=True)
            await channel.client.close()

    async def _run(self, node: str, url: str, key: str | None) -> None:
        delay = FIRST_DELAY_S
        reported = ""
        while True:
            ended = False
            try:
                reason = await self._serve(node, url, key)
                ended = True
            # ValueError: a name that no resolver accepts.
            except (OSError, TimeoutError, WebSocketException, RbeeError, ValueError) as error:
                reason = _reason(error, url)
            hive = self._fleet.registry.hive(node)
            was_connected = hive is not None and hive.connected
            delay = FIRST_DELAY_S if was_connected else min(delay * 2, LAST_DELAY_S)
            self._fleet.lost(node, reason, ended=ended)
            if reason != reported or was_connected:
                log.warning("hive lost", extra={"fields": {"node": node, "reason": reason}})
                await self._on_lost(node, reason)
                reported = reason
            await asyncio.sleep(delay * (0.5 + self._rand()))

    async def _serve(self, node: str, url: str, key: str | None) -> str:
        """Open a channel and receive until its hive closes it; return that as a reason.

        Raises what `_reason` describes.
        """
        try:
            async with self._turn():
                socket = await self._dial(url, key)
        except TimeoutError as error:
            raise TimeoutError(f"no connection to {url} within {CONNECT_TIMEOUT_S:g} s") from error
        async with socket:
            await self._receive(node, socket)
        return "its hive closed the channel"

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until few enough others dial; one that dials for long, because nobody answers, is not waited for."""
        await self._dials.acquire()
        over = asyncio.get_running_loop().call_later(DIAL_TURN_S, self._dials.release)
        try:
            yield
        finally:
            if over.when() > asyncio.get_running_loop().time():
                over.cancel()
                self._dials.release()

    def _dial(self, url: str, key: str | None) -> connect:
        return connect(
            url.replace("http", "ws", 1) + "/v1/control",
            additional_headers={"Authorization": f"Bearer {key}"} if key else None,
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=1,
            ping_interval=None,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            proxy=None,
        )

    async def _receive(self, node: str, socket: ClientConnection) -> None:
        """Apply messages until the channel closes or falls silent, and send leases meanwhile."""
        leasing = asyncio.create_task(self._renew(socket), name=f"lease of {node}")
        try:
            while True:
                async with asyncio.timeout(SILENCE_LIMIT_S):
                    body = await socket.recv(decode=False)
                message = _parse_message(body)
                self._fleet.apply(node, message)
                if isinstance(message, Hello):
                    log.info("hive connected", extra={"fields": {"node": node, "workers": len(message.workers)}})
                    await self._on_reached(node, message)
        except ConnectionClosed:
            return
        finally:
            leasing.cancel()
            await asyncio.gather(leasing, return_exceptions=True)

    async def _renew(self, socket: ClientConnection) -> None:
        while True:
            await socket.send(self._lease)
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)


def _reason(error: Exception, url: str) -> str:
    """Return in a few words why a channel broke or could not be opened."""
    match error:
        case TimeoutError():
            return str(error) or f"no message from {url} for {SILENCE_LIMIT_S:g} s"
        case InvalidStatus(response=response) if response.status_code == 401:
            return f"the hive at {url} does not accept the queen's key"
        case InvalidStatus(response=response):
            return f"{url} answered HTTP {response.status_code} to the control channel"
        case RbeeError():
            return f"{url} sent an invalid message on the control channel: {error.message}"
        case OSError(strerror=str(text)):
            return f"{url}: {text.lower()}"
        case _:
            return f"{url}: {str(error) or type(error).__name__}"
