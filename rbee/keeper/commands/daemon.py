"""`daemon start`, `daemon stop` and `daemon status`: the queen of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup

if TYPE_CHECKING:
    from rbee.keeper.session import Session


@click.group(cls=KeeperGroup)
def daemon() -> None:
    """Start, stop and show the queen of this machine."""


@daemon.command()
@click.pass_obj
def start(flags: Flags, /) -> None:
    """Start a queen that runs until `daemon stop`.

    A queen that runs already is left alone.
    """
    from rbee.keeper.fleet.registration import register_all
    from rbee.keeper.queen import pid_file
    from rbee.keeper.queen.lifecycle import check_key, check_version, probe, serves, start_lock
    from rbee.keeper.queen.process import PROGRAM, log_path, start_detached
    from rbee.keeper.session import Session

    session = Session(flags)
    settings, out = session.settings, session.out
    with start_lock(session):
        version = probe(settings)
        if version is not None:
            check_version(version, settings)
            check_key(session)
            out.say(f"A queen already runs at {settings.queen_url} (version {version})", "👑")
            _show(session, {"state": "running", "url": settings.queen_url, "version": version, "started": False})
            return
        file = settings.paths.queen_pid
        old = pid_file.read(file)
        if old is not None:
            if pid_file.is_queen(old, PROGRAM):
                raise _not_responding(session, old)
            out.say(f"Removed the stale PID file {file}: process {old} is not a queen", "🧹")
            pid_file.remove(file)
        pid = start_detached(settings, lambda: serves(settings), lambda pid: pid_file.write(file, pid))
    register_all(session, session.queen())
    out.say(f"Started the queen; its log is {log_path(settings)}", "👑")
    out.say("Next: rbee-keeper infer --model demo --prompt TEXT; to stop it: rbee-keeper daemon stop")
    _show(session, {"state": "running", "url": settings.queen_url, "pid": pid, "started": True})


@daemon.command()
@click.pass_obj
def stop(flags: Flags, /) -> None:
    """Stop the queen, its hives and their workers.

    Prints what was stopped and what, if anything, is left. The exit code is 1 if something is left.
    """
    from rbee.contracts.errors import ErrorCode
    from rbee.errors import RbeeError
    from rbee.keeper.queen import pid_file, receipt
    from rbee.keeper.queen.lifecycle import probe
    from rbee.keeper.queen.process import PROGRAM
    from rbee.keeper.queen.stop import kill_unresponsive_queen, stop_queen
    from rbee.keeper.session import Session
    from rbee.keeper.ui.errors import AlreadyReportedError

    session = Session(flags)
    settings, out = session.settings, session.out
    file = settings.paths.queen_pid
    pid = pid_file.read(file)
    alive = pid is not None and pid_file.is_queen(pid, PROGRAM)
    try:
        answers = probe(settings) is not None
    except RbeeError as error:
        if not alive or error.code is not ErrorCode.CONNECTION_TIMEOUT:
            raise
        answers = False
    if not answers and not alive:
        if pid is not None:
            pid_file.remove(file)
            out.say(f"Removed the stale PID file {file}: process {pid} is not a queen", "🧹")
        out.say(f"No queen runs at {settings.queen_url}")
        _show(session, {"state": "stopped", "stale_pid": pid})
        return
    if not answers and pid is not None:
        left = kill_unresponsive_queen(session, pid)
        if flags.json:
            out.data({"state": "running" if left else "stopped", "pid": pid, "left": left})
    else:
        stopped = stop_queen(session, pid if alive else None)
        if flags.json:
            out.data(stopped.data())
        else:
            for line in receipt.detail_lines(stopped):
                out.text(line)
        left = stopped.left
    if left:
        raise AlreadyReportedError
    pid_file.remove(file)


@daemon.command()
@click.pass_obj
def status(flags: Flags, /) -> None:
    """Show whether the queen is running, stopped or stale.

    Stale means that there is a PID file, but no queen. The exit code is 0 in all three cases; scripts read `state`
    from --json.
    """
    from rbee.keeper.queen import pid_file
    from rbee.keeper.queen.lifecycle import probe
    from rbee.keeper.queen.process import PROGRAM
    from rbee.keeper.session import Session

    session = Session(flags)
    settings = session.settings
    pid = pid_file.read(settings.paths.queen_pid)
    if probe(settings) is not None:
        _show(session, {"state": "running", "url": settings.queen_url, **session.queen().status()})
    elif pid is None:
        _show(session, {"state": "stopped", "url": settings.queen_url})
    elif pid_file.is_queen(pid, PROGRAM):
        raise _not_responding(session, pid)
    else:
        stale = str(settings.paths.queen_pid)
        _show(session, {"state": "stale", "url": settings.queen_url, "pid": pid, "pid_file": stale})


def _not_responding(session: Session, pid: int) -> Exception:
    from rbee.contracts.errors import ErrorCode
    from rbee.errors import RbeeError
    from rbee.keeper.queen.process import log_path

    return RbeeError(
        ErrorCode.CONNECTION_TIMEOUT,
        f"A queen runs as process {pid}, but does not respond at {session.settings.queen_url}; "
        f"its log is {log_path(session.settings)}.",
        details={"pid": pid},
        hint="If it listens at another address, set queen_url; to stop it: rbee-keeper daemon stop",
    )


def _show(session: Session, now: dict[str, Any]) -> None:
    """Print the state: JSON for scripts, a sentence for people."""
    from rbee.keeper.queen.receipt import count

    out = session.out
    if out.json:
        out.data(now)
        return
    state = now["state"]
    if state == "running":
        text = f"running at {now['url']}"
        if now.get("pid"):
            text += f", process {now['pid']}"
        if "hives_connected" in now:
            from time import time

            from rbee.keeper.ui.output import ago_text

            text += f", version {now['version']}, started {ago_text(now.get('started_unix'), time())}: "
            text += ", ".join(
                [
                    count(now["hives_connected"], "hive"),
                    count(now["workers"], "worker"),
                    count(now["tasks_running"], "task") + " running",
                ]
            )
            if now.get("ephemeral"):
                text += " (started by another rbee-keeper command; it stops with that command)"
        out.text(text)
    elif state == "stale":
        out.text(f"stale: process {now['pid']} in {now['pid_file']} is not a queen")
        out.say("Next: rbee-keeper daemon start")
    else:
        out.text("stopped")
