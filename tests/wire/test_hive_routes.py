"""The hive's routes: all that are promised are there, behind the key, with the one error body."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from rbee.config.paths import Paths
from rbee.contracts.error_body import ErrorBody
from rbee.hive.app import create_app
from rbee.hive.daemon import Hive
from rbee.hive.settings import HiveSettings

KEY = "the-key-of-the-hive"
PROMISED = [
    ("GET", "/v1/health"),
    ("GET", "/v1/backends/list"),
    ("GET", "/v1/worker-binaries/list"),
    ("GET", "/v1/workers/list"),
    ("POST", "/v1/workers/spawn"),
    ("POST", "/v1/workers/ready"),
    ("POST", "/v1/workers/{worker_id}/shutdown"),
    ("POST", "/v1/models/download"),
    ("GET", "/v1/models/download/progress"),
    ("DELETE", "/v1/models/download"),
    ("GET", "/v1/models/list"),
    ("GET", "/v1/models/{model_id}"),
    ("DELETE", "/v1/models/{model}"),
    ("GET", "/v1/model-files/{model_id}"),
    ("GET", "/v1/model-files/{model_id}/{number}"),
    ("GET", "/v1/logs"),
    ("POST", "/v1/admin/shutdown"),
    ("GET", "/metrics"),
]


@pytest.fixture(name="hive")
def _hive(tmp_path: Path) -> Hive:
    return Hive(HiveSettings(), Paths(tmp_path), port=1, on_key=lambda _: None)


@pytest.fixture(name="asgi")
def _asgi(hive: Hive) -> ASGIApp:
    return create_app(hive, KEY, "127.0.0.1:1")


def ask(asgi: ASGIApp, method: str, path: str, *, key: str | None = KEY, body: Any = None) -> httpx.Response:
    async def send() -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        transport = httpx.ASGITransport(asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://hive", headers=headers) as client:
            return await client.request(method, path, json=body)

    return asyncio.run(send())


def error_of(response: httpx.Response) -> str:
    """Check that this is the one error body; give its code."""
    detail = ErrorBody.model_validate(response.json()).error
    assert detail.message
    assert detail.hint
    return str(detail.code)


def test_what_is_promised_is_there(asgi: ASGIApp) -> None:
    """Every route of the product's list is in the hive's schema."""
    paths = ask(asgi, "GET", "/openapi.json").json()["paths"]

    there = {(method.upper(), path) for path, methods in paths.items() for method in methods}

    assert set(PROMISED) - there == set()


@pytest.mark.B44
@pytest.mark.B53
@pytest.mark.parametrize(("method", "path"), PROMISED[1:])
def test_every_route_but_health_needs_the_key(asgi: ASGIApp, method: str, path: str) -> None:
    """Without a key, and with a wrong one, each route is refused before anything else is looked at."""
    none, wrong = ask(asgi, method, path, key=None), ask(asgi, method, path, key="wrong")

    assert (none.status_code, error_of(none)) == (401, "MISSING_API_KEY")
    assert (wrong.status_code, error_of(wrong)) == (401, "INVALID_API_KEY")


@pytest.mark.B53
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/nothing", None, 404, "ROUTE_NOT_FOUND"),
        ("PUT", "/v1/workers/list", None, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/workers/spawn", {}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/workers/spawn", {"model": "x", "modle": 1}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/workers/spawn", {"model": "x" * 3000}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/models/download", {"model": "nonsense"}, 400, "INVALID_MODEL_REF"),
        ("GET", "/v1/models/download/progress?model=hf:a/b", None, 404, "MODEL_NOT_FOUND"),
        ("DELETE", "/v1/models/download?model=hf:a/b", None, 404, "MODEL_NOT_FOUND"),
        ("DELETE", "/v1/models/download", None, 400, "INVALID_REQUEST"),
        ("GET", "/v1/models/download/progress", None, 400, "INVALID_REQUEST"),
        ("GET", "/v1/models/none", None, 404, "MODEL_NOT_FOUND"),
        ("POST", "/v1/workers/none/shutdown", None, 404, "WORKER_NOT_FOUND"),
        ("GET", "/v1/logs?lines=-1", None, 400, "INVALID_REQUEST"),
        ("GET", "/v1/logs?lins=5", None, 400, "INVALID_REQUEST"),
        ("POST", "/v1/workers/spawn", None, 400, "INVALID_REQUEST"),
    ],
)
def test_every_failure_has_the_one_body(
    asgi: ASGIApp, method: str, path: str, body: Any, status: int, code: str
) -> None:
    """Unknown routes, wrong methods, wrong bodies and unknown things are all told in the same shape."""
    response = ask(asgi, method, path, body=body)

    assert response.status_code == status
    assert error_of(response) == code


@pytest.mark.B09
def test_no_workers_is_an_empty_list(asgi: ASGIApp) -> None:
    """A hive without workers says so with an empty list."""
    assert ask(asgi, "GET", "/v1/workers/list").json() == {"workers": [], "quarantined": []}
