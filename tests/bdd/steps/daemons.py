"""Daemons spoken to over HTTP, as a script or another daemon would."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pytest_bdd import given, parsers, then, when

from rbee import __version__
from tests.support.commands import Running
from tests.support.machine import Machine
from tests.support.waiting import eventually

HIVE_KEY = "key-of-the-hive-under-test"


class HiveUnderTest:
    """A hive that a test runs itself, without a queen."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.url = f"http://127.0.0.1:{machine.hive_port}"
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {HIVE_KEY}"}, trust_env=False, timeout=30
        )
        self.running: Running | None = None
        self.spawned: list[dict[str, Any]] = []

    def start(self) -> None:
        self.machine.env["RBEE_HIVE_API_KEY"] = HIVE_KEY
        logs = self.machine.home / "logs"
        logs.mkdir(exist_ok=True)
        self.running = self.machine.start("rbee-hive", "--port", str(self.machine.hive_port))
        running = self.running

        def healthy() -> bool:
            assert running.process.poll() is None, running.stderr.read_text()
            try:
                return self.http.get("/v1/health").status_code == 200
            except httpx.TransportError:  # not up yet, or a connection to its earlier life
                return False

        eventually(healthy, within=15, because="the hive answers")

    def spawn(self, model: str) -> dict[str, Any]:
        response = self.http.post("/v1/workers/spawn", json={"model": model})
        assert response.status_code == 200, response.text
        link: dict[str, Any] = response.json()
        self.spawned.append(link)
        return link

    def workers(self) -> list[dict[str, Any]]:
        workers: list[dict[str, Any]] = self.http.get("/v1/workers/list").raise_for_status().json()["workers"]
        return workers


@pytest.fixture
def hive(machine: Machine) -> Iterator[HiveUnderTest]:
    hive = HiveUnderTest(machine)
    with hive.http:
        yield hive


@given("a running hive")
@when("the hive is started again")
def running_hive(hive: HiveUnderTest) -> None:
    hive.start()


@given("three workers of the hive")
def three_workers(hive: HiveUnderTest, model: str) -> None:
    for _ in range(3):
        hive.spawn(model)
    eventually(
        lambda: [worker["state"] for worker in hive.workers()] == ["idle"] * 3, within=20, because="three are idle"
    )


@given("the model is in its catalog")
@then("the model is in its catalog")
def in_catalog(hive: HiveUnderTest, model: str) -> None:
    models = hive.http.get("/v1/models/list").json()["models"]
    assert [entry["reference"] for entry in models] == [model]
    assert not models[0].get("problem")


@when("the rbee-hive is terminated")
def hive_sigterm(hive: HiveUnderTest) -> None:
    assert hive.running is not None
    hive.running.signal(signal.SIGTERM)


@pytest.fixture
def running(hive: HiveUnderTest) -> Running:
    assert hive.running is not None
    return hive.running


@then("the hive has no workers")
def no_hive_workers(hive: HiveUnderTest) -> None:
    assert hive.workers() == []


@when("somebody without a key asks for the health of the hive", target_fixture="answer")
def health_without_key(hive: HiveUnderTest) -> httpx.Response:
    return httpx.get(f"{hive.url}/v1/health", trust_env=False)


@then(parsers.parse('the hive is alive, of this version, with API version "{api_version}"'))
def alive(answer: httpx.Response, api_version: str) -> None:
    assert answer.json() == {"status": "alive", "version": __version__, "api_version": api_version}


@when("a worker of the hive is spawned", target_fixture="link")
def spawned(hive: HiveUnderTest, model: str) -> dict[str, Any]:
    return hive.spawn(model)


@then("the hive answers at once with a worker that is loading, on its own port")
def answered_loading(machine: Machine, link: dict[str, Any]) -> None:
    assert link["worker"]["state"] == "loading"
    assert int(link["worker"]["url"].rsplit(":", 1)[1]) >= machine.worker_port


def ask_ready(link: dict[str, Any]) -> dict[str, Any]:
    try:
        response = httpx.get(
            f"{link['worker']['url']}/v1/ready",
            headers={"Authorization": f"Bearer {link['api_key']}"},
            trust_env=False,
        )
    except httpx.TransportError:
        return {}
    status: dict[str, Any] = response.json()
    return status


@then("the worker says that it is loading and where its progress can be read")
def worker_loading(link: dict[str, Any]) -> None:
    status = eventually(lambda: ask_ready(link), within=10, because="the worker's port is bound")
    assert status["ready"] is False
    assert status["state"] == "loading"
    assert "/v1/loading/progress" in status["progress_url"]


@then("the hive lists the worker as loading")
def listed_loading(hive: HiveUnderTest) -> None:
    eventually(lambda: hive.workers()[0]["state"] == "loading", within=5, because="the callback updated the list")


@then(parsers.parse("the worker says within {seconds:d} seconds that it is ready and its model is loaded"))
def worker_ready(link: dict[str, Any], seconds: int) -> None:
    status = eventually(
        lambda: (found := ask_ready(link)).get("ready", False) and found, within=seconds, because="the model is loaded"
    )
    assert isinstance(status, dict)
    assert status["state"] == "idle"
    assert status["model_loaded"] is True


@then(parsers.parse("the hive lists the worker as idle within {seconds:d} seconds"))
def listed_idle(hive: HiveUnderTest, seconds: int) -> None:
    eventually(lambda: hive.workers()[0]["state"] == "idle", within=seconds, because="the hive knows it is idle")


@when(
    parsers.re(r"(?P<daemon>the queen|the hive) is asked for (?P<request_name>.+)"),
    target_fixture="answer",
)
def asked(machine: Machine, daemon: str, request_name: str) -> httpx.Response:
    key, port = HIVE_KEY, machine.hive_port
    if daemon == "the queen":
        key, port = queen_key(machine), machine.queen_port
    requests: dict[str, tuple[str, str, Any]] = {
        "an unknown path": ("GET", "/v1/nowhere", None),
        "a wrong method": ("PUT", "/health" if daemon == "the queen" else "/v1/health", None),
        "a task with no model": ("POST", "/v2/tasks", {"prompt": "hello"}),
        "an unknown worker": ("POST", "/v2/workers/shutdown", {"worker_id": "worker-none"}),
        "an invalid model name": ("POST", "/v1/models/download", {"model": "nonsense"}),
        "a list without a key": ("GET", "/v1/workers/list", None),
    }
    method, path, body = requests[request_name]
    headers = {} if request_name.endswith("without a key") else {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=30) as client:
        eventually(lambda: _listens(port), within=20, because=f"{daemon} has bound its port")
        return client.request(method, path, json=body)


@then(parsers.parse('the answer has status {status:d}, code "{code}", a message, details and a hint'))
def answers(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert error["hint"]
    assert isinstance(error["details"], dict)
    assert error["request_id"] == answer.headers["x-request-id"]


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def queen_key(machine: Machine) -> str:
    return (machine.home / "secrets" / "api-key").read_text().strip()
