"""What the key of a client allows, and what it reveals: real daemons, a fake engine, clients that try everything."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.machine import Machine
from tests.support.queens import QueenProcess, ended_well, machine_with_fake, named, parsed
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process

CHAT = "/v1/chat/completions"
HELLO: Any = [{"role": "user", "content": "Bees?"}]


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        machine.tables["models"]["bee"] = f"file://{machine.root / 'model.gguf'}"
        yield machine


@pytest.fixture(name="bait")
def _bait() -> Iterator[tuple[str, list[str]]]:
    """Serve files over HTTP; give the address and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server calls
            """Stay silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def ask(client: httpx.Client, model: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    """Ask for a chat of five tokens."""
    body = {"model": model, "messages": HELLO, "max_tokens": 5, **fields}
    return client.post(CHAT, json=body, headers=headers)


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Give status and code of a refusal."""
    return response.status_code, response.json()["error"]["code"]


def audited(machine: Machine) -> list[dict[str, Any]]:
    """Read the audit file."""
    text = (machine.home / "logs" / "audit.log").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("dialect", ["openai", "task"])
def test_a_client_names_no_reference(machine: Machine, bait: tuple[str, list[str]], dialect: str) -> None:
    """What is not declared is refused with the right that it lacks, and nothing is fetched or read."""
    queen = QueenProcess(machine)
    eve = queen.client("eve")
    url, asked = bait
    secret = machine.root / "secret.gguf"
    secret.write_bytes(b"GGUF secret")

    for reference in (
        f"https{url[4:]}/m.gguf?i=1",
        f"file://{secret}",
        "file:///etc/shadow",
        "hf:eve/worm",
        "package:x/y",
    ):
        if dialect == "openai":
            response = ask(eve, reference)
        else:
            response = eve.post("/v2/tasks", json={"model": reference, "prompt": "hello"})
        assert refusal(response) == (403, "FORBIDDEN"), response.text
        assert "'operate'" in response.json()["error"]["message"]

    assert asked == []
    assert queen.workers() == []
    assert queen.get("/v2/models/list", node="localhost")["models"] == []


def test_a_key_that_is_valid_is_never_called_wrong(machine: Machine) -> None:
    """What is not there is 404 for a client as for anybody, what its key may not do is 403; its health needs no key."""
    queen = QueenProcess(machine)
    client = queen.client("guest")

    for path in ("/nothing", "/v1/nothing", "/v2/nothing"):
        assert refusal(client.get(path)) == (404, "ROUTE_NOT_FOUND"), path
    for path in ("/v2/status", "/v2/workers/list", "/metrics"):
        assert refusal(client.get(path)) == (403, "FORBIDDEN"), path
    assert client.get("/openapi.json").status_code == 200
    for path in ("/health", "/v1/health"):
        assert httpx.get(queen.url + path, trust_env=False).json()["status"] == "alive"


def test_a_client_chooses_no_machine(machine: Machine) -> None:
    """Node, backend and device are the operator's to name, in headers and in fields, and so is a higher priority."""
    queen = QueenProcess(machine)
    eve = queen.client("eve")
    for header, value in (("Node", "localhost"), ("Backend", "cpu"), ("Device", "0"), ("Priority", "1")):
        response = ask(eve, "bee", {f"X-Rbee-{header}": value})
        assert refusal(response) == (403, "FORBIDDEN"), header
    for field, given in (("node", "localhost"), ("backend", "cpu"), ("device", 0), ("priority", 10)):
        response = eve.post("/v2/tasks", json={"model": "bee", "prompt": "hello", field: given})
        assert refusal(response) == (403, "FORBIDDEN"), field

    assert ask(eve, "bee", {"X-Rbee-Priority": "-3"}).status_code == 200
    mallory = queen.client("mallory", max_priority=4)
    assert ask(mallory, "bee", {"X-Rbee-Priority": "4"}).status_code == 200
    assert refusal(ask(mallory, "bee", {"X-Rbee-Priority": "5"})) == (403, "FORBIDDEN")


