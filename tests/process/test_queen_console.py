"""Signing in with a browser: what the queen answers to cookies, tickets and strangers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rbee.queen.console.files import TYPES
from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake

pytestmark = pytest.mark.process
PAGE = Path(__file__).parents[2] / "rbee" / "queen" / "console" / "page"
MAX_BYTES = 80_000


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        machine.configure("queen", local_hive=False)
        yield machine


@pytest.fixture(name="queen")
def _queen(machine: Machine) -> QueenProcess:
    return QueenProcess(machine)


@pytest.fixture(name="browser")
def _browser(queen: QueenProcess) -> Iterator[httpx.Client]:
    """Give a client without a key that keeps cookies."""
    with httpx.Client(base_url=queen.url, trust_env=False, timeout=30) as browser:
        yield browser


def sign_in(queen: QueenProcess, browser: httpx.Client) -> str:
    """Sign in with a ticket; give what changes are sent with."""
    ticket = queen.post("/v2/console/tickets")["ticket"]
    answer = browser.post("/v2/console/sign-in", json={"ticket": ticket})
    assert answer.status_code == 200, answer.text
    csrf: str = answer.json()["csrf"]
    return csrf


def folder(browser: httpx.Client) -> str:
    """Give the path at which the document looks for the files."""
    document = browser.get("/", headers={"Accept": "text/html"}).text
    (found,) = set(re.findall(r'(?:href|src)="(console/\w+/)', document))
    return f"/{found}"


def test_the_page_is_open_small_and_asks_nobody_else(browser: httpx.Client) -> None:
    """Its files need no key, are all that there are, name no other host, and have a strict policy."""
    files = {path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()}
    assert files == {"index.html", *TYPES}
    kept = folder(browser)
    total = 0
    for path, kind in {"/": "text/html; charset=utf-8", **{kept + name: TYPES[name] for name in TYPES}}.items():
        answer = browser.get(path, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["x-content-type-options"] == "nosniff"
        total += len(answer.content)
        hosts = re.findall(r"https?://[\w.-]+", answer.text)
        assert set(hosts) <= {"http://www.w3.org"}, path
    assert total <= MAX_BYTES
    for gone in ("none.js", "../files.py", "%2e%2e/files.py", "index.html", "index.html/x", "vendor"):
        assert browser.get(kept + gone).status_code in (401, 404), gone
    assert browser.get("/", headers={"Accept": "*/*"}).text == "Ollama is running"


def test_a_browser_keeps_the_files_for_as_long_as_they_are_right(browser: httpx.Client) -> None:
    """The document is asked for each time; it names the files by a path of their content's, which never changes."""
    assert browser.get("/", headers={"Accept": "text/html"}).headers["cache-control"] == "no-store"
    kept = folder(browser)
    assert re.fullmatch(r"/console/[0-9a-f]{12}/", kept)
    for name in TYPES:
        assert "immutable" in browser.get(kept + name).headers["cache-control"]
    assert browser.get("/console/0123456789ab/app.js").status_code == 401


def test_no_part_of_the_page_waits_for_another(browser: httpx.Client) -> None:
    """The document names all modules, so that a browser fetches them at once, not as each import is found."""
    document = browser.get("/", headers={"Accept": "text/html"}).text
    named = re.findall(rf'(?:href|src)="{folder(browser)[1:]}([^"]+\.js)"', document)
    assert sorted(named) == sorted(name for name in TYPES if name.endswith(".js"))


def test_the_document_says_whose_session_the_browsers_is(queen: QueenProcess, browser: httpx.Client) -> None:
    """The page need not ask before it shows something; whoever comes by a link of another site gets it all the same."""

    def told(**headers: str) -> Any:
        document = browser.get("/", headers={"Accept": "text/html", **headers}).text
        (found,) = re.findall(r'<script id="session" type="application/json">(.*?)</script>', document)
        return json.loads(found)

    assert told() == {"client": "", "rights": [], "csrf": "", "until_unix": None}
    csrf = sign_in(queen, browser)
    assert told() == told(**{"Sec-Fetch-Site": "same-site"}) == browser.get("/v2/console/session").json()
    assert told()["csrf"] == csrf
    browser.delete("/v2/console/session", headers={"X-Rbee-Csrf": csrf}).raise_for_status()
    assert told()["client"] == ""


def test_a_ticket_becomes_a_cookie_with_the_rights_of_the_key(queen: QueenProcess, browser: httpx.Client) -> None:
    """The cookie is out of reach of scripts and other sites; it opens what the key opens, until it is signed out."""
    assert browser.get("/v2/console/session").json() == {"client": "", "rights": [], "csrf": "", "until_unix": None}
    assert browser.get("/v2/status").status_code == 401
    csrf = sign_in(queen, browser)
    cookie = browser.get("/v2/console/session")
    assert cookie.json()["client"] == "operator"
    assert browser.get("/v2/status").status_code == 200
    assert browser.post("/v2/keys/add", json={"name": "anna"}).status_code == 403
    added = browser.post("/v2/keys/add", json={"name": "anna"}, headers={"X-Rbee-Csrf": csrf})
    assert added.status_code == 201
    assert browser.delete("/v2/console/session").status_code == 403
    assert browser.delete("/v2/console/session", headers={"X-Rbee-Csrf": csrf}).status_code == 204
    assert browser.get("/v2/status").status_code == 401


