"""What is clicked on the page is done by the queen, and seen to be done: devices, models, logs, requests, sessions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from rbee.queen.events.feed import MAX_READERS
from tests.console.browser import SHOTS, browse, link
from tests.support.machine import Machine
from tests.support.queens import QueenProcess, count, ended_well
from tests.support.waiting import eventually

pytestmark = [pytest.mark.xdist_group("clients"), pytest.mark.timeout(600)]


def yielded(queen: QueenProcess) -> list[str]:
    """Return the devices of the machine that are yielded."""
    (node,) = queen.get("/v2/hives/list")["hives"]
    return [f"{each['backend']}:{each['device']}" for each in node["yielded"]]


def served(queen: QueenProcess) -> dict[str, dict[str, Any]]:
    """Return what is declared, by name."""
    return {row["declared"]["name"]: row for row in queen.get("/v2/served")["served"]}


def test_a_device_is_yielded_and_resumed(modules: Path, machine: Machine) -> None:
    """Its worker ends and the page says so; resumed it takes requests again."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    browse(
        modules,
        link(machine),
        ("view", "fleet"),
        ("click", "Yield"),
        ("sees", "Yielded to another program"),
        ("shot", "yielded"),
    )
    assert yielded(queen) == ["cpu:0"]
    eventually(lambda: queen.workers() == [], within=10, because="its worker has ended")
    browse(modules, link(machine), ("click", "Resume"), ("gone", "Yielded to another program"))
    assert yielded(queen) == []
    assert ended_well(queen.task(max_tokens=2))


def test_a_declared_model_is_loaded_unloaded_and_removed(modules: Path, machine: Machine) -> None:
    """One on demand is loaded by a click and ended by another; a removed declaration is gone, and others stay."""
    queen = QueenProcess(machine)
    queen.http.put("/v2/served/rose", json={"model": queen.model, "replicas": 0}).raise_for_status()
    queen.http.put("/v2/served/tulip", json={"model": queen.model, "replicas": 0}).raise_for_status()
    browse(
        modules,
        link(machine),
        ("view", "models"),
        ("clicks_in", "rose", "Load"),
        ("sees_in", "rose", "localhost cpu:0 idle"),
        ("shot", "loaded"),
    )
    assert queen.worker()["served"] == "rose"
    browse(
        modules,
        link(machine),
        ("view", "models"),
        ("clicks_in", "rose", "Unload"),
        ("sees_in", "rose", "Load"),
        ("clicks_in", "tulip", "Remove"),
        ("gone", "tulip"),
    )
    eventually(lambda: queen.workers() == [], within=10, because="its worker has ended")
    assert list(served(queen)) == ["rose"]


def test_logs_are_shown_of_the_source_that_is_chosen(modules: Path, machine: Machine) -> None:
    """All sources at first, then the lines of one only, while new ones come."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    worker = queen.worker()["worker_id"]
    found = browse(
        modules,
        link(machine),
        ("view", "logs"),
        ("sees", "worker started"),
        ("sees", "model loaded"),
        ("chooses", "From", worker),
        ("gone", "worker started"),
        ("text", ".log"),
        ("chooses", "From", "rbee-hive"),
        ("gone", "model loaded"),
        ("chooses", "From", ""),
        ("sees", "model loaded"),
    )
    lines = found["texts"][0].splitlines()
    assert lines
    assert all(worker in line for line in lines)


def test_a_log_may_hold_anything(modules: Path, machine: Machine) -> None:
    """HTML, JSON that is no line of a daemon, colours and lines without an end are text like any other."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    log = machine.home / "logs" / f"{queen.worker()['worker_id']}.log"
    with log.open("a") as file:
        file.write(f"{'y' * 1_000_000}\n")
        file.write('{"message": "of no daemon", "time": 5}\n{"message": [1]}\nnull\n[]\n"text"\n')
        file.write("<b>bold</b> \x1b[31mred\x1b[0m \x00\nthe last line\n")
    found = browse(
        modules,
        link(machine),
        ("view", "logs"),
        ("sees", "<b>bold</b>"),
        ("sees", "of no daemon"),
        ("sees", "the last line"),
        ("count", ".log b"),
        ("widest",),
        ("view", "fleet"),
        ("sees", "cpu:0"),
    )
    assert found["texts"][0] == 0
    assert found["texts"][1] <= 0


