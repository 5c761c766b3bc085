"""Direct mode: a client that asks for it and can reach the worker is sent there with a ticket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.waiting import eventually

pytestmark = pytest.mark.process

CHAT = "/v1/chat/completions"
HELLO: Any = [{"role": "user", "content": "Bees?"}]
BODY: dict[str, Any] = {"model": "bee", "messages": HELLO, "max_tokens": 5}
DIRECT = {"X-Rbee-Direct": "true"}


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        machine.tables["models"]["bee"] = f"file://{machine.root / 'model.gguf'}"
        yield machine


def test_a_client_is_sent_to_the_worker_with_a_ticket_for_one_request(machine: Machine) -> None:
    """The redirect names the worker and a ticket, which answers under the alias too, once, and opens nothing else."""
    queen = QueenProcess(machine)
    assert queen.http.post(CHAT, json=BODY).status_code == 200

    sent = queen.http.post(CHAT, json=BODY, headers=DIRECT)

    assert sent.status_code == 307
    assert not sent.content
    location = httpx.URL(sent.headers["location"])
    worker = queen.worker()
    assert str(location).startswith(f"{worker['url']}{CHAT}?ticket=")
    with httpx.Client(trust_env=False, timeout=30) as client:
        elsewhere = client.post(location.copy_with(path="/v1/admin/shutdown"))
        first = client.post(location, json=BODY)
        second = client.post(location, json=BODY)
    assert (elsewhere.status_code, first.status_code, second.status_code) == (401, 200, 401)
    assert first.json()["usage"]["completion_tokens"] == 5
    assert "used already" in second.json()["error"]["message"]
    assert str(location.params["ticket"]) not in "".join(machine.logs().values())


def test_openais_client_follows_without_showing_the_worker_its_key(machine: Machine) -> None:
    """The official client needs nothing but the header, and its stream does not pass through the queen."""
    queen = QueenProcess(machine)
    assert queen.http.post(CHAT, json=BODY).status_code == 200
    key = queen.http.headers["authorization"].removeprefix("Bearer ")

    with openai.OpenAI(base_url=f"{queen.url}/v1", api_key=key, default_headers=DIRECT, max_retries=0) as client:
        chunks = list(client.chat.completions.create(model="bee", messages=HELLO, max_tokens=5, stream=True))

    assert chunks[-1].choices[0].finish_reason == "length"
    assert 'rbee_queen_tasks_total{client="operator",outcome="done"} 1.0' in queen.http.get("/metrics").text


def test_what_needs_the_queen_is_relayed(machine: Machine) -> None:
    """A model that is not loaded, and a worker whose slots are all taken, are the queen's to wait for."""
    machine.configure("hive", slots=1)
    machine.fake(tokens_per_s=20)
    queen = QueenProcess(machine)

    cold = queen.http.post(CHAT, json=BODY, headers=DIRECT)
    with queen.http.stream("POST", CHAT, json={**BODY, "max_tokens": 40, "stream": True}) as busy:
        eventually(lambda: queen.worker()["slots_available"] == 0, within=5, because="its slot is taken")
        waited = httpx.post(
            f"{queen.url}{CHAT}", json=BODY, headers={**queen.http.headers, **DIRECT}, timeout=60, trust_env=False
        )
        busy.read()

    assert (cold.status_code, busy.status_code, waited.status_code) == (200, 200, 200)