def test_the_cookie_is_strict(queen: QueenProcess, browser: httpx.Client) -> None:
    """HttpOnly and SameSite=Strict, and Secure where the page came over TLS."""
    for headers, secure in (({}, False), ({"X-Forwarded-Proto": "https"}, True)):
        ticket = queen.post("/v2/console/tickets")["ticket"]
        answer = browser.post("/v2/console/sign-in", json={"ticket": ticket}, headers=headers)
        given = answer.headers["set-cookie"]
        assert "HttpOnly" in given
        assert "SameSite=strict" in given
        assert ("Secure" in given) is secure


def test_a_key_signs_in_and_its_end_is_the_session_s(queen: QueenProcess, browser: httpx.Client) -> None:
    """A client has its own rights there; revoked, it is nobody at once."""
    with queen.client("guest") as client:
        key = client.headers["Authorization"].removeprefix("Bearer ")
    assert browser.post("/v2/console/sign-in", json={"key": "wrong"}).status_code == 401
    assert browser.post("/v2/console/sign-in", json={}).status_code == 401
    assert browser.post("/v2/console/sign-in", json={"key": key}).json()["rights"] == ["infer"]
    assert browser.get("/v1/models").status_code == 200
    assert browser.get("/v2/events").status_code == 403
    assert [row["client"] for row in queen.get("/v2/console/sessions")["sessions"]] == ["guest"]
    queen.post("/v2/keys/remove", {"name": "guest"})
    assert browser.get("/v1/models").status_code == 401
    assert queen.get("/v2/console/sessions")["sessions"] == []


def test_another_page_signs_nobody_in(queen: QueenProcess, browser: httpx.Client) -> None:
    """Not even with a key of its own: what a person then does would be done, and seen, as another client."""
    key = queen.http.headers["Authorization"].removeprefix("Bearer ")
    foreign = {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}
    for headers in foreign:
        answer = browser.post(
            "/v2/console/sign-in", json={"key": key}, headers={"Content-Type": "text/plain", **headers}
        )
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert queen.get("/v2/console/sessions")["sessions"] == []


def test_a_session_makes_no_further_ones(queen: QueenProcess, browser: httpx.Client) -> None:
    """Its end is the end: with a ticket from a session, whoever took the cookie would stay for ever."""
    csrf = sign_in(queen, browser)
    answer = browser.post("/v2/console/tickets", headers={"X-Rbee-Csrf": csrf})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")
    assert "rbee-keeper console" in answer.json()["error"]["hint"]


def test_an_operator_ends_a_session(queen: QueenProcess, browser: httpx.Client) -> None:
    """By its id, which opens nothing."""
    sign_in(queen, browser)
    (session,) = queen.get("/v2/console/sessions")["sessions"]
    assert session["own"] is False
    assert browser.get("/v2/console/sessions").json()["sessions"] == [{**session, "own": True}]
    (name,) = browser.cookies
    assert httpx.get(f"{queen.url}/v2/status", headers={"Cookie": f"{name}={session['id']}"}).status_code == 401
    queen.http.delete(f"/v2/console/sessions/{session['id']}").raise_for_status()
    assert browser.get("/v2/status").status_code == 401


def test_who_follows_the_fleet_is_cut_off_with_its_session_or_key(queen: QueenProcess, browser: httpx.Client) -> None:
    """A stream that is open tells nothing more once the session is ended or the key is revoked, and says why."""
    sign_in(queen, browser)
    (session,) = queen.get("/v2/console/sessions")["sessions"]
    with browser.stream("GET", "/v2/events") as followed:
        lines = followed.iter_lines()
        assert next(lines) == "event: snapshot"
        queen.http.delete(f"/v2/console/sessions/{session['id']}").raise_for_status()
        assert "event: error" in list(lines)
    with queen.client("prometheus", rights=["operate"]) as client, client.stream("GET", "/v2/events") as followed:
        lines = followed.iter_lines()
        assert next(lines) == "event: snapshot"
        queen.post("/v2/keys/remove", {"name": "prometheus"})
        assert "INVALID_API_KEY" in list(lines)[-2]


def test_no_secret_is_in_a_log(machine: Machine, queen: QueenProcess, browser: httpx.Client) -> None:
    """Neither ticket nor cookie nor token is written anywhere."""
    ticket = queen.post("/v2/console/tickets")["ticket"]
    csrf = browser.post("/v2/console/sign-in", json={"ticket": ticket}).json()["csrf"]
    browser.get("/v2/status")
    text = queen.running.stderr.read_text() + "".join(machine.logs().values())
    assert [secret for secret in (ticket, csrf, *browser.cookies.values()) if secret in text] == []


def test_the_command_prints_a_link(machine: Machine, queen: QueenProcess, browser: httpx.Client) -> None:
    """It leads to the queen, or where --at says, and signs in once."""
    ran = machine.run("rbee-keeper", "console", "--no-browser")
    assert ran.code == 0, ran.stderr
    address, _, ticket = ran.stdout.strip().partition("#ticket=")
    assert address == f"{queen.url}/"
    assert browser.post("/v2/console/sign-in", json={"ticket": ticket}).status_code == 200
    other = machine.run("rbee-keeper", "console", "--json", "--at", "https://rbee.example/fleet/").json
    assert other["url"].startswith("https://rbee.example/fleet/#ticket=")
