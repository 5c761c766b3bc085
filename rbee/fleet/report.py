"""Report the result of a run host by host, from its events and counts, never from an exit code.

Ansible's codes are ambiguous (4 is "unreachable" and "cannot be parsed"), and one host's failure is not the fleet's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.fleet.causes import SSH_PORT, VAULT_HINT, Cause, cause_of
from rbee.fleet.events import Event, HostTask, Outcome, RunCounted, RunError

# The fact by which a machine waits for its turn in a rollout; a run that stops at an earlier one leaves it so.
ROLLOUT: Final = "rbee_hive_rollout"
WAITS: Final = "waits"
_RUN_HINTS: Final = (
    ("vault", VAULT_HINT),
    ("config '", "Correct that variable or the file of Ansible's settings, then run the command again."),
)


class Verdict(StrEnum):
    """The result of a run on one host. `UNFINISHED`: the run ended before or while it worked on the host."""

    DONE = "done"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    UNFINISHED = "unfinished"


@dataclass(slots=True)
class HostReport:
    """One host's part of a run; *facts* are those that its tasks set."""

    host: str
    verdict: Verdict = Verdict.UNFINISHED
    tasks: int = 0
    changed: list[str] = field(default_factory=list)
    last_task: str = ""
    cause: Cause | None = None
    facts: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class RunReport:
    """A whole run: every requested host, and the errors outside any of them."""

    hosts: dict[str, HostReport]
    run_error: str = ""
    canceled: bool = False

    @property
    def succeeded(self) -> bool:
        """Return whether every host is done; a run over no host at all did not succeed."""
        return (
            bool(self.hosts)
            and not self.run_error
            and not self.canceled
            and all(host.verdict is Verdict.DONE for host in self.hosts.values())
        )

    @property
    def changed(self) -> int:
        """Count the changes on all hosts."""
        return sum(len(host.changed) for host in self.hosts.values())

    def error(self) -> RbeeError | None:
        """Return the error of the run: a single host's own cause, or a summary of several; None if all succeeded."""
        if self.succeeded:
            return None
        if self.canceled:
            states = ", ".join(f"{host.host} {host.verdict}" for host in self.hosts.values())
            return RbeeError(ErrorCode.CANCELED, f"The run was canceled. {states}.", hint="Run it again to continue.")
        bad = [host for host in self.hosts.values() if host.verdict is not Verdict.DONE]
        with_cause = [host for host in bad if host.cause is not None]
        if len(with_cause) == 1 and (cause := with_cause[0].cause) is not None:
            host = with_cause[0].host
            others = ", ".join(each.host for each in bad if each.host != host)
            rest = f" Because of that, these were left unchanged: {others}." if others else ""
            return RbeeError(
                cause.code, cause.message + rest, hint=cause.hint, details={"host": host, "task": cause.task}
            )
        if self.run_error and not with_cause:
            return RbeeError(
                ErrorCode.PROVISIONING_FAILED,
                f"Ansible ended before its work was done: {self.run_error}",
                hint=next((hint for mark, hint in _RUN_HINTS if mark in self.run_error.lower()), None),
            )
        if not bad:
            return RbeeError(ErrorCode.PROVISIONING_FAILED, "No host was reached.")
        named = "; ".join(f"{host.host}: {host.cause.code if host.cause else host.verdict}" for host in bad)
        return RbeeError(
            ErrorCode.PROVISIONING_FAILED,
            f"{len(bad)} of {len(self.hosts)} machines failed: {named}.",
            details={
                host.host: {"code": host.cause.code.value, "message": host.cause.message} if host.cause else {}
                for host in bad
            },
        )


class Reporter:
    """Collects a run's events into its report."""

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._hosts = {host: HostReport(host) for host in hosts}
        self._failures: dict[str, list[HostTask]] = {}
        self._run_errors: list[str] = []
        self._counted = False

    @property
    def counted(self) -> bool:
        """Return whether the run came to its end and counted its hosts."""
        return self._counted

    def handle(self, event: Event) -> None:
        """Process one event."""
        if isinstance(event, HostTask):
            self._handle_task(event)
        elif isinstance(event, RunCounted):
            self._counted = True
            for name, counts in event.hosts.items():
                host = self._hosts.setdefault(name, HostReport(name))
                if counts.unreachable:
                    host.verdict = Verdict.UNREACHABLE
                elif counts.failures:
                    host.verdict = Verdict.FAILED
                elif host.facts.get(ROLLOUT) == WAITS:
                    host.verdict = Verdict.UNFINISHED
                else:
                    host.verdict = Verdict.DONE
        elif isinstance(event, RunError) and event.text not in self._run_errors:
            self._run_errors.append(event.text)

    def report(
        self, *, canceled: bool, addresses: Mapping[str, str] | None = None, ports: Mapping[str, int] | None = None
    ) -> RunReport:
        """Build the report so far; *addresses* and *ports* of SSH are for the hints, by host."""
        for name, failures in self._failures.items():
            host = self._hosts[name]
            if host.verdict in (Verdict.FAILED, Verdict.UNREACHABLE) or not self._counted:
                host.cause = cause_of(failures, (addresses or {}).get(name, name), (ports or {}).get(name, SSH_PORT))
        run_error = "" if self._counted and self._hosts else "\n".join(self._run_errors)
        return RunReport(self._hosts, run_error, canceled)

    def _handle_task(self, event: HostTask) -> None:
        host = self._hosts.setdefault(event.host, HostReport(event.host))
        if event.outcome is not Outcome.RETRY:
            host.tasks += 1
            host.last_task = event.task
        host.facts.update(event.facts)
        if event.outcome is Outcome.CHANGED:
            host.changed.append(f"{event.task}: {event.path}" if event.path else event.task)
        elif event.outcome is Outcome.FAILED:
            host.verdict = Verdict.FAILED
            self._failures.setdefault(event.host, []).append(event)
        elif event.outcome is Outcome.UNREACHABLE:
            host.verdict = Verdict.UNREACHABLE
            self._failures.setdefault(event.host, []).append(event)
