"""The console in a browser: each view shows what is there and does what it says, to the keyboard and on a phone too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from tests.console.browser import browse, link
from tests.support.machine import Machine
from tests.support.queens import QueenProcess
from tests.support.waiting import eventually, slowness

pytestmark = [pytest.mark.xdist_group("clients"), pytest.mark.timeout(600)]
VIEWS: Final = ("fleet", "models", "activity", "chat", "logs", "keys")


def fill(queen: QueenProcess) -> None:
    """Have something to see in every view."""
    queen.task(max_tokens=5)
    queen.http.put("/v2/served/chat", json={"model": queen.model, "replicas": 1}).raise_for_status()
    queen.http.put("/v2/served/lost", json={"model": "file:///nowhere.gguf", "replicas": 1}).raise_for_status()
    queen.post("/v2/keys/add", {"name": "anna", "models": ["chat"]})


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 800, "light"), (390, 844, "dark")])
def test_each_view_shows_what_is_there_without_a_barrier(
    modules: Path, machine: Machine, width: int, height: int, scheme: str
) -> None:
    """On a screen and on a phone, light and dark: no violation of axe's rules, nothing wider than the screen."""
    queen = QueenProcess(machine)
    fill(queen)
    seen = {
        "fleet": "weights ",
        "models": "On disks",
        "activity": "done",
        "chat": "Model",
        "logs": "worker started",
        "keys": "anna",
    }
    steps: list[tuple[Any, ...]] = []
    for view in VIEWS:
        steps += [("view", view), ("sees", seen[view]), ("axe", view), ("widest",), ("shot", f"{view}-{scheme}")]
    found = browse(modules, link(machine), *steps, width=width, height=height, scheme=scheme, axe=True)
    assert {view: found["violations"][view] for view in VIEWS if found["violations"][view]} == {}
    assert max(found["texts"]) <= 0


def test_a_reload_shows_the_fleet_whatever_comes_first(modules: Path, machine: Machine) -> None:
    """The events of a fleet in which nothing happens come once, be it before the page has drawn anything."""
    QueenProcess(machine)
    # Drawn at long intervals, and nothing goes on in between: what comes first waits together with what draws it.
    slow = "const later = setTimeout; window.setTimeout = (what, ms, ...more) => later(what, ms * 20, ...more);"
    slow += " window.requestAnimationFrame = (draw) => later(draw, 1000 - (performance.now() % 1000));"
    browse(modules, link(machine), ("runs_first", slow), ("reload",), ("sees", "cpu:0"))


def test_models_are_loaded_ended_pinned_declared_and_explained(modules: Path, machine: Machine) -> None:
    """Whatever is done there is done by the queen, and shown when it is; what cannot be done says why."""
    queen = QueenProcess(machine)
    fill(queen)
    eventually(
        lambda: "chat" in [row["served"] for row in queen.workers() if row["state"] == "idle"],
        within=30,
        because="what is declared serves",
    )
    browse(
        modules,
        link(machine),
        ("view", "models"),
        ("sees", "/nowhere.gguf does not exist"),
        ("click", "Pin", 0),
        ("sees", "1 worker, pinned"),
        ("click", "Where", 0),
        ("sees", "slots in use"),
        ("opens", "Declare a model"),
        ("fills", "Name", "second"),
        ("fills", "Model", queen.model),
        ("fills", "Workers", "0"),
        ("click", "Declare"),
        ("sees", "second"),
        ("fills", "Name", "no name"),
        ("fills", "Model", "x"),
        ("presses", "Enter"),
        ("sees", "cannot be a name"),
        refused=True,
    )
    served = {row["declared"]["name"]: row["declared"] for row in queen.get("/v2/served")["served"]}
    assert served["chat"]["keep"] == "always"
    assert served["second"]["replicas"] == 0