def test_a_client_uses_what_is_declared_and_of_that_what_its_list_allows(machine: Machine) -> None:
    """An alias is fetched; a catalogued model answers by its exact reference, in one copy; others are refused."""
    queen = QueenProcess(machine)
    alice, bob = queen.client("alice"), queen.client("bob", models=["bee"])
    other = machine.root / "other.gguf"
    other.write_bytes((machine.root / "model.gguf").read_bytes())

    assert ask(alice, "bee").status_code == 200
    assert ask(alice, queen.model).status_code == 200
    assert queen.worker()["model_ref"] == queen.model
    assert refusal(ask(alice, queen.model.replace("file://", "file:////"))) == (403, "FORBIDDEN")
    assert ended_well(
        list(parsed(iter(alice.post("/v2/tasks", json={"model": "bee", "prompt": "hello"}).text.split("\n"))))
    )
    assert ask(queen.http, f"file://{other}").status_code == 200

    assert ask(alice, "other").status_code == 200
    assert ask(bob, "bee").status_code == 200
    assert ask(bob, queen.model).status_code == 200  # what its alias stands for, as the keeper sends it
    for name in ("other", f"file://{other}", "nothing-of-that-name"):
        assert refusal(ask(bob, name)) == (403, "FORBIDDEN"), name
    assert refusal(ask(alice, "nothing-of-that-name")) == (404, "MODEL_NOT_FOUND")
    listed = [card["id"] for card in alice.get("/v1/models").json()["data"]]
    assert {"bee", "other"} <= set(listed)
    assert not [name for name in listed if str(machine.root) in name]
    assert [card["id"] for card in bob.get("/v1/models").json()["data"]] == ["bee"]


def test_a_catalogued_model_whose_file_is_gone_is_not_fetched_for_a_client(machine: Machine) -> None:
    """What a client names by its reference is used where it is, and brought nowhere."""
    queen = QueenProcess(machine)
    alice = queen.client("alice")
    gone = machine.root / "gone.gguf"
    gone.write_bytes((machine.root / "model.gguf").read_bytes())
    assert ask(queen.http, f"file://{gone}").status_code == 200
    queen.post("/v2/workers/shutdown", {"worker_id": queen.worker()["worker_id"]})
    queen.http.request("DELETE", "/v2/models", params={"node": "localhost", "model": f"file://{gone}"})
    eventually(lambda: not queen.get("/v2/models/list", node="localhost")["models"], within=5, because="it is removed")

    assert refusal(ask(alice, f"file://{gone}")) == (403, "FORBIDDEN")


def test_an_error_tells_a_client_nothing_about_files(machine: Machine) -> None:
    """Causes look the same, but for a file that is no model: no path, address or port, which the queen's log has."""
    broken = machine.root / "broken.gguf"
    broken.write_bytes(b"junk is no model at all")
    declared = {
        "broken": f"file://{broken}",
        "shadow": "file:///etc/shadow",
        "missing": f"file://{machine.root}/missing.gguf",
        "unreachable": "https://127.0.0.1:1/m.gguf",
    }
    machine.tables["models"] |= declared
    queen = QueenProcess(machine)
    alice = queen.client("alice")
    hidden = (str(machine.root), "shadow", "127.0.0.1", "localhost", "junk")
    seen = []

    for name, reference in declared.items():
        response = ask(alice, name)
        error = response.json()["error"]
        request_id = error.pop("request_id")
        seen.append((response.status_code, error["code"], error["message"]))
        assert not [word for word in hidden if word in response.text]
        lines = [line for line in queen.running.stderr.read_text().splitlines() if request_id in line]
        assert any("task failed" in line and '"reason"' in line for line in lines), lines
        stream = alice.post("/v2/tasks", json={"model": name, "prompt": "hello"}).text
        (event,) = named(list(parsed(iter(stream.split("\n")))), "error")
        assert event["error"]["code"] == error["code"]
        assert not [word for word in hidden if word in stream]
        assert reference

    assert seen == [
        *[(400, "MODEL_INVALID", "The model cannot be used: it is not a GGUF file.")] * 2,
        *[(502, "DOWNLOAD_FAILED", "The model cannot be fetched.")] * 2,
    ]


def test_an_operators_key_may_what_the_queens_own_may(machine: Machine) -> None:
    """A key that may operate names nodes and references, and manages keys; without infer it runs nothing."""
    queen = QueenProcess(machine)
    both = queen.client("both", rights=["infer", "operate"])
    only = queen.client("only", rights=["operate"])

    assert ask(both, queen.model, {"X-Rbee-Node": "localhost"}).status_code == 200
    assert only.get("/v2/workers/list").status_code == 200
    assert only.post("/v2/keys/set", json={"name": "both", "rights": ["infer"]}).status_code == 200
    assert refusal(ask(only, "bee")) == (403, "FORBIDDEN")
    assert "'infer'" in ask(only, "bee").json()["error"]["message"]
    assert refusal(both.get("/v2/workers/list")) == (403, "FORBIDDEN")


