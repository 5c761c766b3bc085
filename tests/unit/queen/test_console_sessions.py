"""Sessions of browsers: tickets that are good once, cookies with a key's rights, and what other pages cannot do."""

from __future__ import annotations

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.contracts.keys import Right
from rbee.errors import RbeeError
from rbee.queen.console.cookies import SessionCookies
from rbee.queen.console.sessions import MAX_SESSIONS, MAX_TICKETS, SESSION_S, TICKET_S, Sessions
from rbee.queen.keys.access import ADMIN, Client


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="sessions")
def _sessions(clock: Clock) -> Sessions:
    return Sessions(clock)


def headers(token: str, **more: str) -> dict[bytes, bytes]:
    """Give what a browser sends."""
    own = {"cookie": f"theme=dark; rbee_session_q1={token}", "host": "queen:8080", **more}
    return {name.replace("_", "-").encode(): value.encode() for name, value in own.items()}


def test_a_ticket_is_good_once(sessions: Sessions) -> None:
    """It becomes one session of its client; used again, or made up, it is none."""
    ticket = sessions.ticket("anna")
    begun = sessions.redeem(ticket)
    assert begun is not None
    assert (begun[1].client, sessions.find(begun[0])) == ("anna", begun[1])
    assert sessions.redeem(ticket) is None
    assert sessions.redeem("made up") is None
    assert sessions.redeem("") is None


def test_tickets_and_sessions_have_an_end(sessions: Sessions, clock: Clock) -> None:
    """A minute for a ticket, twelve hours for a session."""
    late = sessions.ticket("anna")
    token, _ = sessions.begin("anna")
    clock.now += TICKET_S
    assert sessions.redeem(late) is None
    assert sessions.find(token) is not None
    clock.now += SESSION_S
    assert sessions.find(token) is None
    assert sessions.list() == []


def test_there_are_never_too_many(sessions: Sessions) -> None:
    """The oldest give way, so that whoever asks for tickets for ever costs nothing."""
    tickets = [sessions.ticket("anna") for _ in range(MAX_TICKETS + 1)]
    assert sessions.redeem(tickets[0]) is None
    assert sessions.redeem(tickets[1]) is not None
    tokens = [sessions.begin("anna")[0] for _ in range(MAX_SESSIONS + 1)]
    assert sessions.find(tokens[0]) is None
    assert len(sessions.list()) == MAX_SESSIONS


def test_a_session_is_ended_by_its_id_and_with_its_key(sessions: Sessions) -> None:
    """The id is no secret; a key that is revoked takes its sessions and tickets with it, and no other ones."""
    token, session = sessions.begin("anna")
    assert sessions.end(session.id)
    assert not sessions.end(session.id)
    assert sessions.find(token) is None
    own, ticket, other = sessions.begin("anna")[0], sessions.ticket("anna"), sessions.begin("berta")[0]
    sessions.end_of("anna")
    assert (sessions.find(own), sessions.redeem(ticket)) == (None, None)
    assert sessions.find(other) is not None


def test_a_session_has_the_rights_that_its_key_has_now(sessions: Sessions) -> None:
    """Changed rights count at once, and without the key there is nobody."""
    clients = {"anna": Client("anna", frozenset(Right))}
    cookies = SessionCookies(sessions, clients.get, "q1")
    sent = headers(sessions.begin("anna")[0])
    found = cookies.caller("GET", sent)
    assert found is not None
    assert found.operates
    clients["anna"] = Client("anna")
    found = cookies.caller("GET", sent)
    assert found is not None
    assert not found.operates
    del clients["anna"]
    assert cookies.caller("GET", sent) is None


@pytest.mark.parametrize("cookie", ["", "rbee_session_q1=", "rbee_session_q1=x", "other=1", "=;;=", "rbee_session_q1"])
def test_another_cookie_is_nobody(sessions: Sessions, cookie: str) -> None:
    """Whatever is sent as a cookie, it is a session that was begun or none."""
    sessions.begin("operator")
    cookies = SessionCookies(sessions, lambda _: ADMIN, "q1")
    assert cookies.caller("GET", {b"cookie": cookie.encode()}) is None
    assert cookies.caller("POST", {b"cookie": cookie.encode()}) is None


@pytest.mark.parametrize("other", ['a={"x":1}', "x[y]=1", "é=1", 'a="un', "a b=c", "=", "rbee_session_q2=other"])
def test_the_cookies_of_other_programs_do_no_harm(sessions: Sessions, other: str) -> None:
    """A browser sends those of every port of the host, other queens' too; whatever their form, the session is found."""
    token, session = sessions.begin("operator")
    cookies = SessionCookies(sessions, lambda _: ADMIN, "q1")
    for text in (f"{other}; rbee_session_q1={token}", f"rbee_session_q1={token}; {other}"):
        assert cookies.session({b"cookie": text.encode()}) is session


@pytest.mark.parametrize(
    ("method", "more", "reason"),
    [
        ("POST", {}, "it lacks the header x-rbee-csrf"),
        ("POST", {"x_rbee_csrf": "guessed"}, "it lacks the header x-rbee-csrf"),
        ("DELETE", {"origin": "https://evil.example", "x_rbee_csrf": "own"}, "a page of another origin"),
        ("PUT", {"origin": "", "x_rbee_csrf": "own"}, "a page of another origin"),
        ("PUT", {"origin": "null", "x_rbee_csrf": "own"}, "a page of another origin"),
        ("PUT", {"origin": "http://[", "x_rbee_csrf": "own"}, "a page of another origin"),
        ("POST", {"origin": "http://queen:8081", "x_rbee_csrf": "own"}, "a page of another origin"),
        ("GET", {"sec_fetch_site": "cross-site"}, "a page of another site"),
        ("POST", {"sec_fetch_site": "same-site", "x_rbee_csrf": "own"}, "a page of another site"),
    ],
)
def test_another_page_cannot_act(sessions: Sessions, method: str, more: dict[str, str], reason: str) -> None:
    """Even where its request came with the cookie, it is refused, with the reason."""
    token, session = sessions.begin("operator")
    cookies = SessionCookies(sessions, lambda _: ADMIN, "q1")
    sent = {name: session.csrf if value == "own" else value for name, value in more.items()}
    with pytest.raises(RbeeError) as refusal:
        cookies.caller(method, headers(token, **sent))
    assert refusal.value.code is ErrorCode.FORBIDDEN
    assert reason in refusal.value.message
    assert ("X-Forwarded-Host" in (refusal.value.hint or "")) is (reason == "a page of another origin")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"origin": "http://queen:8080", "sec_fetch_site": "same-origin"},
        {"origin": "https://rbee.example", "x_forwarded_host": "rbee.example"},
        {"origin": "https://rbee.example", "x_forwarded_host": "rbee.example, inner.example"},
    ],
)
def test_the_own_page_can_act(sessions: Sessions, more: dict[str, str]) -> None:
    """With the token of its session, from the queen's own address or that of the proxy before it."""
    token, session = sessions.begin("operator")
    cookies = SessionCookies(sessions, lambda _: ADMIN, "q1")
    assert cookies.caller("POST", headers(token, x_rbee_csrf=session.csrf, **more)) is ADMIN
    assert cookies.caller("GET", headers(token, sec_fetch_site="none")) is ADMIN