def test_a_request_that_waits_is_canceled_and_the_one_that_runs_goes_on(modules: Path, machine: Machine) -> None:
    """It is seen at its place in the queue; canceled it ends with an error that says so, without a token."""
    machine.configure("hive", slots=1)
    machine.fake(tokens_per_s=5)
    queen = QueenProcess(machine)
    queen.http.put("/v2/served/rose", json={"model": queen.model, "replicas": 0}).raise_for_status()
    running = queen.aside(model="rose", max_tokens=1500)
    running.tokens(1)
    asked = {"model": "rose", "messages": [{"role": "user", "content": "Bees?"}]}
    with queen.client("patient") as client, ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.post, "/v1/chat/completions", json=asked)
        browse(
            modules,
            link(machine),
            ("view", "activity"),
            ("sees_in", "patient", "1. of 1"),
            ("sees", "1 running, 1 waiting"),
            ("clicks_in", "patient", "Cancel"),
            ("sees_in", "patient", "CANCELED"),
            ("sees", "1 running, 0 waiting"),
        )
        assert waiting.result(60).json()["error"]["code"] == "CANCELED"
    running.tokens(count(running.events) + 1)


def test_a_session_that_is_ended_is_over_in_its_browser(modules: Path, machine: Machine) -> None:
    """An operator ends the session of another browser, which shows nothing more and says why."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    with queen.client("berta", rights=["infer", "operate"]) as berta:
        ticket = berta.post("/v2/console/tickets").json()["ticket"]
    browse(
        modules,
        link(machine),
        ("opens_as", "berta", f"{queen.url}/#ticket={ticket}"),
        ("sees", "cpu:0"),
        ("as", "first"),
        ("view", "keys"),
        ("clicks_in", "berta", "End"),
        ("gone_in", "Sessions of browsers", "berta"),
        ("as", "berta"),
        ("sees", "The session is over."),
        ("gone", "cpu:0"),
        refused=True,
    )


def test_a_key_that_is_revoked_ends_the_sessions_of_its_client(modules: Path, machine: Machine) -> None:
    """A client that only chats is told at its next question that the session is over, and can sign in anew."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    with queen.client("guest") as guest:
        key = guest.headers["Authorization"].removeprefix("Bearer ")
    browse(
        modules,
        link(machine),
        ("opens_as", "guest", f"{queen.url}/"),
        ("fills", "Key", key),
        ("click", "Sign in"),
        ("fills", "Message", "Bees?"),
        ("as", "first"),
        ("view", "keys"),
        ("click", "Revoke"),
        ("sees", "No client has a key yet."),
        ("as", "guest"),
        ("click", "Send"),
        ("sees", "The session is over."),
        ("sees", "sign in with a key"),
        refused=True,
    )


def test_a_page_that_is_one_too_many_says_so_and_waits_for_its_turn(modules: Path, machine: Machine) -> None:
    """A page whose events are refused tells the queen's reason, and shows the fleet once they are not."""
    queen = QueenProcess(machine)
    told = SHOTS / "too-many.png"
    told.unlink(missing_ok=True)
    with ThreadPoolExecutor() as aside, ExitStack() as others:
        reader = httpx.Client(
            base_url=queen.url,
            headers=queen.http.headers,
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
            timeout=30,
        )
        others.enter_context(reader)
        for _ in range(MAX_READERS):
            others.enter_context(reader.stream("GET", "/v2/events")).raise_for_status()
        looking = aside.submit(
            browse,
            modules,
            link(machine),
            ("sees", f"{MAX_READERS} readers follow the events of this queen"),
            ("shot", told.stem),
            ("gone", f"{MAX_READERS} readers follow the events of this queen"),
            ("sees", "cpu:0"),
            refused=True,
        )
        eventually(lambda: told.exists() or looking.done(), within=60, because="the page has told why")
        others.close()
        looking.result()