def test_a_chat_is_streamed_stopped_asked_again_and_kept(modules: Path, machine: Machine) -> None:
    """Text becomes paragraphs, lists and code, never HTML; a stopped answer stays, and the browser keeps the rest."""
    machine.fake(tokens_per_s=60 / slowness())  # so that it is not over before it is stopped
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    found = browse(
        modules,
        link(machine),
        ("view", "chat"),
        ("fills", "Message", "What do bees eat?"),
        ("presses", "Enter"),
        ("sees", "<script>alert(1)</script>"),
        ("count", ".turn li strong"),
        ("text", ".turn pre"),
        ("click", "Stop"),
        ("reload",),
        ("sees", "<script>alert(1)</script>"),
        ("click", "Regenerate"),
        ("sees", "tokens, first after"),
        ("count", ".turn"),
        ("shot", "chat-answered"),
        ("click", "Delete: What do bees eat?"),
        ("gone", "What do bees eat?"),
    )
    assert found["texts"] == [1, "<b>code</b>", 2]


def test_who_signs_in_after_another_finds_no_conversation_of_theirs(modules: Path, machine: Machine) -> None:
    """A browser that several people use shows each the conversations of their own key, however many those are."""
    machine.fake(replies={"": "Nectar."})
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    key = queen.post("/v2/keys/add", {"name": "anna"})["key"]
    # More than anybody has written down by hand, as the browser keeps them.
    old = "for (let i = 0; i < 150; i++) localStorage.setItem(`rbee.conversation.operator/${i}`, JSON.stringify({ "
    old += "id: `${i}`, messages: [{ role: 'user', content: `Bee ${i}?` }], model: '', system: '', settings: {} }))"
    found = browse(
        modules,
        link(machine),
        ("runs", old),
        ("reload",),
        ("view", "chat"),
        ("counts", ".side .row", 150),
        ("click", "Sign out"),
        ("fills", "Key", key),
        ("presses", "Enter"),
        ("sees", "New conversation"),
        ("count", ".side .row"),
        ("fills", "Message", "What does anna ask?"),
        ("presses", "Enter"),
        ("sees", "tokens, first after"),
        ("click", "Sign out"),
        ("fills", "Key", queen.http.headers["Authorization"].removeprefix("Bearer ")),
        ("presses", "Enter"),
        ("view", "chat"),
        ("counts", ".side .row", 150),
        ("text", ".side"),
    )
    assert found["texts"][0] == 1
    assert "anna" not in found["texts"][1]


def test_a_conversation_that_the_browser_cannot_keep_says_so(modules: Path, machine: Machine) -> None:
    """Where its storage is full the conversation goes on, with the reason why it is not kept and what to do."""
    machine.fake(replies={"": "Nectar."})
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    full = "for (let size = 1 << 23; size; size >>= 1)"
    full += " try { localStorage.setItem(`x${size}`, 'x'.repeat(size)); } catch {}"
    browse(
        modules,
        link(machine),
        ("runs", full),
        ("view", "chat"),
        ("fills", "Message", "What do bees eat?"),
        ("presses", "Enter"),
        ("sees", "Nectar."),
        ("sees", "This browser has no room left for this conversation"),
    )


