"""Whose queen it is: one that runs already is used and left alone, one that is missing is started and ended here."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rbee import __version__
from rbee.client.blocking import split_url
from rbee.client.queen import QueenClient
from rbee.client.retry import Retries
from rbee.config.paths import storage_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.keeper.fleet.registration import register_all
from rbee.keeper.queen import receipt
from rbee.keeper.queen.process import ChildQueen
from rbee.keeper.session import Session
from rbee.keeper.settings import Settings

_PROBE_CONNECT_S = 2.0
_PROBE_ANSWER_S = 5.0
_PROBE_AGAIN = 3
_POLL_S = 0.1
_END_LIMIT_S = 15.0


class QueenHandle:
    """A queen for the time of one command; `own` tells whether it ends with the command.

    `started` are the machines whose hives were started for this command, and end with it if the queen does.
    """

    def __init__(self, client: QueenClient, *, own: bool) -> None:
        self.client = client
        self.own = own
        self.started: list[str] = []


def probe(settings: Settings) -> str | None:
    """Ask who listens at the queen's address: her version, or None if nobody listens.

    Raises RbeeError: INVALID_RESPONSE if it is not a queen, CONNECTION_TIMEOUT if it does not answer.
    """
    for attempt in range(_PROBE_AGAIN):
        if not _listens(settings.queen_url):
            return None
        try:
            health = QueenClient(settings.queen_url, None, retries=Retries(())).health(patience_s=_PROBE_ANSWER_S)
        except RbeeError as error:
            # One that is just ending may close the connection: look again before judging.
            if error.code is ErrorCode.CONNECTION_TIMEOUT or attempt + 1 == _PROBE_AGAIN:
                raise _not_a_queen(settings, error) from error
            time.sleep(_POLL_S)
            continue
        if health.get("status") == "alive" and isinstance(health.get("version"), str):
            return str(health["version"])
        break
    raise _not_a_queen(settings, None)


def serves(settings: Settings) -> bool:
    """Return whether a queen answers by now; one that has bound her port and is still busy starting does not."""
    try:
        return probe(settings) is not None
    except RbeeError as error:
        if error.code is not ErrorCode.CONNECTION_TIMEOUT:
            raise
        return False


@contextmanager
def queen_for(session: Session) -> Iterator[QueenHandle]:
    """Return a queen: the one that runs, or one of our own, which is ended with the context."""
    settings = session.settings
    version = probe(settings)
    own = None
    if version is None:
        with start_lock(session):
            version = probe(settings)
            if version is None:
                own = _start_child(session)
    if version is not None:
        check_version(version, settings)
        session.out.say(f"Using the queen that runs at {settings.queen_url}", "👑")
    queen = QueenHandle(session.queen(), own=own is not None)
    try:
        if own is not None:
            register_all(session, queen.client)
        yield queen
    finally:
        if own is not None:
            _stop_child(session, own, queen.started)


def check_version(version: str, settings: Settings) -> None:
    """Refuse a queen of another major or minor version."""
    if version.split(".")[:2] != __version__.split(".")[:2]:
        raise RbeeError(
            ErrorCode.VERSION_MISMATCH,
            f"This rbee-keeper is {__version__}, the queen at {settings.queen_url} is {version}.",
            details={"keeper": __version__, "queen": version},
            hint="Install the same version on both; then: rbee-keeper daemon stop, rbee-keeper daemon start",
        )


@contextmanager
def start_lock(session: Session) -> Iterator[None]:
    """Let one keeper at a time look for a queen and start one."""
    path = session.settings.paths.make(session.settings.paths.run) / "queen-start.lock"
    try:
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            session.out.say("Another rbee-keeper is starting the queen; waiting for it", "⏳")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def wait_until_gone(settings: Settings, limit_s: float) -> bool:
    """Wait until nobody listens at the queen's address; return whether that came within the limit."""
    deadline = time.monotonic() + limit_s
    while _listens(settings.queen_url):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _start_child(session: Session) -> ChildQueen:
    session.out.say(f"No queen runs at {session.settings.queen_url}; starting one for this command", "👑")
    own = ChildQueen(session.settings)
    try:
        session.queen()  # imports what it takes to ask her while she starts
        own.wait_until_serving()
    except BaseException:
        own.kill()
        raise
    return own


def _stop_child(session: Session, own: ChildQueen, started: list[str]) -> None:
    """End our queen in order; whatever goes wrong on the way, she is gone afterwards.

    Hives of other machines that ran before this command go on; what the queen started there ends.
    """
    session.out.say("Stopping the queen and all that is hers", "🧹")
    answer = None
    try:
        answer = session.queen().shutdown(when_idle=True, hives=started)
        if not own.wait_until_gone(_END_LIMIT_S):
            session.out.warn(f"the queen (process {own.pid}) did not end in time and was cut off.")
    except RbeeError as error:
        session.out.warn(f"the queen did not end in order: {error.message}")
    finally:
        own.kill()
    if answer is not None:
        for line in receipt.summary_lines(receipt.verify(answer)):
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
    why = "does not answer" if error is not None and error.code is ErrorCode.CONNECTION_TIMEOUT else "is not a queen"
    return RbeeError(
        ErrorCode.INVALID_RESPONSE if why == "is not a queen" else ErrorCode.CONNECTION_TIMEOUT,
        f"Something listens at {settings.queen_url}, but it {why}.",
        details={"url": settings.queen_url},
        hint=f"Stop what listens on port {port}, or use another: RBEE_QUEEN_URL=http://127.0.0.1:PORT "
        "(queen_url in the config file).",
    )
