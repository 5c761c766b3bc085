"""End a queen that is not this process's child: by asking her, or, where she does not answer, by signals."""

from __future__ import annotations

import os
import signal
import time

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.keeper.queen.pid_file import is_gone
from rbee.keeper.queen.receipt import Receipt, verify
from rbee.keeper.session import Session

_POLL_S = 0.1
_KILLED_WITHIN_S = 5.0


def stop_queen(session: Session, pid: int | None) -> Receipt:
    """Ask the queen to end with all that is hers; return the receipt, checked against the processes here."""
    client = session.queen()
    own = client.status().get("pid")
    pids = [one for one in (pid, own) if isinstance(one, int)]
    session.out.say("Stopping the queen, her hives and their workers", "🧹")
    answer = client.shutdown(when_idle=False, patience_s=session.settings.values["stop_timeout_s"])
    return verify(answer, *pids)


def kill_unresponsive_queen(session: Session, pid: int) -> list[str]:
    """End a queen that does not answer: SIGTERM, then SIGKILL, which her hive notices. Give what is left, in words."""
    limit = session.settings.values["stop_timeout_s"]
    session.out.say(f"The queen (process {pid}) does not answer; sending SIGTERM and waiting up to {limit:.0f} s", "🧹")
    try:
        os.kill(pid, signal.SIGTERM)
        if _ends_within(pid, limit):
            session.out.say(f"Process {pid} ended", "✅")
            return []
        session.out.warn(f"process {pid} did not end within {limit:.0f} s and is killed.")
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return []
    except PermissionError as error:
        raise RbeeError(
            ErrorCode.PERMISSION_DENIED,
            f"The queen (process {pid}) belongs to another user.",
            hint=f"Stop her as that user, or: sudo kill {pid}",
        ) from error
    if _ends_within(pid, _KILLED_WITHIN_S):
        session.out.say(f"Process {pid} is gone; her local hive ends with her", "✅")
        return []
    session.out.error([f"Error: process {pid} survived SIGKILL.", f"  Next: look at /proc/{pid}/stack as root."])
    return [f"process {pid} on this machine"]


def _ends_within(pid: int, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not is_gone(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