def test_an_answer_goes_on_while_something_else_is_looked_at(modules: Path, machine: Machine) -> None:
    """Another view or another conversation ends no answer; each conversation has its own."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    browse(
        modules,
        link(machine),
        ("view", "chat"),
        ("fills", "Message", "What do bees eat?"),
        ("presses", "Enter"),
        ("sees", "one"),
        ("view", "fleet"),
        ("sees", "cpu:0"),
        ("view", "chat"),
        ("click", "New conversation"),
        ("counts", ".side .row", 2),
        ("fills", "Message", "And wasps?"),
        ("opens", "System prompt and sampling"),
        ("fills", "Most tokens", "3"),
        ("presses", "Tab"),
        ("click", "Send"),
        ("sees", "3 tokens, first after"),
        ("click", "What do bees eat?"),
        ("sees", "tokens, first after"),
        ("sees", "<script>alert(1)</script>"),
    )


def test_two_tabs_keep_what_is_said_in_both(modules: Path, machine: Machine) -> None:
    """Each shows the conversations of the other, also of those deleted, and at once that the session is over."""
    machine.fake(replies={"": "Nectar."})
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    found = browse(
        modules,
        link(machine),
        ("view", "chat"),
        ("opens_tab", "second"),
        ("view", "chat"),
        ("fills", "Message", "What do bees eat?"),
        ("presses", "Enter"),
        ("sees", "tokens, first after"),
        ("as", "first"),
        ("sees", "What do bees eat?"),
        ("click", "New conversation"),
        ("counts", ".side .row", 3),
        ("fills", "Message", "And wasps?"),
        ("presses", "Enter"),
        ("sees", "tokens, first after"),
        ("as", "second"),
        ("sees", "And wasps?"),
        ("reload",),
        ("sees", "And wasps?"),
        ("text", ".side"),
        ("click", "Delete: What do bees eat?"),
        ("gone", "What do bees eat?"),
        ("as", "first"),
        ("gone", "What do bees eat?"),
        ("click", "Sign out"),
        ("as", "second"),
        ("sees", "The session is over."),
        refused=True,
    )
    assert [line for line in found["texts"][0].splitlines() if "?" in line] == ["And wasps?", "What do bees eat?"]


def test_a_failed_answer_loses_nothing(modules: Path, machine: Machine) -> None:
    """The question and the answer before stay, and the page says why there is no other one."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    browse(
        modules,
        link(machine),
        ("view", "chat"),
        ("opens", "System prompt and sampling"),
        ("fills", "Most tokens", "3"),
        ("fills", "Message", "What do bees eat?"),
        ("click", "Send"),
        ("sees", "3 tokens, first after"),
        ("fills", "Temperature", "99"),
        ("click", "Regenerate"),
        ("sees", "temperature"),
        ("sees", "3 tokens, first after"),
        ("sees", "What do bees eat?"),
        refused=True,
    )


def test_a_request_is_seen_and_canceled(modules: Path, machine: Machine) -> None:
    """It runs, its tokens are counted, and the button ends it."""
    machine.fake(tokens_per_s=5)
    queen = QueenProcess(machine)
    running = queen.aside(max_tokens=1500)
    running.tokens(1)
    browse(modules, link(machine), ("view", "activity"), ("sees", "running"), ("click", "Cancel"), ("sees", "CANCELED"))
    assert running.ended()[-1][0] == "error"


def test_a_key_is_made_changed_and_revoked(modules: Path, machine: Machine) -> None:
    """It is shown once; what it may is changed by the same fields; revoked it is gone and opens nothing."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    found = browse(
        modules,
        link(machine),
        ("view", "keys"),
        ("opens", "Make a key"),
        ("fills", "Client", "berta"),
        ("fills", "Tokens a day", "100000"),
        ("click", "Make"),
        ("sees", "shown once"),
        ("text", "details code"),
        ("sees", "100,000 tokens a day"),
        ("opens", "Make a key"),
        ("click", "Change"),
        ("fills", "Requests at once", "0"),
        ("click", "Save"),
        ("sees", "max_tasks"),
        ("fills", "Requests at once", "2"),
        ("fills", "Tokens a day", ""),
        ("fills", "Until", "2100-01-31"),
        ("click", "Save"),
        ("sees", "2 requests at once, until 2100-01-31"),
        ("click", "Revoke"),
        ("gone", "2 requests at once"),
        refused=True,
    )
    refused = queen.http.get("/v1/models", headers={"Authorization": f"Bearer {found['texts'][0]}"})
    assert refused.status_code == 401


def test_a_ticket_is_good_once_and_a_key_that_may_infer_sees_the_chat_only(modules: Path, machine: Machine) -> None:
    """A link that was used says how to get another; a client signs in with its key and gets no other view."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    used = link(machine)
    browse(modules, used, ("sees", "Fleet"), ("click", "Sign out"), ("sees", "sign in with a key"))
    browse(modules, used, ("sees", "Get a new link: rbee-keeper console"), refused=True)
    with queen.client("guest") as client:
        key = client.headers["Authorization"].removeprefix("Bearer ")
    found = browse(
        modules,
        f"{queen.url}/",
        ("fills", "Key", key),
        ("click", "Sign in"),
        ("sees", "guest"),
        ("count", "header nav a"),
    )
    assert found["texts"] == [1]
