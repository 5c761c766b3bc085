"""Find the cause of a host's failures, its code and the next step. Pure.

A role fails with `CODE: sentence`. Failures of ssh are told apart by its messages, here and nowhere else, because it
reports nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from rbee.contracts.errors import ERRORS, ErrorCode
from rbee.errors import name_node
from rbee.fleet.events import HostTask, Outcome

SSH_PORT: Final = 22
VAULT_HINT: Final = (
    "Give the vault's password: name its file in ANSIBLE_VAULT_PASSWORD_FILE, then run the command again."
)

_OWN: Final = re.compile(r"\b([A-Z][A-Z_]+): ")

# Messages of the ssh program on standard error, in lower case; checked against OpenSSH 9.2 and 8.4.
_SSH_MESSAGES: Final = (
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
_SUDO_MESSAGES: Final = (
    ("incorrect sudo password", ErrorCode.SUDO_AUTH_FAILED),
    ("missing sudo password", ErrorCode.SUDO_REFUSED),
    ("a password is required", ErrorCode.SUDO_REFUSED),
    ("is not in the sudoers file", ErrorCode.SUDO_REFUSED),
    ("privilege escalation prompt", ErrorCode.SUDO_REFUSED),
)
_NO_SPACE: Final = "No space left on device"


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
