"""Parse the events of a playbook run into values: one for each task begun and each task finished on a host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_MESSAGE_LIMIT = 4000


class Outcome(StrEnum):
    """How a task ended on one host."""

    OK = "ok"
    CHANGED = "changed"
    SKIPPED = "skipped"
    FAILED = "failed"
    IGNORED = "ignored"
    UNREACHABLE = "unreachable"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class PlayStarted:
    """A play begins."""

    play: str


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """A task begins on all hosts of the play; *role* is empty for a task of the playbook itself."""

    task: str
    role: str


@dataclass(frozen=True, slots=True)
class HostStarted:
    """A task begins on one host."""

    host: str
    task: str


@dataclass(frozen=True, slots=True)
class HostTask:
    """A task has ended on one host.

    *message* is the reason of a failure, *path* the file that it changed, *facts* the facts that it set, *here* whether
    it ran on the controller for that host.
    """

    host: str
    task: str
    role: str
    outcome: Outcome
    message: str = ""
    module: str = ""
    path: str = ""
    seconds: float = 0.0
    here: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of Ansible for one host."""

    ok: int = 0
    changed: int = 0
    unreachable: int = 0
    failures: int = 0
    skipped: int = 0
    rescued: int = 0


@dataclass(frozen=True, slots=True)
class RunCounted:
    """The run reached its end, and these are the counts of its hosts."""

    hosts: Mapping[str, Counts]


@dataclass(frozen=True, slots=True)
class RunError:
    """An error of Ansible outside any task: a playbook that cannot be parsed, an inventory without hosts."""

    text: str


Event = PlayStarted | TaskStarted | HostStarted | HostTask | RunCounted | RunError

_OUTCOMES = {
    "runner_on_ok": Outcome.OK,
    "runner_on_failed": Outcome.FAILED,
    "runner_on_unreachable": Outcome.UNREACHABLE,
    "runner_on_skipped": Outcome.SKIPPED,
    "runner_retry": Outcome.RETRY,
}


_RUN_ERROR = re.compile(r"^(?:ERROR|\[ERROR\])[:!]+ ?", re.MULTILINE)


def parse(raw: Mapping[str, Any]) -> Event | None:
    """Parse an event of ansible-runner; return None for those that are not used."""
    kind = raw.get("event", "")
    data = raw.get("event_data") or {}
    if kind == "playbook_on_play_start":
        return PlayStarted(str(data.get("name") or data.get("play") or ""))
    if kind == "playbook_on_task_start":
        return TaskStarted(str(data.get("task", "")), str(data.get("role") or ""))
    if kind == "runner_on_start":
        return HostStarted(str(data.get("host", "")), str(data.get("task", "")))
    if kind in _OUTCOMES:
        return _host_task(_OUTCOMES[kind], data)
    if kind == "playbook_on_stats":
        return RunCounted(_counts(data))
    if kind in ("error", "warning") or (kind == "verbose" and "ERROR" in str(raw.get("stdout", ""))):
        text = reason_in(str(raw.get("stdout", "")))
        return RunError(text) if text and kind != "warning" else None
    return None


def reason_in(output: str) -> str:
    """Return the reason for which Ansible ended, from its *output*: its last error, without the traceback behind it."""
    last = max((found.end() for found in _RUN_ERROR.finditer(output)), default=0)
    return output[last:].partition("\n\nTraceback ")[0].strip()[:_MESSAGE_LIMIT]


def _host_task(outcome: Outcome, data: Mapping[str, Any]) -> HostTask:
    result = data.get("res")
    result = result if isinstance(result, Mapping) else {}
    if outcome is Outcome.OK and result.get("changed"):
        outcome = Outcome.CHANGED
    if outcome is Outcome.FAILED and data.get("ignore_errors"):
        outcome = Outcome.IGNORED
    facts = result.get("ansible_facts")
    return HostTask(
        host=str(data.get("host", "")),
        task=str(data.get("task", "")),
        role=str(data.get("role") or ""),
        outcome=outcome,
        message=_message(result) if outcome in (Outcome.FAILED, Outcome.UNREACHABLE, Outcome.IGNORED) else "",
        module=str(data.get("resolved_action") or data.get("task_action") or ""),
        path=_path(result) if outcome is Outcome.CHANGED else "",
        seconds=float(data.get("duration") or 0.0),
        here=_ran_here(result),
        facts=facts if isinstance(facts, Mapping) else {},
    )


def _ran_here(result: Mapping[str, Any]) -> bool:
    """Return whether a task was done by the controller: delegated to it, or stopped by what it lacks itself."""
    delegated = result.get("_ansible_delegated_vars")
    local = isinstance(delegated, Mapping) and delegated.get("ansible_connection") == "local"
    return local or "on the Ansible Controller" in str(result.get("msg", ""))


def _path(result: Mapping[str, Any]) -> str:
    """Find the file that was changed; in check mode only the comparison names it."""
    compared = result.get("diff")
    first = compared[0] if isinstance(compared, list) and compared else compared
    header = first.get("before_header") if isinstance(first, Mapping) else ""
    return str(result.get("path") or result.get("dest") or header or "")


def _message(result: Mapping[str, Any]) -> str:
    """Return the reason of a failure: of the task, or of the first of its items that failed."""
    items = result.get("results")
    if isinstance(items, list):
        for item in items:
            if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable")):
                return _message(item)
    # A module that could not start leaves its message only in the last three.
    parts = [str(result.get(key) or "") for key in ("msg", "module_stderr", "module_stdout", "stderr")]
    return "\n".join(part.strip() for part in parts if part.strip())[:_MESSAGE_LIMIT]


def _counts(data: Mapping[str, Any]) -> dict[str, Counts]:
    def number(key: str, host: str) -> int:
        return int((data.get(key) or {}).get(host, 0))

    hosts = sorted({host for key in ("ok", "dark", "failures", "processed") for host in (data.get(key) or {})})
    return {
        host: Counts(
            ok=number("ok", host),
            changed=number("changed", host),
            unreachable=number("dark", host),
            failures=number("failures", host),
            skipped=number("skipped", host),
            rescued=number("rescued", host),
        )
        for host in hosts
    }
