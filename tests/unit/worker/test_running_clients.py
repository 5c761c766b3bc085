"""How a worker tells its hive whose requests run."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send

from rbee.daemonkit import tickets
from rbee.daemonkit.auth import OPERATOR, TICKET
from rbee.worker.running_clients import RunningClients


def scope(client: str | None = None, *, path: str = "/v1/inference", query: bytes = b"") -> Scope:
    headers = [] if client is None else [(b"x-rbee-client", client.encode())]
    caller = TICKET if query else OPERATOR
    request = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": query}
    return {**request, "state": {"caller": caller, "client": caller.name}}


def told_for(*scopes: Scope) -> list[list[str]]:
    """Run requests that begin one after the other and end in the same order; return the sets that were told."""
    told: list[list[str]] = []

    async def scenario() -> None:
        ends = {id(each): asyncio.Event() for each in scopes}

        async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
            await ends[id(scope)].wait()

        def tell(message: dict[str, Any]) -> None:
            told.append(message["clients"])

        clients = RunningClients(app, tell)
        tasks = []
        for each in scopes:
            tasks.append(asyncio.ensure_future(clients(each, None, None)))  # type: ignore[arg-type]
            await asyncio.sleep(0)
        for each, task in zip(scopes, tasks, strict=True):
            ends[id(each)].set()
            await task

    asyncio.run(scenario())
    return told


def test_a_client_is_told_before_its_request_is_read_and_once() -> None:
    """The set is told when a request begins; more of the same client change nothing, and its end is not told."""
    assert told_for(scope("e"), scope("e")) == [["e"]]


def test_every_other_set_of_clients_is_told() -> None:
    """Whoever begins or ends beside others changes the set."""
    assert told_for(scope("e"), scope("a")) == [["e"], ["a", "e"], ["a"]]


def test_requests_without_a_client_are_those_of_one_unknown() -> None:
    """Nothing runs unnoticed: a request without an id counts as one of an unknown client."""
    assert told_for(scope()) == [[""]]


def test_a_redirected_request_names_its_client_in_the_ticket() -> None:
    """In direct mode the id is in what the queen signed, whatever the client's own headers say."""
    ticket = tickets.issue("key", "/v1/chat/completions", now=0, client="5f0c1d2e")
    query = f"ticket={ticket}".encode()

    assert told_for(scope(path="/v1/chat/completions", query=query)) == [["5f0c1d2e"]]
    assert told_for(scope("somebody-else", path="/v1/chat/completions", query=query)) == [["5f0c1d2e"]]


def test_other_routes_are_nobodys() -> None:
    """Only what a model answers counts."""
    assert told_for(scope("e", path="/v1/admin/shutdown")) == []