def test_tokens_of_a_day_are_counted_in_every_dialect_and_over_restarts(machine: Machine) -> None:
    """Prompts and answers count, whole and streamed; what is used up is 429 until midnight, also for the next queen."""
    queen = QueenProcess(machine)
    alice = queen.client("alice", tokens_per_day=10_000)

    def used() -> int:
        (key,) = queen.get("/v2/keys/list")["keys"]
        return int(key["tokens_today"])

    before = 0
    chat = {"model": "bee", "messages": HELLO, "max_tokens": 5}
    requests: list[tuple[str, dict[str, Any]]] = [
        (CHAT, chat),
        ("/v1/completions", {"model": "bee", "prompt": "Bees fly", "max_tokens": 5}),
        ("/v1/responses", {"model": "bee", "input": "Bees?", "max_output_tokens": 16}),
        ("/v1/messages", chat),
    ]
    for path, body in requests:
        counts = []
        for stream in (False, True):
            response = alice.post(path, json={**body, "stream": stream})
            assert response.status_code == 200, response.text
            assert ": usage" not in response.text
            # A client has its answer a moment before it is counted.
            eventually(lambda at=before: used() > at, within=5, because="it is counted")  # type: ignore[misc]
            counts.append(used() - before)
            before += counts[-1]
        assert counts[0] == counts[1], (path, counts)
        assert counts[0] > 5, path
    task = alice.post("/v2/tasks", json={"model": "bee", "prompt": "hello", "max_tokens": 5})
    assert ended_well(list(parsed(iter(task.text.split("\n")))))
    eventually(lambda: used() >= before + 6, within=5, because="it is counted")

    queen.post("/v2/keys/set", {"name": "alice", "tokens_per_day": used()})
    queen.running.process.terminate()
    queen.running.process.wait(30)
    again = QueenProcess(machine)
    full = httpx.post(f"{again.url}{CHAT}", json=chat, headers=alice.headers, timeout=60, trust_env=False)

    assert refusal(full) == (429, "TOO_MANY_REQUESTS")
    assert 0 < int(full.headers["retry-after"]) <= 86_400


def test_a_stream_that_is_cut_off_is_counted_too(machine: Machine) -> None:
    """A client that leaves before the end pays for the prompt and for what it has read."""
    machine.fake(tokens_per_s=50)
    queen = QueenProcess(machine)
    alice = queen.client("alice")
    body = {"model": "bee", "messages": HELLO, "max_tokens": 400, "stream": True}

    with alice.stream("POST", CHAT, json=body) as response:
        for count, _ in enumerate(response.iter_lines()):
            if count > 20:
                break

    used = eventually(lambda: queen.get("/v2/keys/list")["keys"][0]["tokens_today"], within=10, because="counted")
    assert 5 < used < 100


def test_an_answer_that_nobody_waits_for_is_counted_too(machine: Machine) -> None:
    """A client that hangs up before a whole answer pays for the prompt and for what was generated."""
    machine.fake(tokens_per_s=50)
    queen = QueenProcess(machine)
    alice = queen.client("alice")
    body = {"model": "bee", "messages": HELLO, "max_tokens": 400}

    alice.post(CHAT, json={**body, "max_tokens": 5}, timeout=60)  # loads the model
    with pytest.raises(httpx.ReadTimeout):
        alice.post(CHAT, json=body, timeout=slowness())

    used = eventually(lambda: queen.get("/v2/keys/list")["keys"][0]["tokens_today"] > 20, within=10, because="counted")
    assert used


@pytest.mark.parametrize("stream", ["true", "yes", 1, 1.0, [True]])
def test_whether_an_answer_is_a_stream_is_said_in_one_way(machine: Machine, stream: object) -> None:
    """What a worker might take for true and the queen for false would be answered without being counted."""
    queen = QueenProcess(machine)
    alice = queen.client("alice", tokens_per_day=10_000)

    response = alice.post(CHAT, json={"model": "bee", "messages": HELLO, "max_tokens": 5, "stream": stream})

    assert refusal(response) == (400, "INVALID_REQUEST")
    assert response.json()["error"]["param"] == "stream"
    assert queen.workers() == []


