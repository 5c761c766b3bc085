"""The life of a worker: start, load, callback, drain, failures, end."""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.waiting import eventually, slowness
from tests.support.worker import KEY, events, text_of, worker

pytestmark = pytest.mark.process


@pytest.fixture
def hive() -> Iterator[tuple[str, list[tuple[str, str | None, dict[str, Any]]]]]:
    """Listen for ready reports as a hive does."""
    seen: list[tuple[str, str | None, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers["Authorization"], body))
            answer = b'{"message": "noted", "worker_id": "w"}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/workers/ready", seen
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.B27
@pytest.mark.B28
@pytest.mark.B30
def test_the_hive_is_told_before_the_model_is_loaded(
    tmp_path: Path, hive: tuple[str, list[tuple[str, str | None, dict[str, Any]]]]
) -> None:
    """A worker reports that its port is bound while it still loads, and says that it is not ready."""
    url, seen = hive
    with worker(
        tmp_path,
        "--worker-id",
        "w1",
        "--model-ref",
        "package:x/y",
        "--callback-url",
        url,
        fake={"load_s": 3 * slowness()},
    ) as it:
        ready = it.json("/v1/ready")
        eventually(lambda: seen, within=5, because="the callback comes")
        still = it.json("/v1/ready")

        assert ready["ready"] is False
        assert ready["state"] == "loading"
        assert ready["progress_url"].endswith("/v1/loading/progress")
        assert still["ready"] is False
        path, authorization, report = seen[0]
        assert path == "/v1/workers/ready"
        assert authorization == f"Bearer {KEY}"
        assert report == {
            "worker_id": "w1",
            "url": str(it.http.base_url).rstrip("/"),
            "model_ref": "package:x/y",
            "backend": "cpu",
            "device": 0,
        }


@pytest.mark.B31
@pytest.mark.B32
def test_the_loading_can_be_followed(tmp_path: Path) -> None:
    """The loading stream counts layers up to all of them, then says ready; the worker is idle then."""
    with worker(tmp_path, fake={"load_s": 2 * slowness()}) as it:
        with it.http.stream("GET", "/v1/loading/progress") as response:
            seen = list(events(response))

        layers = [event["layers_loaded"] for event in seen]
        assert layers == sorted(layers)
        assert len(seen) > 5
        assert {event["stage"] for event in seen[:-1]} == {"loading_to_ram"}
        assert seen[-1]["stage"] == "ready"
        assert layers[-1] == seen[-1]["layers_total"] == 32
        assert it.json("/v1/ready") == {"ready": True, "state": "idle", "model_loaded": True}


def test_a_request_while_loading_is_refused(tmp_path: Path) -> None:
    """Inference before the model is there is WORKER_LOADING with Retry-After and the progress."""
    with worker(tmp_path, fake={"load_s": 30}) as it:
        response = it.http.post("/v1/inference", json={"prompt": "Bees?"})

        assert response.status_code == 503
        assert response.json()["error"]["code"] == "WORKER_LOADING"
        assert response.headers["Retry-After"]
        assert "layers_total" in response.json()["error"]["details"]


@pytest.mark.parametrize(
    ("fails", "code"),
    [
        ("ram", "RAM_EXHAUSTED"),
        ("vram", "GPU_VRAM_EXHAUSTED"),
        ("model", "MODEL_INVALID"),
        ("device", "CUDA_DEVICE_FAILED"),
    ],
)
def test_a_failed_load_is_told_and_ends_the_worker(tmp_path: Path, fails: str, code: str) -> None:
    """A model that cannot be loaded is an error line on the lifeline, then exit code 1."""
    with worker(tmp_path, fake={"load_fails": fails}) as it:
        told = it.hear_until("error")

        assert told["error"]["code"] == code
        assert it.process.wait(10) == 1


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (b"{# fine #}\n{% for message in messages }}\n{% endfor %}", "Expected %}"),
        (b"hello\n{{ messages | no_such_filter }}", "line 2, column 13"),
        (b"hello\nb\xffe", "line 2: byte 0xff is no UTF-8"),
        (b" \n", "it is empty"),
        (b"x" * 1_000_001, "more than 1000000 bytes"),
        (b"x" * 200_001, "200001 characters"),
    ],
    ids=["syntax", "filter", "bytes", "empty", "huge", "long"],
)
def test_a_chat_template_that_cannot_be_used_ends_the_worker(tmp_path: Path, template: bytes, reason: str) -> None:
    """A template that was given as a file is parsed before the worker is ready; errors name file and reason.

    The model's own may be wrong: raw prompts work.
    """
    file = tmp_path / "chat.jinja"
    file.write_bytes(template)

    with worker(tmp_path, "--chat-template-file", str(file)) as refused:
        error = refused.hear_until("error")["error"]
        assert refused.process.wait(10 * slowness()) == 1

    assert (error["code"], error["param"]) == ("MODEL_INVALID", "chat_template_file")
    assert f"The chat template {file} cannot be used: " in error["message"]
    assert reason in error["message"]
    assert "--chat-template" in error["hint"]
    assert not any(line.get("state") == "idle" for line in refused.told)
    with worker(tmp_path, fake={"template": "{% for"}) as running:
        running.until_idle()


