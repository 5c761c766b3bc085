"""Stop a queen that is not a child of this process: by a request, or by signals where it does not respond."""

from __future__ import annotations

import os
import signal
import time

from rbee.client.blocking import split_url
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.keeper.queen.pid_file import is_gone
from rbee.keeper.queen.receipt import Receipt, verify
from rbee.keeper.session import Session
from rbee.net import is_this_machine

_POLL_S = 0.1
_KILLED_WITHIN_S = 5.0


def stop_queen(session: Session, pid: int | None) -> Receipt:
    """Ask the queen to shut down; return the receipt, checked against the processes of this machine if it ran here."""
    client = session.queen()
    here = is_this_machine(split_url(session.settings.queen_url).hostname or "")
    pids = [each for each in (pid, client.status().get("pid")) if isinstance(each, int)]
    session.out.say("Stopping the queen, its hives and their workers", "🧹")
    cascade = client.shutdown(when_idle=False, timeout_s=session.settings.keeper.stop_timeout_s)
    return verify(cascade, *pids, here=here)


def kill_unresponsive_queen(session: Session, pid: int) -> list[str]:
    """Stop a queen that does not respond: SIGTERM, then SIGKILL. Return a description of what is left."""
    limit = session.settings.keeper.stop_timeout_s
    session.out.say(
        f"The queen (process {pid}) does not respond; sending SIGTERM and waiting up to {limit:.0f} s", "🧹"
    )
    try:
        os.kill(pid, signal.SIGTERM)
        if _ends_within(pid, limit):
            session.out.say(f"Process {pid} ended", "✅")
            return []
        session.out.warn(f"process {pid} did not end within {limit:.0f} s; it is killed.")
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return []
    except PermissionError as error:
        raise RbeeError(
            ErrorCode.PERMISSION_DENIED,
            f"The queen (process {pid}) belongs to another user.",
            hint=f"Stop it as that user, or: sudo kill {pid}",
        ) from error
    if _ends_within(pid, _KILLED_WITHIN_S):
        session.out.say(f"Process {pid} is gone; its local hive ends with it", "✅")
        return []
    session.out.error([f"Error: process {pid} survived SIGKILL.", f"  Next: as root, look at /proc/{pid}/stack."])
    return [f"process {pid} on this machine"]


def _ends_within(pid: int, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not is_gone(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