def test_direct_requests_are_counted_and_a_limited_key_is_relayed(machine: Machine) -> None:
    """A redirect is in log, metrics and usage with its client; what must be counted passes through the queen."""
    queen = QueenProcess(machine)
    alice, bob = queen.client("alice"), queen.client("bob", tokens_per_day=1000)
    assert ask(alice, "bee").status_code == 200

    sent, relayed = ask(alice, "bee", {"X-Rbee-Direct": "true"}), ask(bob, "bee", {"X-Rbee-Direct": "true"})

    assert (sent.status_code, relayed.status_code) == (307, 200)
    assert 'rbee_queen_tasks_total{client="alice",outcome="direct"} 1.0' in queen.http.get("/metrics").text
    lines = [json.loads(line) for line in queen.running.stderr.read_text().splitlines() if "task direct" in line]
    assert [line["client"] for line in lines] == ["alice"]
    eventually(
        lambda: [key["requests_today"] for key in queen.get("/v2/keys/list")["keys"]] == [2, 1],
        within=5,
        because="all are counted",
    )


def test_log_and_metrics_name_the_client(machine: Machine) -> None:
    """Each line about a task, and each count of tasks and tokens, says whose it is."""
    queen = QueenProcess(machine)
    eve = queen.client("eve")
    assert ask(eve, "bee").status_code == 200
    assert ask(eve, "bee", logit_bias={"x": 1}).status_code == 400

    lines = [json.loads(line) for line in queen.running.stderr.read_text().splitlines() if line.startswith("{")]
    assert {line["message"] for line in lines if line.get("client") == "eve"} >= {"request", "task done", "task failed"}
    text = queen.http.get("/metrics").text
    assert 'rbee_queen_tasks_total{client="eve",outcome="done"} 1.0' in text
    assert 'rbee_queen_usage_tokens_total{client="eve",kind="answer",model="bee"} 5.0' in text


def test_actions_and_refusals_are_audited(machine: Machine) -> None:
    """Who, from where, what, result: every action of an operator, every refusal, in a private file without secrets."""
    queen = QueenProcess(machine)
    eve = queen.client("eve", max_tasks=2)
    assert ask(eve, "bee").status_code == 200
    ask(eve, "https://host.example/m.gguf?X-Amz-Signature=abcdef")
    eve.post("/v2/keys/add", json={"name": "mallory"})
    queen.post(
        "/v2/registry/beehives/add",
        {"node_name": "attic", "ssh_host": "127.0.0.1", "ssh_user": "me", "hive_key": "a-secret-of-the-attic"},
    )
    queen.http.post("/v2/registry/beehives/remove", json={"node_name": "nowhere"})
    queen.http.post("/v2/workers/spawn", json={"node": "localhost", "model": "file:///nothing.gguf"})
    key = str(queen.http.headers["authorization"]).removeprefix("Bearer ")
    with httpx.Client(base_url=queen.url, trust_env=False, timeout=60) as stranger:
        for _ in range(100):
            stranger.post("/v2/keys/add", json={"name": "x"}, headers={"Authorization": "Bearer wrong"})
        stranger.get("/" + "A" * 5000)

    lines = audited(machine)

    file = machine.home / "logs" / "audit.log"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = [(line["who"], line["action"], line["result"], line["status"]) for line in lines]
    assert told[:6] == [
        ("operator", "POST /v2/keys/add", "done", 201),
        ("eve", "POST /v1/chat/completions", "refused", 403),
        ("eve", "POST /v2/keys/add", "refused", 403),
        ("operator", "POST /v2/registry/beehives/add", "done", 200),
        ("operator", "POST /v2/registry/beehives/remove", "failed", 404),
        ("operator", "POST /v2/workers/spawn", "failed", 200),
    ]
    assert lines[0]["what"] == {"name": "eve", "max_tasks": 2}
    assert {line["from"] for line in lines} == {"127.0.0.1"}
    assert {line["who"] for line in lines[6:]} == {None}
    assert 20 <= len(lines[6:]) <= 41
    assert max(len(line["action"]) for line in lines) <= 256
    text = file.read_text()
    assert not [secret for secret in (key, "a-secret-of-the-attic", "abcdef", "wrong") if secret in text]


def test_an_expired_key_opens_nothing_and_says_so(machine: Machine) -> None:
    """It is 401 with the reason, and lists still show the key."""
    queen = QueenProcess(machine)
    alice = queen.client("alice")
    queen.post("/v2/keys/set", {"name": "alice", "expires_unix": 1})

    assert refusal(alice.get("/v1/models")) == (401, "INVALID_API_KEY")
    assert "has expired" in alice.get("/v1/models").json()["error"]["message"]
    assert audited(machine)[-1]["who"] == "alice"