def test_a_chat_template_of_a_file_is_used(tmp_path: Path) -> None:
    """A template that parses takes the place of the model's own, which need not."""
    file = tmp_path / "chat.jinja"
    file.write_text("one two {{ messages[0].content }}", encoding="utf-8-sig")
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}

    with worker(tmp_path, "--chat-template-file", str(file), fake={"template": "{% for"}) as running:
        running.until_idle()
        answer = running.http.post("/v1/chat/completions", json=chat)

    assert (answer.status_code, answer.json()["usage"]["prompt_tokens"]) == (200, 3), answer.text


def test_a_load_that_fails_ends_the_loading_stream_in_words(tmp_path: Path) -> None:
    """Who follows the loading gets the error, too."""
    with (
        worker(tmp_path, fake={"load_fails": "ram", "load_s": 3 * slowness()}) as it,
        it.http.stream("GET", "/v1/loading/progress") as response,
    ):
        last = list(events(response))[-1]

        assert last["error"]["code"] == "RAM_EXHAUSTED"


def test_changes_of_state_reach_the_owner(tmp_path: Path) -> None:
    """The owner hears of loading, idle, each slot taken and freed, draining and stopping."""
    with worker(tmp_path, "--slots", "1") as it:
        it.hear_until("state", "idle")
        it.infer(max_tokens=3)
        it.hear_until("state", "busy")
        it.hear_until("state", "idle")
        it.process.send_signal(signal.SIGTERM)
        it.hear_until("state", "stopping")

        told = [(line["state"], line["slots_available"]) for line in it.told if "state" in line]
        states = [state for state, _ in itertools.groupby(told)]  # what else is reported may have changed
        assert states[0] == ("loading", 0)
        assert states[1:] == [("idle", 1), ("busy", 0), ("idle", 1), ("draining", 1), ("stopping", 1)]


@pytest.mark.B61
def test_a_drain_finishes_what_runs_and_refuses_the_rest(tmp_path: Path) -> None:
    """After SIGTERM the running request gets all its tokens, a new one is DRAINING, and the exit code is 0."""
    with worker(tmp_path, fake={"tokens_per_s": 20}) as it:
        it.until_idle()
        count = int(40 * slowness())  # so that it still runs when all else has been asked
        with it.http.stream("POST", "/v1/inference", json={"prompt": "Bees?", "max_tokens": count}) as response:
            stream = events(response)
            first = next(stream)
            it.process.send_signal(signal.SIGTERM)
            eventually(
                lambda: it.json("/v1/health")["state"] == "draining", within=2, because="the drain begins at the signal"
            )
            refused = it.http.post("/v1/inference", json={"prompt": "Bees?"})
            seen = [first, *stream]

        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "DRAINING"
        assert seen[-1]["total_tokens"] == count
        assert seen[-1]["finish_reason"] == "length"
        assert it.process.wait(10) == 0


def test_a_drain_has_an_end(tmp_path: Path) -> None:
    """A request that does not finish within drain_s ends with an error that its owner counts; the exit code is 0."""
    with worker(tmp_path, "--drain-s", "0.5", fake={"tokens_per_s": 5}) as it:
        it.until_idle()
        with it.http.stream("POST", "/v1/inference", json={"prompt": "Bees?", "max_tokens": 1000}) as response:
            stream = events(response)
            next(stream)
            it.process.send_signal(signal.SIGTERM)
            last = list(stream)[-1]

        assert last["error"]["code"] == "DRAINING"
        assert "within 0.5 s" in last["error"]["message"]
        assert last["error"]["details"]["tokens"] > 0
        assert it.hear_until("requests_stopped")["requests_stopped"] == 1
        assert it.process.wait(10) == 0


def test_a_shutdown_may_say_how_long_requests_may_take(tmp_path: Path) -> None:
    """The shutdown route takes a time for the running requests, and the receipt counts those that were stopped."""
    with worker(tmp_path, fake={"tokens_per_s": 5}) as it:
        it.until_idle()
        with it.http.stream("POST", "/v1/inference", json={"prompt": "Bees?", "max_tokens": 1000}) as response:
            stream = events(response)
            next(stream)
            began = time.monotonic()
            receipt = it.http.post("/v1/admin/shutdown", json={"drain_s": 1}).json()
            last = list(stream)[-1]

        assert 1 <= time.monotonic() - began < 15 * slowness()
        assert receipt["requests_stopped"] == 1
        assert last["error"]["code"] == "DRAINING"
        assert it.process.wait(10) == 0


