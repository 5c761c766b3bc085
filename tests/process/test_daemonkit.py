"""What every daemon promises at its edge and at its end, on a daemon made of daemonkit alone."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from rbee.client.blocking import BlockingClient
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.lifeline import Lifeline
from rbee.observe.throttle import INTERVAL_S
from tests.support.tiny_daemon import KEY
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process


@dataclass
class Tiny:
    process: subprocess.Popen[bytes]
    lifeline: Lifeline
    http: httpx.Client
    log: Path


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    lifeline = Lifeline()
    log = tmp_path / "tiny.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.tiny_daemon"],
            env={**os.environ, **lifeline.env()},
            pass_fds=(lifeline.child_fd,),
            stderr=stderr,
            cwd=Path(__file__).parents[2],
        )
    lifeline.spawned()
    told = lifeline.read(15 * slowness())
    assert told is not None
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{told['port']}",
        headers={"Authorization": f"Bearer {KEY}"},
        trust_env=False,
        timeout=30,
    )
    with client:
        yield Tiny(process, lifeline, client, log)
    lifeline.close()
    process.kill()
    process.wait(10)


def test_a_compressed_body_is_taken_within_the_bounds(tiny: Tiny) -> None:
    """gzip is decoded as it comes; what is larger than a body may be, damaged or otherwise encoded is refused."""
    body = gzip.compress(b'{"count": 3}')

    def post(content: bytes, encoding: str) -> tuple[int, str]:
        answer = tiny.http.post("/count", content=content, headers={"Content-Encoding": encoding})
        return answer.status_code, "" if answer.is_success else answer.json()["error"]["code"]

    assert tiny.http.post("/count", content=b'{"count": 3}').status_code == 200
    for name in ("gzip", "GZIP", "x-gzip"):
        assert post(body, name) == (200, "")
    assert post(b'{"count": 3}', "identity") == (200, "")
    assert post(gzip.compress(b" " * 50_000_000), "gzip") == (413, "PAYLOAD_TOO_LARGE")
    assert post(body[:-9], "gzip") == (400, "INVALID_REQUEST")
    assert post(b'{"count": 3}', "gzip") == (400, "INVALID_REQUEST")
    assert post(body + gzip.compress(b" "), "gzip") == (400, "INVALID_REQUEST")
    assert post(body + b"more", "gzip") == (400, "INVALID_REQUEST")
    for name in ("zstd", "br", "deflate", "gzip, gzip"):
        refused = tiny.http.post("/count", content=body, headers={"Content-Encoding": name})
        assert (refused.status_code, refused.json()["error"]["code"]) == (415, "UNSUPPORTED_ENCODING")
        assert "'gzip' is" in refused.json()["error"]["message"]


def test_a_refusal_says_which_methods_are_taken(tiny: Tiny) -> None:
    """405 names the methods that the path has."""
    refused = tiny.http.put("/count", content=b"{}")

    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("headers", "query", "says"),
    [
        ({}, "", "the request has neither."),
        ({"Authorization": "Basic YTpi"}, "", "has 'Authorization: Basic', which is not taken."),
        ({"Authorization": "Frob YTpi"}, "", "has 'Authorization' with another scheme, which is not taken."),
        ({"Authorization": KEY}, "", "has 'Authorization' without a scheme, which is not taken."),
        ({"Authorization": "Bearer"}, "", "has an empty one."),
        ({"X-Api-Key": ""}, "", "has an empty one."),
        ({"api-key": KEY}, "", "has one in the header 'api-key', which is not taken."),
        ({"X-Goog-Api-Key": KEY}, "", "has one in the header 'x-goog-api-key', which is not taken."),
        ({}, f"?api_key={KEY}", "has one in its address, which is not taken: addresses are logged."),
    ],
)
def test_a_key_in_the_wrong_place_is_named(tiny: Tiny, headers: dict[str, str], query: str, says: str) -> None:
    """401 says how a key is taken and where the request has it instead; the key is not repeated."""
    with httpx.Client(base_url=tiny.http.base_url, headers=headers, trust_env=False) as stranger:
        answer = stranger.get(f"/refused{query}")

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (401, "MISSING_API_KEY")
    assert "'Authorization: Bearer <key>' or 'X-Api-Key: <key>'; the request " in error["message"]
    assert error["message"].endswith(says)
    assert KEY not in answer.text


def test_a_key_is_taken_beside_another_scheme(tiny: Tiny) -> None:
    """What a proxy asks its users for in Authorization does not hide the key in X-Api-Key."""
    headers = {"Authorization": "Basic YTpi", "X-Api-Key": KEY}
    with httpx.Client(base_url=tiny.http.base_url, headers=headers, trust_env=False) as caller:
        assert caller.get("/refused").status_code == 503


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nowhere", None, 404, "ROUTE_NOT_FOUND"),
        ("PUT", "/count", None, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/count", b'{"count": 11}', 400, "INVALID_REQUEST"),
        ("POST", "/count", b'{"cuont": 1}', 400, "INVALID_REQUEST"),
        ("POST", "/count", b"{", 400, "INVALID_REQUEST"),
        ("POST", "/count", b"[" * 900, 400, "INVALID_REQUEST"),
        ("POST", "/count", b"x" * 1001, 413, "PAYLOAD_TOO_LARGE"),
        ("GET", "/refused", None, 503, "ALL_SLOTS_BUSY"),
        ("GET", "/bug", None, 500, "INTERNAL"),
    ],
)
@pytest.mark.B53
def test_one_error_body(tiny: Tiny, method: str, path: str, body: bytes | None, status: int, code: str) -> None:
    """Every failure has the one error body, with code, message, details, hint and the request's id."""
    response = tiny.http.request(method, path, content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert error["hint"]
    assert error["details"] is not None
    assert error["request_id"] == response.headers["x-request-id"]
    assert "inner workings" not in response.text


def test_a_refusal_for_now_says_when_to_return(tiny: Tiny) -> None:
    """A 503 carries Retry-After."""
    assert tiny.http.get("/refused").headers["retry-after"] == "1"


def test_a_body_of_unknown_length_is_bounded(tiny: Tiny) -> None:
    """A chunked body is cut off at the limit, not read to its end."""
    response = tiny.http.post("/count", content=(b"x" * 100 for _ in range(20)))

    assert response.status_code == 413


@pytest.mark.parametrize(("header", "code"), [(None, "MISSING_API_KEY"), ("Bearer wrong", "INVALID_API_KEY")])
def test_only_health_is_open(tiny: Tiny, header: str | None, code: str) -> None:
    """Without the right key every path but health is refused, also one that does not exist."""
    headers = {} if header is None else {"Authorization": header}
    with httpx.Client(base_url=tiny.http.base_url, headers=headers, trust_env=False) as stranger:
        assert stranger.get("/health").status_code == 200
        for path in ("/refused", "/nowhere"):
            response = stranger.get(path)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == code


def test_the_callers_request_id_is_kept(tiny: Tiny) -> None:
    """A request id from the client comes back and stands in the log; a strange one is replaced."""
    assert tiny.http.get("/refused", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert tiny.http.get("/refused", headers={"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"
    eventually(lambda: '"request_id": "abc-1"' in tiny.log.read_text(), within=5, because="the log names the request")


@pytest.mark.parametrize(("ending", "code"), [("error", "WORKER_CRASHED"), ("bug", "INTERNAL")])
def test_a_stream_that_fails_ends_in_words(tiny: Tiny, ending: str, code: str) -> None:
    """A failure after the first byte is an `error` event."""
    client = BlockingClient("tiny", str(tiny.http.base_url), KEY)
    seen: list[int] = []

    with client.stream("GET", f"/stream/{ending}", idle_timeout_s=5) as events, pytest.raises(RbeeError) as caught:
        seen.extend(event.data["index"] for event in events)

    assert seen == [0, 1, 2]
    assert caught.value.code == ErrorCode(code)


def test_a_client_that_leaves_closes_the_stream(tiny: Tiny) -> None:
    """The generator behind a stream is closed when its client goes away."""
    with tiny.http.stream("GET", "/stream/slow") as response:
        next(response.iter_lines())

    eventually(lambda: "stream closed" in tiny.log.read_text(), within=2, because="the generator is closed")


def test_sigterm_drains_and_ends_with_code_0(tiny: Tiny) -> None:
    """After SIGTERM new work is refused while the daemon still answers, then it ends with code 0."""
    tiny.process.send_signal(signal.SIGTERM)

    answers = []

    def refused() -> bool:
        answers.append(tiny.http.post("/count", json={"count": 1}))
        return answers[-1].status_code == 503

    eventually(refused, within=2, because="new work is refused")
    assert answers[-1].json()["error"]["code"] == "DRAINING"
    assert tiny.process.wait(10) == 0


def test_an_endless_stream_does_not_hold_up_the_end(tiny: Tiny) -> None:
    """A stream without an end is ended by the drain, and the daemon is gone soon after."""
    with tiny.http.stream("GET", "/endless") as response:
        lines = response.iter_lines()
        next(lines)
        tiny.process.send_signal(signal.SIGTERM)
        for _ in lines:
            pass

    assert tiny.process.wait(5 * slowness()) == 0


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_child_does_not_outlive_its_owner(tmp_path: Path, how: str) -> None:
    """A child is gone at most 2 s after its owner, also when the owner is killed."""
    script = (
        "import os,subprocess,sys,time\n"
        "from rbee.lifeline import Lifeline\n"
        "line=Lifeline()\n"
        "child=subprocess.Popen([sys.executable,'-m','tests.support.tiny_daemon'],"
        "env={**os.environ,**line.env()},pass_fds=(line.child_fd,),stderr=subprocess.DEVNULL)\n"
        "line.spawned()\nassert line.read(15)\nprint(child.pid,flush=True)\nsys.stdin.read()\n"
        "line.close()\nchild.wait()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    assert owner.stdin is not None
    with owner.stdout:
        child = int(owner.stdout.readline())
    if how == "killed":
        owner.kill()
    owner.stdin.close()
    owner.wait(10)

    eventually(lambda: has_ended(child), within=2, because="the child is gone")


def test_a_child_gets_its_arguments_whole(tmp_path: Path) -> None:
    """What an owner gives arrives as it was given, also where it is longer than one read; output goes to the log."""
    line, log = Lifeline(), tmp_path / "child.log"
    script = (
        "import os\nfrom rbee import lifeline\nowner = lifeline.attach()\nargv = owner.take_arguments()\n"
        "print('in the log', flush=True)\nowner.tell({'argv': argv, 'bees': os.environ['BEES']})\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, **line.env()},
        pass_fds=(line.child_fd,),
    )
    line.spawned()

    line.give_arguments(["--port", "0"], {"BEES": "ü" * 10_000}, str(log))

    assert line.read(15) == {"argv": ["--port", "0"], "bees": "ü" * 10_000}
    assert log.read_text() == "in the log\n"
    line.close()
    child.wait(10)


def has_ended(pid: int) -> bool:
    """Tell whether a process runs no more; who inherits it may be slow to reap it."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_key_never_reaches_the_log(tiny: Tiny) -> None:
    """A bearer key that a client sends is in no log line."""
    threads = [threading.Thread(target=tiny.http.get, args=("/bug",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    eventually(lambda: "BUG" in tiny.log.read_text(), within=5, because="the bug is logged")
    assert KEY not in tiny.log.read_text()


def test_strangers_write_little_into_the_log(tiny: Tiny) -> None:
    """Hundreds of requests without a key, with long paths, are ten short lines in ten seconds."""
    began = time.monotonic()
    with httpx.Client(base_url=tiny.http.base_url, trust_env=False) as stranger:
        for _ in range(300):
            assert stranger.get("/" + "A" * 60_000).status_code == 401

    lines = tiny.log.read_text().splitlines()
    intervals = 1 + (time.monotonic() - began) / INTERVAL_S
    assert 0 < sum('"status": 401' in line for line in lines) <= 11 * intervals
    assert max(map(len, lines)) < 1000


def test_half_sent_heads_keep_nobody_out(tiny: Tiny) -> None:
    """While a stranger holds 1,100 connections a client is answered; they are cut off after ten seconds, and it is
    logged.
    """
    port = tiny.http.base_url.port
    assert port is not None
    with contextlib.ExitStack() as held:
        strangers = []
        for _ in range(1100):
            stranger = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            stranger.sendall(b"GET / HTTP/1.1\r\nHost:")
            strangers.append(stranger)
        began = time.monotonic()
        assert tiny.http.post("/count", json={"count": 3}).status_code == 200
        assert time.monotonic() - began < 2 * slowness()
        strangers[-1].settimeout(15 * slowness())
        assert strangers[-1].recv(100).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 10 + 4 * slowness()
    eventually(lambda: '"slow_heads"' in tiny.log.read_text(), within=15, because="the daemon logs what it closed")
