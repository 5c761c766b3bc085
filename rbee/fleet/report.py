"""Report the result of a run host by host, from its events and counts, never from an exit code.

Ansible's codes are ambiguous (4 is "unreachable" and "cannot be parsed"), and one host's failure is not the fleet's.
A role fails with `CODE: sentence`. Failures of ssh are told apart by its messages, here and nowhere else, because it
reports nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from rbee.contracts.errors import ERRORS, ErrorCode
from rbee.errors import RbeeError, name_node
from rbee.fleet.events import Event, HostTask, Outcome, RunCounted, RunError

SSH_PORT: Final = 22
# The fact by which a machine waits for its turn in a rollout; a run that stops at an earlier one leaves it so.
ROLLOUT: Final = "rbee_hive_rollout"
WAITS: Final = "waits"


class Verdict(StrEnum):
    """The result of a run on one host. `UNFINISHED`: the run ended before or while it worked on the host."""

    DONE = "done"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Cause:
    """The first failure on a host: its task, its reason, and the next step.

    `asks_trust` is whether all that lacks is that somebody accepts the host's key.
    """

    code: ErrorCode
    message: str
    hint: str
    task: str
    asks_trust: bool = False


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


VAULT_HINT = "Give the vault's password: name its file in ANSIBLE_VAULT_PASSWORD_FILE, then run the command again."
_RUN_HINTS = (
    ("vault", VAULT_HINT),
    ("config '", "Correct that variable or the file of Ansible's settings, then run the command again."),
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


_OWN = re.compile(r"\b([A-Z][A-Z_]+): ")

# Messages of the ssh program on standard error, in lower case; checked against OpenSSH 9.2 and 8.4.
_SSH_MESSAGES: tuple[tuple[str, ErrorCode], ...] = (
    ("remote host identification has changed", ErrorCode.HOST_KEY_UNKNOWN),
    ("host key verification failed", ErrorCode.HOST_KEY_UNKNOWN),
    ("no matching host key", ErrorCode.HOST_KEY_UNKNOWN),
    ("could not resolve hostname", ErrorCode.SSH_HOST_UNKNOWN),
    ("name or service not known", ErrorCode.SSH_HOST_UNKNOWN),
    ("connection refused", ErrorCode.SSH_REFUSED),
    ("unprotected private key file", ErrorCode.SSH_AUTH_FAILED),
    ("permission denied", ErrorCode.SSH_AUTH_FAILED),
    ("too many authentication failures", ErrorCode.SSH_AUTH_FAILED),
    ("timed out", ErrorCode.SSH_TIMEOUT),
    ("no route to host", ErrorCode.SSH_TIMEOUT),
    ("network is unreachable", ErrorCode.SSH_TIMEOUT),
    ("connection reset", ErrorCode.SSH_TIMEOUT),
    ("connection closed", ErrorCode.SSH_TIMEOUT),
    ("timeout, server", ErrorCode.SSH_TIMEOUT),
)


# Messages of Ansible's own ssh connection about sudo.
_SUDO_MESSAGES: tuple[tuple[str, ErrorCode], ...] = (
    ("incorrect sudo password", ErrorCode.SUDO_AUTH_FAILED),
    ("missing sudo password", ErrorCode.SUDO_REFUSED),
    ("a password is required", ErrorCode.SUDO_REFUSED),
    ("is not in the sudoers file", ErrorCode.SUDO_REFUSED),
    ("privilege escalation prompt", ErrorCode.SUDO_REFUSED),
)


_NO_SPACE: Final = "No space left on device"


def cause_of(failures: list[HostTask], address: str, port: int = SSH_PORT) -> Cause:
    """Find the first cause among a host's failures; messages of the roles go before those of Ansible.

    A task that a role rescues fails first with little detail; the role then fails with the reason.
    """
    for failure in reversed(failures):
        if (found := _OWN.match(failure.message)) and found[1] in ErrorCode.__members__:
            code = ErrorCode(found[1])
            return Cause(code, failure.message[found.end() :].strip(), _hint(code, failure.host), failure.task)
    first = failures[0]
    return _cause_of_sudo(first, address) or _cause_here(first) or _cause_of_ansible(first, address, port)


def _cause_of_sudo(failure: HostTask, address: str) -> Cause | None:
    words = failure.message.lower()
    code = next((code for part, code in _SUDO_MESSAGES if part in words), None)
    if code is None:
        return None
    wrong = code is ErrorCode.SUDO_AUTH_FAILED
    what = "rejects the password for root" if wrong else "does not let this user work as root"
    message = f"sudo on {failure.host} ({address}) {what}."
    return Cause(code, message, _hint(code, failure.host), failure.task)


def _cause_here(failure: HostTask) -> Cause | None:
    """Return the cause where a task failed on the controller."""
    if not failure.here:
        return None
    code = ErrorCode.DISK_FULL if _NO_SPACE in failure.message else ErrorCode.PROVISIONING_FAILED
    why = _first_lines(failure.message) or "no reason given"
    message = f"'{failure.task}' for {failure.host} failed on this machine: {why}"
    return Cause(code, message, ERRORS[ErrorCode.PROVISIONING_FAILED].hint, failure.task)


def _cause_of_ansible(failure: HostTask, address: str, port: int) -> Cause:
    """Return the cause of a failure on the machine itself, or on the way there."""
    host, words = failure.host, failure.message.lower()
    if failure.outcome is Outcome.UNREACHABLE:
        return _unreachable(failure, address, port)
    if "requires a minimum of python version" in words:
        code, message = ErrorCode.PYTHON_TOO_OLD, f"The Python of {host} is too old even for Ansible."
    elif "interpreter" in words and "not found" in words:
        code, message = ErrorCode.PYTHON_MISSING, f"{host} has no Python."
    else:
        code = ErrorCode.DISK_FULL if _NO_SPACE in failure.message else ErrorCode.SSH_COMMAND_FAILED
        message = f"'{failure.task}' failed on {host}: {_first_lines(failure.message) or 'no reason given'}"
    return Cause(code, message, _hint(code, host), failure.task)


def _unreachable(failure: HostTask, address: str, port: int) -> Cause:
    words = failure.message.lower()
    # Ansible calls a host unreachable also where it got there, or to its own machine, and could not begin.
    began = "temporary directory" in words
    code = next((code for word, code in _SSH_MESSAGES if word in words and not began), None)
    if code is None and (began or not any(mark in words for mark in ("failed to connect", "data could not be sent"))):
        code = ErrorCode.SSH_COMMAND_FAILED
        what = f"'{failure.task}' could not begin for {failure.host} ({address}): {_first_lines(failure.message)}"
        return Cause(code, what, _hint(code, failure.host), failure.task)
    code = code or ErrorCode.SSH_TIMEOUT
    hint = _hint(code, failure.host)
    what = {
        ErrorCode.HOST_KEY_UNKNOWN: f"{failure.host} ({address}) has a host key that is not known here.",
        ErrorCode.SSH_HOST_UNKNOWN: f"The address {address} of {failure.host} cannot be resolved.",
        ErrorCode.SSH_REFUSED: f"{failure.host} ({address}) refuses the connection.",
        ErrorCode.SSH_AUTH_FAILED: f"{failure.host} ({address}) rejects the login of this user.",
        ErrorCode.SSH_TIMEOUT: f"{failure.host} ({address}) does not respond.",
    }[code]
    entry = address if port == SSH_PORT else f"'[{address}]:{port}'"
    scan = f"ssh-keyscan -H {'' if port == SSH_PORT else f'-p {port} '}{address} >> ~/.ssh/known_hosts"
    if "remote host identification has changed" in words:
        what = f"{failure.host} ({address}) has a different host key than before."
        hint = (
            "If the machine was reinstalled, remove the old key and accept the new one: "
            f"ssh-keygen -R {entry} && {scan}"
        )
    elif code is ErrorCode.HOST_KEY_UNKNOWN:
        hint = (
            f"Accept it: {scan}; then compare ssh-keygen -lF {entry} with that of the machine, "
            "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub. On a terminal, rbee-keeper asks."
        )
        return Cause(code, what, hint, failure.task, asks_trust=True)
    elif "unprotected private key file" in words:
        what = f"ssh refuses the key for {failure.host}: other users can read its file."
        hint = "Restrict it: chmod 600 on the key file."
    return Cause(code, what, hint, failure.task)


def _hint(code: ErrorCode, host: str) -> str:
    return name_node(ERRORS[code].hint, host)


def _first_lines(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines()[:6] if line.strip())[:800]
