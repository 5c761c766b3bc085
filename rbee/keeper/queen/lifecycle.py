"""Use the queen that runs and leave it alone; where none runs, start one for the command and stop it afterwards."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rbee import __version__
from rbee.client.blocking import split_url
from rbee.client.queen import QueenClient
from rbee.client.retry import Retries
from rbee.config.file_lock import file_lock
from rbee.contracts.errors import ErrorCode
from rbee.contracts.version import is_compatible
from rbee.errors import RbeeError
from rbee.keeper.fleet.registration import register_all
from rbee.keeper.queen import receipt
from rbee.keeper.queen.process import ChildQueen
from rbee.keeper.session import Session
from rbee.keeper.settings import Settings

_PROBE_CONNECT_S = 2.0
_PROBE_ANSWER_S = 5.0
_PROBE_ATTEMPTS = 3
_POLL_S = 0.1
_STOP_LIMIT_S = 15.0


class QueenHandle:
    """A queen for the time of one command; `owned` is whether it ends with the command.

    `started_hives` are the machines whose hives were started for this command, and stop with it if the queen does.
    """

    def __init__(self, client: QueenClient, *, owned: bool) -> None:
        self.client = client
        self.owned = owned
        self.started_hives: list[str] = []


def probe(settings: Settings) -> str | None:
    """Return the version of the queen at its address, None if nothing listens there.

    Raises RbeeError: INVALID_RESPONSE if it is not a queen, CONNECTION_TIMEOUT if it does not respond.
    """
    for attempt in range(_PROBE_ATTEMPTS):
        if not _listens(settings.queen_url):
            return None
        try:
            health = QueenClient(settings.queen_url, None, retries=Retries(())).health(timeout_s=_PROBE_ANSWER_S)
        except RbeeError as error:
            # A queen that is just stopping may close the connection: try again before judging.
            if error.code is ErrorCode.CONNECTION_TIMEOUT or attempt + 1 == _PROBE_ATTEMPTS:
                raise _not_a_queen(settings, error) from error
            time.sleep(_POLL_S)
            continue
        if health.get("status") == "alive" and isinstance(health.get("version"), str):
            return str(health["version"])
        break
    raise _not_a_queen(settings, None)


def serves(settings: Settings) -> bool:
    """Return whether a queen responds by now; one that has bound its port and is still starting does not."""
    try:
        return probe(settings) is not None
    except RbeeError as error:
        if error.code is not ErrorCode.CONNECTION_TIMEOUT:
            raise
        return False


@contextmanager
def queen_for(session: Session) -> Iterator[QueenHandle]:
    """Yield the queen that runs, or start one that is stopped with the context."""
    settings = session.settings
    version = probe(settings)
    child = None
    if version is None:
        with start_lock(session):
            version = probe(settings)
            if version is None:
                child = _start_child(session)
    if version is not None:
        check_version(version, settings)
        session.out.say(f"Using the queen at {settings.queen_url}", "👑")
    queen = QueenHandle(session.queen(), owned=child is not None)
    try:
        if child is not None:
            register_all(session, queen.client)
        yield queen
    finally:
        if child is not None:
            _stop_child(session, child, queen.started_hives)


def check_version(version: str, settings: Settings) -> None:
    """Raise RbeeError VERSION_MISMATCH for a queen of another major or minor version."""
    if not is_compatible(__version__, version):
        raise RbeeError(
            ErrorCode.VERSION_MISMATCH,
            f"This rbee-keeper is version {__version__}, the queen at {settings.queen_url} is version {version}.",
            details={"keeper": __version__, "queen": version},
            hint="Install the same version of both; then: rbee-keeper daemon stop, rbee-keeper daemon start",
        )


def check_key(session: Session) -> None:
    """Raise RbeeError PORT_IN_USE where the queen that runs has another key: it is another user's."""
    try:
        session.queen().status()
    except RbeeError as error:
        if error.code not in (ErrorCode.INVALID_API_KEY, ErrorCode.MISSING_API_KEY):
            raise
        url = session.settings.queen_url
        raise RbeeError(
            ErrorCode.PORT_IN_USE,
            f"The queen at {url} is not yours: it does not accept the key of {session.settings.paths.home}.",
            details={"url": url},
            hint="Use another port: RBEE_QUEEN_URL=http://127.0.0.1:PORT (queen_url in the config file); "
            "or its key: RBEE_API_KEY.",
        ) from error


@contextmanager
def start_lock(session: Session) -> Iterator[None]:
    """Hold the lock under which one keeper at a time looks for a queen and starts one."""
    path = session.settings.paths.make(session.settings.paths.run) / "queen-start.lock"
    with file_lock(path, lambda: session.out.say("Waiting for another rbee-keeper that is starting the queen", "⏳")):
        yield


def wait_until_gone(settings: Settings, limit_s: float) -> bool:
    """Wait until nothing listens at the queen's address; return whether that came within the limit."""
    deadline = time.monotonic() + limit_s
    while _listens(settings.queen_url):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _start_child(session: Session) -> ChildQueen:
    session.out.say(f"No queen runs at {session.settings.queen_url}; starting one for this command", "👑")
    child = ChildQueen(session.settings)
    try:
        session.queen()  # imports the client while the queen starts
        child.wait_until_serving()
    except BaseException:
        child.kill()
        raise
    return child


def _stop_child(session: Session, child: ChildQueen, started_hives: list[str]) -> None:
    """Stop our queen in order, or kill it where that fails.

    Hives of other machines that ran before this command continue; what the queen started there stops.
    """
    session.out.say("Stopping the queen, its hive and its workers", "🧹")
    cascade = None
    try:
        cascade = session.queen().shutdown(when_idle=True, hives=started_hives)
        if not child.wait_until_gone(_STOP_LIMIT_S):
            session.out.warn(f"the queen (process {child.pid}) did not stop within {_STOP_LIMIT_S:.0f} s; killing it.")
    except RbeeError as error:
        session.out.warn(f"the queen did not shut down cleanly: {error.message}")
    finally:
        child.kill()
    if cascade is not None:
        for line in receipt.summary_lines(receipt.verify(cascade)):
            session.out.say(line, "✅")


def _listens(url: str) -> bool:
    at = split_url(url)
    try:
        with socket.create_connection((at.hostname or "", at.port or 0), timeout=_PROBE_CONNECT_S):
            return True
    except OSError:
        return False


def _not_a_queen(settings: Settings, error: RbeeError | None) -> RbeeError:
    port = split_url(settings.queen_url).port
    silent = error is not None and error.code is ErrorCode.CONNECTION_TIMEOUT
    return RbeeError(
        ErrorCode.CONNECTION_TIMEOUT if silent else ErrorCode.INVALID_RESPONSE,
        f"Something listens at {settings.queen_url}, but it {'does not respond' if silent else 'is not a queen'}.",
        details={"url": settings.queen_url},
        hint=f"Stop the program that listens on port {port}, or use another port: RBEE_QUEEN_URL=http://127.0.0.1:PORT "
        "(queen_url in the config file).",
    )
