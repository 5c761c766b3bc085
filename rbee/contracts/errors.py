"""The table of errors: code, HTTP status, OpenAI error type, default hint.

The body that carries it is `contracts.error_body.ErrorBody`; OpenAI clients branch on `type`.
This module needs the standard library only, so that a command-line program can fail without loading pydantic.
A status of None marks a code that only the keeper reports, about machines, and that never crosses HTTP.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class ErrorCode(StrEnum):
    """The kind of an error, as a name that scripts can rely on."""

    INVALID_REQUEST = "INVALID_REQUEST"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"  # OpenAI's own, which clients match
    INVALID_MODEL_REF = "INVALID_MODEL_REF"
    INVALID_BACKEND = "INVALID_BACKEND"
    INVALID_DEVICE = "INVALID_DEVICE"
    MISSING_API_KEY = "MISSING_API_KEY"
    INVALID_API_KEY = "INVALID_API_KEY"
    MODEL_ACCESS_DENIED = "MODEL_ACCESS_DENIED"
    FORBIDDEN = "FORBIDDEN"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"
    NODE_NOT_FOUND = "NODE_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    WORKER_NOT_FOUND = "WORKER_NOT_FOUND"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    ROUTE_NOT_FOUND = "ROUTE_NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    UNSUPPORTED_ENCODING = "UNSUPPORTED_ENCODING"
    HEADER_TOO_LARGE = "HEADER_TOO_LARGE"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    LOADING_TIMEOUT = "LOADING_TIMEOUT"
    NODE_EXISTS = "NODE_EXISTS"
    MODEL_IN_USE = "MODEL_IN_USE"
    DECLARED_IN_FILE = "DECLARED_IN_FILE"
    CANCELED = "CANCELED"
    VERSION_MISMATCH = "VERSION_MISMATCH"
    DOWNLOAD_FAILED = "DOWNLOAD_FAILED"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    ALL_SLOTS_BUSY = "ALL_SLOTS_BUSY"
    QUEUE_FULL = "QUEUE_FULL"
    DRAINING = "DRAINING"
    WORKER_LOADING = "WORKER_LOADING"
    QUARANTINED = "QUARANTINED"
    DEVICE_YIELDED = "DEVICE_YIELDED"
    RAM_EXHAUSTED = "RAM_EXHAUSTED"
    VRAM_EXHAUSTED = "VRAM_EXHAUSTED"
    GPU_VRAM_EXHAUSTED = "GPU_VRAM_EXHAUSTED"
    DISK_FULL = "DISK_FULL"
    BACKEND_UNAVAILABLE = "BACKEND_UNAVAILABLE"
    GPU_NOT_AVAILABLE = "GPU_NOT_AVAILABLE"
    CUDA_DEVICE_FAILED = "CUDA_DEVICE_FAILED"
    SSH_TIMEOUT = "SSH_TIMEOUT"
    SSH_AUTH_FAILED = "SSH_AUTH_FAILED"
    SSH_COMMAND_FAILED = "SSH_COMMAND_FAILED"
    SSH_KEY_NOT_FOUND = "SSH_KEY_NOT_FOUND"
    HOST_KEY_UNKNOWN = "HOST_KEY_UNKNOWN"
    SSH_REFUSED = "SSH_REFUSED"
    SSH_HOST_UNKNOWN = "SSH_HOST_UNKNOWN"
    SYSTEM_UNSUPPORTED = "SYSTEM_UNSUPPORTED"
    PYTHON_MISSING = "PYTHON_MISSING"
    PYTHON_TOO_OLD = "PYTHON_TOO_OLD"
    SUDO_MISSING = "SUDO_MISSING"
    SUDO_REFUSED = "SUDO_REFUSED"
    SUDO_AUTH_FAILED = "SUDO_AUTH_FAILED"
    CLOCK_SKEW = "CLOCK_SKEW"
    REPOSITORY_UNAVAILABLE = "REPOSITORY_UNAVAILABLE"
    RELEASE_FAILED = "RELEASE_FAILED"
    MACHINE_BUSY = "MACHINE_BUSY"
    KEY_DIFFERS = "KEY_DIFFERS"
    PROVISIONING_FAILED = "PROVISIONING_FAILED"
    CONNECTION_TIMEOUT = "CONNECTION_TIMEOUT"
    INVALID_RESPONSE = "INVALID_RESPONSE"
    WORKER_START_FAILED = "WORKER_START_FAILED"
    WORKER_BINARY_NOT_FOUND = "WORKER_BINARY_NOT_FOUND"
    WORKER_CRASHED = "WORKER_CRASHED"
    WORKER_STALLED = "WORKER_STALLED"
    MODEL_INVALID = "MODEL_INVALID"
    CONFIG_INVALID = "CONFIG_INVALID"
    STATE_CORRUPT = "STATE_CORRUPT"
    PORT_IN_USE = "PORT_IN_USE"
    ALREADY_RUNNING = "ALREADY_RUNNING"
    DAEMON_START_FAILED = "DAEMON_START_FAILED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    INTERNAL = "INTERNAL"


class ErrorSpec(NamedTuple):
    """One row of the table. `retry_after_s` is sent as Retry-After where it is not None."""

    http_status: int | None
    type: str
    hint: str
    retry_after_s: int | None = None


_INVALID = "invalid_request_error"
_AUTH = "authentication_error"
_NOT_FOUND = "not_found_error"
_TIMEOUT = "timeout_error"
_CONFLICT = "conflict_error"
_UNAVAILABLE = "unavailable_error"
_EXHAUSTED = "insufficient_resources_error"
_UPSTREAM = "upstream_error"
_SERVER = "server_error"
_LOCAL = "local_error"

ERRORS: dict[ErrorCode, ErrorSpec] = {
    ErrorCode.INVALID_REQUEST: ErrorSpec(400, _INVALID, "Correct the named field and send the request again."),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: ErrorSpec(
        400, _INVALID, "Shorten the prompt or the conversation, or start the worker with a larger context."
    ),
    ErrorCode.INVALID_MODEL_REF: ErrorSpec(
        400,
        _INVALID,
        "Use hf:org/repo[@revision][:quant or folder/file.gguf], file:///path/model.gguf, "
        "https://host/x.gguf#sha256=..., package:<python package>/<file>, or an alias of [models] in the config file.",
    ),
    ErrorCode.INVALID_BACKEND: ErrorSpec(400, _INVALID, "Use one of: cuda, metal, cpu."),
    ErrorCode.INVALID_DEVICE: ErrorSpec(400, _INVALID, "Run 'rbee-hive detect' on the machine to see its devices."),
    ErrorCode.MISSING_API_KEY: ErrorSpec(
        401, _AUTH, "Send the key in one of these headers. The keeper reads RBEE_API_KEY, then ~/.rbee/secrets/api-key."
    ),
    ErrorCode.INVALID_API_KEY: ErrorSpec(
        401, _AUTH, "Compare the key with the daemon's; the keeper reads RBEE_API_KEY, then ~/.rbee/secrets/api-key."
    ),
    ErrorCode.MODEL_ACCESS_DENIED: ErrorSpec(
        403, "permission_error", "If you may use it: accept its terms on its hub page, and set HF_TOKEN for the hive."
    ),
    ErrorCode.FORBIDDEN: ErrorSpec(
        403, "permission_error", "Ask the operator for a key that may do this: rbee-keeper keys set NAME --help"
    ),
    ErrorCode.TOO_MANY_REQUESTS: ErrorSpec(
        429, "rate_limit_error", "Wait as long as Retry-After says, or ask the operator for a higher limit.", 1
    ),
    ErrorCode.NODE_NOT_FOUND: ErrorSpec(
        404, _NOT_FOUND, "Add it: rbee-keeper config set-ssh --node NAME --host ADDRESS --user USER"
    ),
    ErrorCode.MODEL_NOT_FOUND: ErrorSpec(404, _NOT_FOUND, "List the models: rbee-keeper models list --node NODE"),
    ErrorCode.WORKER_NOT_FOUND: ErrorSpec(404, _NOT_FOUND, "List the workers: rbee-keeper worker list"),
    ErrorCode.KEY_NOT_FOUND: ErrorSpec(404, _NOT_FOUND, "List the clients that have a key: rbee-keeper keys list"),
    ErrorCode.ROUTE_NOT_FOUND: ErrorSpec(404, _NOT_FOUND, "Each daemon lists its routes at /openapi.json."),
    ErrorCode.METHOD_NOT_ALLOWED: ErrorSpec(405, _INVALID, "Each daemon lists its routes at /openapi.json."),
    ErrorCode.PAYLOAD_TOO_LARGE: ErrorSpec(413, _INVALID, "Send a smaller request."),
    ErrorCode.UNSUPPORTED_ENCODING: ErrorSpec(415, _INVALID, "Send the body as it is, or compressed by gzip."),
    ErrorCode.HEADER_TOO_LARGE: ErrorSpec(431, _INVALID, "Send smaller headers."),
    ErrorCode.REQUEST_TIMEOUT: ErrorSpec(408, _TIMEOUT, "Read the log named in the message, then try again."),
    ErrorCode.LOADING_TIMEOUT: ErrorSpec(
        408, _TIMEOUT, "Read the worker's log, or raise loading_timeout_s for a slow disk."
    ),
    ErrorCode.NODE_EXISTS: ErrorSpec(
        409, _CONFLICT, "Change it: rbee-keeper config set-ssh; or remove it: rbee-keeper config remove-node"
    ),
    ErrorCode.MODEL_IN_USE: ErrorSpec(409, _CONFLICT, "Stop the workers that use it: rbee-keeper worker list"),
    ErrorCode.DECLARED_IN_FILE: ErrorSpec(
        409, _CONFLICT, "Change it in that file, or in the inventory that it is made from, or use another name."
    ),
    ErrorCode.CANCELED: ErrorSpec(499, "canceled_error", "The request was canceled by its client."),
    ErrorCode.VERSION_MISMATCH: ErrorSpec(409, _CONFLICT, "Upgrade the hive: rbee-keeper hive upgrade --node NODE"),
    ErrorCode.DOWNLOAD_FAILED: ErrorSpec(
        502, _UPSTREAM, "Check the machine's network, then try again; the download resumes where it stopped."
    ),
    ErrorCode.CHECKSUM_MISMATCH: ErrorSpec(
        502, _UPSTREAM, "The source or the expected sha256 is wrong; the bad file was removed."
    ),
    ErrorCode.ALL_SLOTS_BUSY: ErrorSpec(503, _UNAVAILABLE, "Try again shortly, or start another worker.", 1),
    ErrorCode.QUEUE_FULL: ErrorSpec(503, _UNAVAILABLE, "Try again shortly, or add a machine.", 1),
    ErrorCode.DRAINING: ErrorSpec(503, _UNAVAILABLE, "The daemon is stopping; try again when it is back.", 5),
    ErrorCode.WORKER_LOADING: ErrorSpec(503, _UNAVAILABLE, "The model is still loading; try again shortly.", 1),
    ErrorCode.QUARANTINED: ErrorSpec(
        503,
        _UNAVAILABLE,
        "Correct the cause, then start a worker by hand: rbee-keeper worker start --node NODE --model MODEL",
        60,
    ),
    ErrorCode.DEVICE_YIELDED: ErrorSpec(
        503,
        _UNAVAILABLE,
        "Use another device or node, or use this one again: rbee-keeper hive resume --node NODE",
        60,
    ),
    ErrorCode.RAM_EXHAUSTED: ErrorSpec(
        507, _EXHAUSTED, "Use a smaller quantisation or context, or stop a worker: rbee-keeper worker list"
    ),
    ErrorCode.VRAM_EXHAUSTED: ErrorSpec(
        507, _EXHAUSTED, "Use a smaller quantisation or context, stop a worker, or use --backend cpu."
    ),
    ErrorCode.GPU_VRAM_EXHAUSTED: ErrorSpec(
        507, _EXHAUSTED, "Use a smaller quantisation or context, or use --backend cpu."
    ),
    ErrorCode.DISK_FULL: ErrorSpec(
        507, _EXHAUSTED, "Free space, or remove a model: rbee-keeper models rm --node NODE MODEL"
    ),
    ErrorCode.BACKEND_UNAVAILABLE: ErrorSpec(503, _UNAVAILABLE, "To run on the CPU instead: --backend cpu"),
    ErrorCode.GPU_NOT_AVAILABLE: ErrorSpec(503, _UNAVAILABLE, "To run on the CPU instead: --backend cpu"),
    ErrorCode.CUDA_DEVICE_FAILED: ErrorSpec(
        503, _UNAVAILABLE, "Check the driver with nvidia-smi. To run on the CPU instead: --backend cpu"
    ),
    ErrorCode.SSH_TIMEOUT: ErrorSpec(None, _LOCAL, "Check the address and the port, and that the machine is running."),
    ErrorCode.SSH_AUTH_FAILED: ErrorSpec(None, _LOCAL, "Check the user and the key; the key file must have mode 0600."),
    ErrorCode.SSH_COMMAND_FAILED: ErrorSpec(None, _LOCAL, "Log in by SSH and run the command named in the message."),
    ErrorCode.SSH_KEY_NOT_FOUND: ErrorSpec(None, _LOCAL, "Name an existing private key with --key."),
    ErrorCode.HOST_KEY_UNKNOWN: ErrorSpec(
        None, _LOCAL, "Check the host key's fingerprint, then add it to known_hosts with ssh-keyscan."
    ),
    ErrorCode.SSH_REFUSED: ErrorSpec(None, _LOCAL, "Check the port, and that sshd is running on the machine."),
    ErrorCode.SSH_HOST_UNKNOWN: ErrorSpec(None, _LOCAL, "Check the spelling of the address, or use the IP address."),
    ErrorCode.SYSTEM_UNSUPPORTED: ErrorSpec(None, _LOCAL, "Use a machine with Linux and systemd, or macOS."),
    ErrorCode.PYTHON_MISSING: ErrorSpec(
        None, _LOCAL, "Install Python 3.11 or newer on the machine: apt-get install python3 (Debian)."
    ),
    ErrorCode.PYTHON_TOO_OLD: ErrorSpec(
        None, _LOCAL, "Install Python 3.11 or newer, and set ansible_python_interpreter to its path."
    ),
    ErrorCode.SUDO_MISSING: ErrorSpec(None, _LOCAL, "Install sudo on the machine, or connect as root."),
    ErrorCode.SUDO_REFUSED: ErrorSpec(
        None, _LOCAL, "Allow the user sudo without a password, or store ansible_become_password in an Ansible vault."
    ),
    ErrorCode.SUDO_AUTH_FAILED: ErrorSpec(
        None, _LOCAL, "Correct ansible_become_password, or name the right vault: ansible-vault edit FILE"
    ),
    ErrorCode.CLOCK_SKEW: ErrorSpec(None, _LOCAL, "Set the machine's clock: timedatectl set-ntp true"),
    ErrorCode.REPOSITORY_UNAVAILABLE: ErrorSpec(
        None, _LOCAL, "Check rbee_repo_url and rbee_repo_branch, and that the machine can clone it without a password."
    ),
    ErrorCode.RELEASE_FAILED: ErrorSpec(
        None, _LOCAL, "Correct the cause, then run the command again; the previous release is still active."
    ),
    ErrorCode.MACHINE_BUSY: ErrorSpec(None, _LOCAL, "Wait until the other run has ended, then run the command again."),
    ErrorCode.KEY_DIFFERS: ErrorSpec(
        None, _LOCAL, "To use the machine's key here too: --keys adopt; to give it this operator's: --keys replace"
    ),
    ErrorCode.PROVISIONING_FAILED: ErrorSpec(
        None, _LOCAL, "Correct the cause, then run the command again; steps that are done are not repeated."
    ),
    ErrorCode.CONNECTION_TIMEOUT: ErrorSpec(502, _UPSTREAM, "Check that the daemon is running, and read its log."),
    ErrorCode.INVALID_RESPONSE: ErrorSpec(
        502, _UPSTREAM, "Check the address: another program may be listening on that port."
    ),
    ErrorCode.WORKER_START_FAILED: ErrorSpec(500, _SERVER, "Read the last lines of the worker's log for the cause."),
    ErrorCode.WORKER_BINARY_NOT_FOUND: ErrorSpec(
        500, _SERVER, "Install it on that machine: pip install 'rbee[worker]', or rbee-keeper hive install --node NODE"
    ),
    ErrorCode.WORKER_CRASHED: ErrorSpec(
        500, _SERVER, "Read the worker's log before trying again: rbee-keeper logs --node NODE"
    ),
    ErrorCode.WORKER_STALLED: ErrorSpec(
        500, _SERVER, "Try again; a worker that makes no progress is replaced by its hive: rbee-keeper worker list"
    ),
    ErrorCode.MODEL_INVALID: ErrorSpec(400, _INVALID, "Use another file of the model, or another chat_template_file."),
    ErrorCode.CONFIG_INVALID: ErrorSpec(
        None, _LOCAL, "Correct it; to check config file and inventory: rbee-keeper config check"
    ),
    ErrorCode.STATE_CORRUPT: ErrorSpec(
        500, _SERVER, "Move the named file away; a new one is created at the next start."
    ),
    ErrorCode.PORT_IN_USE: ErrorSpec(None, _LOCAL, "Stop the program that listens there, or choose another port."),
    ErrorCode.DAEMON_START_FAILED: ErrorSpec(
        None, _LOCAL, "Read the last lines of its log, correct the cause, and start it again."
    ),
    ErrorCode.ALREADY_RUNNING: ErrorSpec(
        None, _LOCAL, "Use the running one, stop it (a queen: 'rbee-keeper daemon stop'), or set another RBEE_HOME."
    ),
    ErrorCode.PERMISSION_DENIED: ErrorSpec(500, _SERVER, "Make the path writable for this user, or set RBEE_HOME."),
    ErrorCode.INTERNAL: ErrorSpec(500, _SERVER, "This is a bug in rbee; the daemon's log has the details."),
}

EXIT_CODES: Final = {ErrorCode.CONFIG_INVALID: 78, ErrorCode.DISK_FULL: 74}
"""The exit code of a daemon that could not start for this reason (EX_CONFIG, EX_IOERR of sysexits.h); else 1.

On a full disk it is all that whoever started it without a lifeline learns: no line of the log was written.
"""
