"""The console: its page, signing in, and the sessions of browsers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from rbee.contracts.console import ConsoleTicket, OpenSession, OpenSessions, SessionInfo, SignIn
from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.json_body import JsonBody
from rbee.errors import RbeeError
from rbee.queen.console.cookies import Headers, check_origin, check_site
from rbee.queen.console.files import page, page_file
from rbee.queen.console.sessions import TICKET_S, Session
from rbee.queen.daemon import Queen
from rbee.queen.keys.access import Client
from rbee.queen.routes.dependencies import ClientDep, QueenDep

router = APIRouter()
operators = APIRouter(prefix="/v2/console/sessions")


@router.get("/", response_class=PlainTextResponse)
async def document(queen: QueenDep, request: Request) -> Response:
    """Return the page to a browser, and to anybody else what Ollama's clients look for before anything else."""
    if "text/html" in request.headers.get("accept", ""):
        return page(_open(queen, dict(request.scope["headers"])))
    return PlainTextResponse("Ollama is running")


@router.get("/console/{version}/{name:path}", response_class=Response, include_in_schema=False)
async def file(version: str, name: str) -> Response:
    """Return a file of the page."""
    found = page_file(version, name)
    if found is None:
        raise RbeeError(
            ErrorCode.ROUTE_NOT_FOUND, f"The console has no file {name[:100]!r} in version {version[:20]!r}."
        )
    return found


@router.post("/v2/console/tickets")
async def ticket(queen: QueenDep, client: ClientDep, request: Request) -> ConsoleTicket:
    """Return a ticket for one session of a browser with the rights of the caller's key, which a session is none."""
    if queen.console.cookies.session(dict(request.scope["headers"])) is not None:
        what = "A session of a browser makes no tickets: with them it would never end."
        raise RbeeError(ErrorCode.FORBIDDEN, what, hint="Send a key instead of the cookie: rbee-keeper console")
    return ConsoleTicket(ticket=queen.console.sessions.ticket(client.name), expires_s=TICKET_S)


@router.post("/v2/console/sign-in")
async def sign_in(queen: QueenDep, body: JsonBody[SignIn], request: Request, response: Response) -> SessionInfo:
    """Begin a session with a ticket, or with a key; the cookie that it is known by comes with the answer."""
    headers = dict(request.scope["headers"])
    check_site(headers)  # another page would sign a browser in as somebody else, who then sees what is done there
    check_origin(headers)
    begun = queen.console.sign_in(ticket=body.ticket, key=body.key)
    client = None if begun is None else queen.console.client_named(begun[1].client)
    if begun is None or client is None:
        what = "The ticket is not, or no longer, good." if body.ticket else "The queen does not accept this key."
        hint = "Get a new link: rbee-keeper console"
        raise RbeeError(ErrorCode.INVALID_API_KEY, what, hint=hint)
    token, session = begun
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    response.set_cookie(queen.console.cookies.name, token, httponly=True, samesite="strict", secure=secure, path="/")
    return _info(client, session)


@router.get("/v2/console/session")
async def session(queen: QueenDep, request: Request) -> SessionInfo:
    """Return whose session the browser's is, and what its page sends with whatever it changes; nobody's has no name."""
    headers = dict(request.scope["headers"])
    return SessionInfo() if queen.console.cookies.caller(request.method, headers) is None else _open(queen, headers)


@router.delete("/v2/console/session", status_code=204, response_class=Response)
async def sign_out(queen: QueenDep, request: Request) -> Response:
    """End the browser's session."""
    headers = dict(request.scope["headers"])
    queen.console.cookies.caller(request.method, headers)
    found = queen.console.cookies.session(headers)
    if found is not None:
        queen.console.sessions.end(found.id)
    response = Response(status_code=204)
    response.delete_cookie(queen.console.cookies.name, path="/")
    return response


@operators.get("")
async def sessions(queen: QueenDep, request: Request) -> OpenSessions:
    """List the sessions of browsers."""
    own = queen.console.cookies.session(dict(request.scope["headers"]))
    return OpenSessions(
        sessions=[
            OpenSession(
                id=each.id,
                client=each.client,
                own=each is own,
                began_unix=each.began_unix,
                until_unix=each.until_unix,
            )
            for each in queen.console.sessions.list()
        ]
    )


@operators.delete("/{id_}", status_code=204, response_class=Response)
async def end(queen: QueenDep, id_: str) -> None:
    """End a session of a browser; one that is over is ignored."""
    queen.console.sessions.end(id_)


def _open(queen: Queen, headers: Headers) -> SessionInfo:
    """Return the session of a browser's cookie; nobody's where there is none."""
    found = queen.console.cookies.session(headers)
    client = None if found is None else queen.console.client_named(found.client)
    return SessionInfo() if client is None or found is None else _info(client, found)


def _info(client: Client, session: Session) -> SessionInfo:
    return SessionInfo(
        client=client.name, rights=sorted(client.rights), csrf=session.csrf, until_unix=session.until_unix
    )