def test_the_end_of_a_drain_ends_prompts_that_wait_for_a_slot(tmp_path: Path) -> None:
    """A request none of whose prompts runs at the moment is ended too, and not begun after the drain's time."""
    with (
        worker(tmp_path, "--slots", "2", "--drain-s", "1", fake={"tokens_per_s": 5}) as it,
        ThreadPoolExecutor(2) as pool,
    ):
        it.until_idle()
        body = {"prompt": ["a", "b", "c"], "max_tokens": 5}
        waiting = pool.submit(it.http.post, "/v1/completions", json=body)
        eventually(lambda: it.json("/v1/health")["slots_available"] == 1, within=5, because="its first prompt runs")
        running = pool.submit(it.http.post, "/v1/completions", json={"prompt": "d", "max_tokens": 1000})
        eventually(lambda: it.json("/v1/health")["slots_available"] == 0, within=5, because="another request runs")
        eventually(lambda: it.json("/v1/health")["slots_available"] == 1, within=5, because="the others wait")
        it.process.send_signal(signal.SIGTERM)

        for answer in (waiting, running):
            assert answer.result(timeout=20 * slowness()).json()["error"]["code"] == "DRAINING"
        assert it.process.wait(10) == 0


def test_shutdown_by_route_answers_when_it_is_done(tmp_path: Path) -> None:
    """The shutdown route gives a receipt once the model is freed, and the process ends with 0."""
    with worker(tmp_path, "--worker-id", "w1", fake={"memory_mb": 64}) as it:
        it.until_idle()
        receipt = it.http.post("/v1/admin/shutdown").json()

        assert receipt["worker_id"] == "w1"
        assert receipt["pid"] == it.process.pid
        assert receipt["gone"] is True
        assert receipt["memory_returned_bytes"] > 32 * 1024 * 1024
        assert it.process.wait(10) == 0


def test_a_drain_while_loading_ends_the_loading(tmp_path: Path) -> None:
    """A worker that still loads ends at once with 0."""
    with worker(tmp_path, fake={"load_s": 60}) as it:
        it.process.send_signal(signal.SIGTERM)

        assert it.process.wait(15) == 0


def test_an_engine_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """A worker whose engine never comes back answers health as stalled, ends its drain, and exits 1."""
    with worker(tmp_path, "--drain-s", "0.2", fake={"hang_after": 3}) as it:
        it.until_idle()
        stalled = threading.Thread(target=lambda: _ignore_break(it.http))
        stalled.start()
        eventually(lambda: it.json("/v1/health")["stalled_s"] > 0.5, within=5, because="the stall shows")
        it.process.send_signal(signal.SIGTERM)

        assert it.process.wait(30) == 1
        stalled.join()


def _ignore_break(http: httpx.Client) -> None:
    try:
        http.post("/v1/inference", json={"prompt": "Bees?"})
    except httpx.HTTPError:
        return


@pytest.mark.B39
def test_an_engine_that_fails_ends_its_streams_in_words(tmp_path: Path) -> None:
    """When the engine fails in mid-stream every request gets an error event, the owner a line, the exit code is 1."""
    with worker(tmp_path, fake={"fail_after": 5}) as it:
        it.until_idle()
        seen = it.infer(max_tokens=100)

        assert [event["index"] for event in seen[:-1]] == [0, 1, 2, 3, 4]
        assert seen[-1]["error"]["code"] == "WORKER_CRASHED"
        assert it.hear_until("error")["error"]["code"] == "WORKER_CRASHED"
        assert it.process.wait(10) == 1


def test_a_worker_does_not_outlive_its_owner(tmp_path: Path) -> None:
    """A cut lifeline ends the worker within 2 s, even in the middle of a request."""
    with worker(tmp_path, fake={"tokens_per_s": 5}) as it:
        it.until_idle()
        it.lifeline.close()
        began = time.monotonic()
        it.process.wait(5 * slowness())

        assert time.monotonic() - began < 2 * slowness()


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    """A port in use is an error line, a sentence, and exit code 1."""
    with worker(tmp_path) as first:
        port = str(first.http.base_url.port)
        (tmp_path / "second").mkdir()
        with worker(tmp_path / "second", "--port", port, announce=False) as second:
            told = second.hear_until("error")

            assert told["error"]["code"] == "PORT_IN_USE"
            assert port in told["error"]["message"]
            assert second.process.wait(10) == 1


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--slots", "0"), "slots"),
        (("--context-length", "1"), "context_length"),
        (("--backend", "abacus"), "backend"),
        (("--cache-type", "q8_0", "--flash-attention", "false"), "flash attention"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, options: tuple[str, ...], part: str) -> None:
    """A wrong setting ends the start with 78 and a sentence that names it, not with a traceback."""
    with worker(tmp_path, *options, announce=False) as it:
        assert it.process.wait(20) == 78
        assert part in it.tail()
        assert "Traceback" not in it.tail()


def test_answers_add_up(tmp_path: Path) -> None:
    """The fake engine's text comes through whole."""
    with worker(tmp_path, fake={"text": "one two three", "length": 3}) as it:
        it.until_idle()

        assert text_of(it.infer(max_tokens=50)) == "one two three"
