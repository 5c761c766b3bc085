"""Whatever the network sends: the daemons' own schemas say what may come, and a machine makes things up from them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok

from tests.support.hives import KEY as HIVE_KEY
from tests.support.hives import HiveProcess
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.waiting import slowness
from tests.support.worker import KEY as WORKER_KEY
from tests.support.worker import worker

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]
EXAMPLES = 15
# An answer ends by itself: with a limit of thousands of tokens, or none, it would go on for seconds.
BRIEF = {"length": 20}
# They would end the daemon that is being asked.
ENDS = ("/v1/admin/shutdown",)
# A fields may well name what these machines have not.
LACKING = ("BACKEND_UNAVAILABLE", "GPU_NOT_AVAILABLE", "RAM_EXHAUSTED")
HEALTH = ("/health", "/v1/health")
# The page shows nothing without a session, and a stranger may try to begin one.
PAGE = ("/", "/v2/console/sign-in", "/v2/console/session")
OPEN = (*HEALTH, *PAGE)


@dataclass(frozen=True)
class Daemon:
    url: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def document(self) -> dict[str, Any]:
        """Give its OpenAPI document."""
        answer = httpx.get(f"{self.url}/openapi.json", headers=self.headers, trust_env=False, timeout=60)
        document: dict[str, Any] = answer.json()
        return document

    def routes(self) -> list[tuple[str, str]]:
        """List its routes, with something in the place of parameters."""
        paths = self.document()["paths"]
        return [(method.upper(), path.replace("{", "").replace("}", "")) for path in paths for method in paths[path]]


@pytest.fixture(name="daemon", params=["queen", "hive", "worker"])
def _daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    match request.param:
        case "queen":
            with machine_with_fake(tmp_path) as machine:
                machine.fake(**BRIEF)
                queen = QueenProcess(machine)
                yield Daemon(queen.url, queen.http.headers["Authorization"].removeprefix("Bearer "))
        case "hive":
            hive = HiveProcess(tmp_path)
            try:
                yield Daemon(hive.url, HIVE_KEY)
                assert "BUG" not in hive.log.read_text()
                assert "py.warnings" not in hive.log.read_text()
            finally:
                hive.close()
        case _:
            with worker(tmp_path, fake=BRIEF) as running:
                running.until_idle()
                yield Daemon(str(running.http.base_url).rstrip("/"), WORKER_KEY)


def test_no_input_is_an_error_of_ours(daemon: Daemon) -> None:
    """Whatever comes on whichever route is answered or refused in words; 5xx is only what a machine has not."""
    schema = schemathesis.openapi.from_dict(daemon.document())
    asked = []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found.err()
        operation = found.ok()
        if operation.path in ENDS:
            continue
        asked.append(operation.label)

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case[Any]) -> None:
            fields = case.as_transport_kwargs(base_url=daemon.url, headers=daemon.headers)
            # What streams without an end is left once it has begun.
            with requests.request(**fields, stream=True, timeout=30 * slowness()) as answer:
                if answer.status_code >= 500:
                    said = answer.json()["error"]
                    assert said["code"] in LACKING, f"{case.as_curl_command()}: {answer.status_code} {said}"

        ask()
    assert len(asked) >= 8
    assert [httpx.get(daemon.url + path, trust_env=False).status_code for path in HEALTH].count(200) >= 1


def test_no_route_opens_without_a_key(daemon: Daemon) -> None:
    """Every route but health is refused without a key and with a wrong one, before anything else is looked at."""
    routes = [*daemon.routes(), ("GET", "/openapi.json"), ("GET", "/metrics"), ("GET", "/v1/control"), ("GET", "/none")]
    assert len(routes) >= 10

    opened = []
    for method, path in routes:
        for headers, code in (({}, "MISSING_API_KEY"), ({"Authorization": "Bearer wrong"}, "INVALID_API_KEY")):
            answer = httpx.request(method, daemon.url + path, headers=headers, trust_env=False)
            body = answer.json() if answer.status_code == 401 else {}
            error = body if path.startswith("/api/") else body.get("error", {})  # Ollama's has a text there
            refused = error.get("code") == code
            if not refused and path not in OPEN:
                opened.append((method, path, headers, answer.status_code))
    assert opened == []


@pytest.mark.parametrize(
    ("head", "statuses"),
    [
        (f"GET {{path}} HTTP/1.1\r\nX-Much: {'x' * 1_000_000}", (400, 431)),
        (f"GET {{path}}?q={'x' * 1_000_000} HTTP/1.1", (400, 414, 431)),
        ("GET {path} HTTP/1.1\r\nContent-Length: 99999999999", (413,)),
        (f"GET {{path}} HTTP/1.1\r\nX-Request-Id: {'x' * 5000}", (200,)),
        ("no HTTP at all", (400,)),
    ],
    ids=["header", "address", "body", "request id", "nonsense"],
)
def test_sizes_are_bounded(daemon: Daemon, head: str, statuses: tuple[int, ...]) -> None:
    """What is larger than its bound, or no HTTP, is refused or not taken over, and the daemon goes on."""
    path = min(path for _, path in daemon.routes() if path in HEALTH)
    where = urlsplit(daemon.url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        # It may answer and hang up while we are still writing.
        with contextlib.suppress(ConnectionError):
            fields = head.format(path=path) + f"\r\nHost: here\r\nAuthorization: Bearer {daemon.key}\r\n\r\n"
            connection.sendall(fields.encode())
        said = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n\r\n" not in said and (piece := connection.recv(65536)):
                said += piece

    if said:
        assert int(said.split()[1]) in statuses, said
        assert b"x" * 200 not in said
    else:
        assert 200 not in statuses
    assert httpx.get(daemon.url + path, trust_env=False).status_code == 200
