"""Routes of a daemon: what comes in is checked, what goes out has its form, and both are described."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from rbee.daemonkit.app import create_app
from rbee.daemonkit.auth import Authenticator
from rbee.daemonkit.json_body import JsonBody

KEY = "key"


class Garden(BaseModel):
    """A daemon to talk to."""

    bees: int = 3


class Swarm(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = Field(ge=1)


class Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    loud: bool = False
    most: int = Field(default=10, ge=0)


router = APIRouter(prefix="/v1/bees")


@router.get("/list")
async def bees(request: Request, query: Annotated[Filter, Query()]) -> Garden:
    """List the bees.

    This line is for readers of the code.
    """
    return Garden(bees=min(request.app.state.daemon.bees, query.most))


@router.post("/add", status_code=201)
async def add(request: Request, body: JsonBody[Swarm]) -> Garden:
    """Add bees."""
    return Garden(bees=request.app.state.daemon.bees + body.count)


@router.post("/end", response_class=PlainTextResponse)
async def end(body: JsonBody[Swarm | None] = None) -> PlainTextResponse:
    """End them."""
    return PlainTextResponse("all" if body is None else str(body.count))


@router.delete("/{name}", status_code=204, response_class=Response)
async def forget(name: str, request: Request) -> None:
    """Forget one."""
    assert request.path_params == {"name": name}


def ask(method: str, path: str, **more: Any) -> httpx.Response:
    """Ask the garden."""
    app = create_app("garden", Garden(), authenticator=Authenticator("garden", KEY, open_paths=()), routers=[router])

    async def send() -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://garden", headers=headers
        ) as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/v1/bees/list", None, 200, '{"bees":3}'),
        ("GET", "/v1/bees/list?most=2&loud=true", None, 200, '{"bees":2}'),
        ("POST", "/v1/bees/add", '{"count": 2}', 201, '{"bees":5}'),
        ("POST", "/v1/bees/end", None, 200, "all"),
        ("POST", "/v1/bees/end", '{"count": 2}', 200, "2"),
        ("DELETE", "/v1/bees/maya", None, 204, ""),
    ],
)
def test_a_handler_gets_what_it_names(method: str, path: str, body: str | None, status: int, said: str) -> None:
    """Body, query, path and request come by their names, and what is returned becomes the response."""
    response = ask(method, path, content=body)

    assert (response.status_code, response.text) == (status, said)


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("GET", "/v1/bees/list?most=many", None, "most"),
        ("GET", "/v1/bees/list?most=-1", None, "most"),
        ("GET", "/v1/bees/list?lowd=true", None, "lowd"),
        ("POST", "/v1/bees/add", '{"count": 0}', "count"),
        ("POST", "/v1/bees/add", None, None),
        ("POST", "/v1/bees/add", "{", None),
        ("POST", "/v1/bees/end", '{"count": "x"}', "count"),
    ],
)
def test_what_does_not_fit_is_refused(method: str, path: str, body: str | None, field: str | None) -> None:
    """What has another type, is out of bounds, unknown or missing is INVALID_REQUEST, with the name of the field."""
    response = ask(method, path, content=body)

    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "INVALID_REQUEST", field)


def test_the_routes_are_described() -> None:
    """The document has every operation with its summary, parameters, bodies and statuses."""
    paths = ask("GET", "/openapi.json").json()["paths"]

    listed = paths["/v1/bees/list"]["get"]
    assert listed["summary"] == "List the bees"
    assert [(one["name"], one["in"], one["required"]) for one in listed["parameters"]] == [
        ("loud", "query", False),
        ("most", "query", False),
    ]
    assert paths["/v1/bees/add"]["post"]["requestBody"]["required"] is True
    assert paths["/v1/bees/end"]["post"]["requestBody"].get("required", False) is False
    assert set(paths["/v1/bees/add"]["post"]["responses"]) == {"201", "default"}
    assert set(paths["/v1/bees/{name}"]["delete"]["responses"]) == {"204", "default"}
    assert "text/plain" in paths["/v1/bees/end"]["post"]["responses"]["200"]["content"]
