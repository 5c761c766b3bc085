"""What rbee/daemonkit uses of uvicorn's inside, by name, so that an upgrade that changes one fails with that name."""

from __future__ import annotations

import ast
import asyncio
import inspect
from contextlib import AbstractContextManager
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from tests.support.checkout import ROOT

REQUEST = b"GET /bees HTTP/1.1\r\nHost: bees\r\n\r\n"

# Methods that are overridden, or called: their parameters, and whether they are coroutines.
METHODS = {
    "HttpToolsProtocol.connection_made": (["transport"], False),
    "HttpToolsProtocol.handle_websocket_upgrade": ([], False),
    "HttpToolsProtocol.connection_lost": (["exc"], False),
    "HttpToolsProtocol.data_received": (["data"], False),
    "HttpToolsProtocol.on_headers_complete": ([], False),
    "HttpToolsProtocol.on_message_begin": ([], False),
    "HttpToolsProtocol.send_400_response": (["msg"], False),
    "HttpToolsProtocol.shutdown": ([], False),
    "HttpToolsProtocol._unset_keepalive_if_required": ([], False),
    "Server.capture_signals": ([], False),
    "Server.on_tick": (["counter"], True),
    "Server.serve": (["sockets"], True),
    "Server.startup": (["sockets"], True),
}
# Attributes of a connection on which a request has come, and of a server: their types.
ATTRIBUTES = {
    "protocol.cycle": RequestResponseCycle,
    "protocol.connections": set,
    "protocol.flow": FlowControl,
    "protocol.flow.read_paused": bool,
    "protocol.headers": list,
    "protocol.scope": dict,
    "protocol.transport": asyncio.Transport,
    "protocol.url": bytes,
    "cycle.chunked_encoding": bool,
    "cycle.disconnected": bool,
    "cycle.flow": FlowControl,
    "cycle.flow.write_paused": bool,
    "cycle.message_event": asyncio.Event,
    "cycle.more_body": bool,
    "cycle.response_complete": bool,
    "cycle.response_started": bool,
    "cycle.scope": dict,
    "cycle.transport": asyncio.Transport,
    "server.config": Config,
    "server.config.timeout_graceful_shutdown": int,
    "server.server_state": ServerState,
    "server.server_state.connections": set,
    "server.servers": list,
    "server.should_exit": bool,
}
# What `daemonkit/server.py` gives to a configuration.
OPTIONS = (
    "access_log",
    "date_header",
    "http",
    "log_config",
    "proxy_headers",
    "server_header",
    "timeout_graceful_shutdown",
    "timeout_keep_alive",
    "ws",
    "ws_max_size",
)


class _Transport(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False


async def _app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"bees", "more_body": True})
    await asyncio.Event().wait()


@pytest.fixture(scope="module")
def insides() -> SimpleNamespace:
    """Build a server without clients, and a connection in the middle of a streamed answer."""

    async def serve() -> SimpleNamespace:
        config = Config(_app, log_config=None, lifespan="off", port=0, timeout_graceful_shutdown=5)
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        protocol = HttpToolsProtocol(config=config, server_state=server.server_state, app_state={})
        protocol.connection_made(_Transport())
        protocol.data_received(REQUEST)
        (task,) = server.server_state.tasks
        await asyncio.sleep(0)
        found = SimpleNamespace(protocol=protocol, cycle=protocol.cycle, server=server)
        task.cancel()
        for listener in server.servers:
            listener.close()
        return found

    return asyncio.run(serve())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_what_it_took(name: str) -> None:
    """A method of uvicorn that is overridden or called is there, with the same parameters, as plain or as async."""
    owner, method = name.split(".")
    function = getattr({"HttpToolsProtocol": HttpToolsProtocol, "Server": uvicorn.Server}[owner], method)
    parameters, is_async = METHODS[name]

    assert list(inspect.signature(function).parameters) == ["self", *parameters]
    assert inspect.iscoroutinefunction(function) is is_async


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_what_it_was(name: str, insides: SimpleNamespace) -> None:
    """An attribute of uvicorn that is read or set is there, with the same type."""
    assert isinstance(attrgetter(name)(insides), ATTRIBUTES[name])


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_still_known(name: str) -> None:
    """A configuration takes every option that the daemons give."""
    assert name in inspect.signature(Config).parameters


def test_signals_are_caught_in_a_context() -> None:
    """`Server.capture_signals` returns a context manager, which a daemon replaces by its own."""
    assert isinstance(uvicorn.Server(Config(_app)).capture_signals(), AbstractContextManager)


def test_a_connection_knows_its_client_and_its_timer(insides: SimpleNamespace) -> None:
    """The address of a client and the timer of an idle connection are there, None where there is none."""
    assert insides.protocol.client is None
    assert insides.protocol.timeout_keep_alive_task is None


def test_a_cycle_has_the_scope_of_its_connection(insides: SimpleNamespace) -> None:
    """A request's cycle is known by the scope that the connection has as well."""
    assert insides.cycle.scope is insides.protocol.scope


def test_an_answer_without_a_length_is_chunked(insides: SimpleNamespace) -> None:
    """A streamed answer is in chunks, each with its length in hexadecimal, as the daemons write them themselves."""
    assert insides.cycle.chunked_encoding is True
    assert insides.protocol.transport.written[-1] == b"4\r\nbees\r\n"


def test_a_cycle_uses_few_methods_of_its_transport() -> None:
    """A cycle calls no method of its transport but those that the stand-in of `coalesce_head` has."""
    tree = ast.parse(inspect.getsource(RequestResponseCycle))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self.transport"
    }

    assert used == {"close", "is_closing", "write"}


def test_every_inside_that_is_used_is_named_here() -> None:
    """No module of daemonkit uses an inherited method or a cycle's attribute that this file does not name."""
    named = {name.rpartition(".")[2] for name in (*METHODS, *ATTRIBUTES)} | {"__init__"}
    used = set()
    for module in ("http1", "server"):
        for node in ast.walk(ast.parse((ROOT / "rbee" / "daemonkit" / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"super()", "cycle", "self._cycle"}:
                used.add(node.attr)

    assert used - named == set()
