"""The one table of what can go wrong: code, HTTP status, OpenAI error type, default hint.

The body that carries it is `contracts.error_body.ErrorBody`; `type` is what OpenAI clients switch on.
This module needs the standard library only, so that a command-line program can fail without loading pydantic.
A status of None marks a code that only the keeper reports, about machines, and that never crosses HTTP.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ErrorCode(StrEnum):
    """What happened, as a name that scripts can rely on."""

    INVALID_REQUEST = "INVALID_REQUEST"
    INVALID_MODEL_REF = "INVALID_MODEL_REF"
    INVALID_BACKEND = "INVALID_BACKEND"
    INVALID_DEVICE = "INVALID_DEVICE"
    MISSING_API_KEY = "MISSING_API_KEY"
    INVALID_API_KEY = "INVALID_API_KEY"
    MODEL_ACCESS_DENIED = "MODEL_ACCESS_DENIED"
    NODE_NOT_FOUND = "NODE_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    WORKER_NOT_FOUND = "WORKER_NOT_FOUND"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    ROUTE_NOT_FOUND = "ROUTE_NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    HEADER_TOO_LARGE = "HEADER_TOO_LARGE"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    LOADING_TIMEOUT = "LOADING_TIMEOUT"
    NODE_EXISTS = "NODE_EXISTS"
    MODEL_IN_USE = "MODEL_IN_USE"
    CANCELED = "CANCELED"
    VERSION_MISMATCH = "VERSION_MISMATCH"
    DOWNLOAD_FAILED = "DOWNLOAD_FAILED"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    ALL_SLOTS_BUSY = "ALL_SLOTS_BUSY"
    QUEUE_FULL = "QUEUE_FULL"
    DRAINING = "DRAINING"
    WORKER_LOADING = "WORKER_LOADING"
    QUARANTINED = "QUARANTINED"
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
    CLOCK_SKEW = "CLOCK_SKEW"
    REPOSITORY_UNAVAILABLE = "REPOSITORY_UNAVAILABLE"
    RELEASE_FAILED = "RELEASE_FAILED"
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
    ErrorCode.INVALID_MODEL_REF: ErrorSpec(
        400,
        _INVALID,
        "Use hf:org/repo[:quant or file], file:///path/model.gguf, https://host/x.gguf#sha256=..., "
        "package:<python package>/<file>, or an alias from [models] in the config file.",
    ),
    ErrorCode.INVALID_BACKEND: ErrorSpec(400, _INVALID, "Use one of: cuda, metal, cpu."),
    ErrorCode.INVALID_DEVICE: ErrorSpec(400, _INVALID, "Run 'rbee-hive detect' on the machine to see its devices."),
    ErrorCode.MISSING_API_KEY: ErrorSpec(
        401, _AUTH, "Send 'Authorization: Bearer <key>'. The keeper reads RBEE_API_KEY, then ~/.rbee/secrets/api-key."
    ),
    ErrorCode.INVALID_API_KEY: ErrorSpec(
        401, _AUTH, "The keeper reads RBEE_API_KEY, then ~/.rbee/secrets/api-key; compare it with the daemon's."
    ),
    ErrorCode.MODEL_ACCESS_DENIED: ErrorSpec(
        403, "permission_error", "Accept the model's terms on its hub page, then set HF_TOKEN for the hive."
    ),
    ErrorCode.NODE_NOT_FOUND: ErrorSpec(
        404, _NOT_FOUND, "Add it: rbee-keeper config set-ssh --node NAME --host ADDRESS --user USER"
    ),
    ErrorCode.MODEL_NOT_FOUND: ErrorSpec(404, _NOT_FOUND, "See what is there: rbee-keeper models list --node NODE"),
    ErrorCode.WORKER_NOT_FOUND: ErrorSpec(404, _NOT_FOUND, "See what runs: rbee-keeper worker list"),
    ErrorCode.KEY_NOT_FOUND: ErrorSpec(404, _NOT_FOUND, "See who has one: rbee-keeper keys list"),
    ErrorCode.ROUTE_NOT_FOUND: ErrorSpec(404, _NOT_FOUND, "Each daemon lists its routes at /openapi.json."),
    ErrorCode.METHOD_NOT_ALLOWED: ErrorSpec(405, _INVALID, "Each daemon lists its routes at /openapi.json."),
    ErrorCode.PAYLOAD_TOO_LARGE: ErrorSpec(413, _INVALID, "Send a smaller request."),
    ErrorCode.HEADER_TOO_LARGE: ErrorSpec(431, _INVALID, "Send smaller headers."),
    ErrorCode.REQUEST_TIMEOUT: ErrorSpec(408, _TIMEOUT, "Look at the log that is named, then try again."),
    ErrorCode.LOADING_TIMEOUT: ErrorSpec(
        408, _TIMEOUT, "Look at the worker's log, or raise loading_timeout_s for a slow disk."
    ),
    ErrorCode.NODE_EXISTS: ErrorSpec(
        409, _CONFLICT, "Change it: rbee-keeper config set-ssh; or remove it: rbee-keeper config remove-node"
    ),
    ErrorCode.MODEL_IN_USE: ErrorSpec(409, _CONFLICT, "Stop the workers that use it: rbee-keeper worker list"),
    ErrorCode.CANCELED: ErrorSpec(499, "canceled_error", "The request was canceled by its client."),
    ErrorCode.VERSION_MISMATCH: ErrorSpec(409, _CONFLICT, "Upgrade the hive: rbee-keeper hive upgrade --node NODE"),
    ErrorCode.DOWNLOAD_FAILED: ErrorSpec(502, _UPSTREAM, "Check the network of the machine; running again resumes."),
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
        "Look at the reason, then try once more by hand: rbee-keeper worker start --node NODE --model MODEL",
        60,
    ),
    ErrorCode.RAM_EXHAUSTED: ErrorSpec(
        507, _EXHAUSTED, "Use a smaller quantisation or context, or stop a worker: rbee-keeper worker list"
    ),
    ErrorCode.VRAM_EXHAUSTED: ErrorSpec(
        507, _EXHAUSTED, "Use a smaller quantisation or context, stop a worker, or ask for --backend cpu."
    ),
    ErrorCode.GPU_VRAM_EXHAUSTED: ErrorSpec(
        507, _EXHAUSTED, "Use a smaller quantisation or context, or ask for --backend cpu."
    ),
    ErrorCode.DISK_FULL: ErrorSpec(
        507, _EXHAUSTED, "Free space, or remove a model: rbee-keeper models rm --node NODE MODEL"
    ),
    ErrorCode.BACKEND_UNAVAILABLE: ErrorSpec(503, _UNAVAILABLE, "To run it on the CPU, ask for that: --backend cpu"),
    ErrorCode.GPU_NOT_AVAILABLE: ErrorSpec(503, _UNAVAILABLE, "To run it on the CPU, ask for that: --backend cpu"),
    ErrorCode.CUDA_DEVICE_FAILED: ErrorSpec(
        503, _UNAVAILABLE, "Check the driver with nvidia-smi; to run it on the CPU, ask for that: --backend cpu"
    ),
    ErrorCode.SSH_TIMEOUT: ErrorSpec(None, _LOCAL, "Check the address, the port and that the machine is up."),
    ErrorCode.SSH_AUTH_FAILED: ErrorSpec(None, _LOCAL, "Check user and key; the key file must have mode 600."),
    ErrorCode.SSH_COMMAND_FAILED: ErrorSpec(None, _LOCAL, "Log in by hand and try the command that is named."),
    ErrorCode.SSH_KEY_NOT_FOUND: ErrorSpec(None, _LOCAL, "Name an existing private key with --key."),
    ErrorCode.HOST_KEY_UNKNOWN: ErrorSpec(None, _LOCAL, "Check its fingerprint, then accept it with ssh-keyscan."),
    ErrorCode.SSH_REFUSED: ErrorSpec(None, _LOCAL, "Check the port, and that sshd runs on the machine."),
    ErrorCode.SSH_HOST_UNKNOWN: ErrorSpec(None, _LOCAL, "Check the spelling of the address, or use the IP address."),
    ErrorCode.SYSTEM_UNSUPPORTED: ErrorSpec(None, _LOCAL, "Use a machine with Linux and systemd, or macOS."),
    ErrorCode.PYTHON_MISSING: ErrorSpec(
        None, _LOCAL, "Install Python 3.11 or newer on the machine: apt-get install python3 (Debian)."
    ),
    ErrorCode.PYTHON_TOO_OLD: ErrorSpec(
        None, _LOCAL, "Install Python 3.11 or newer, and name it with ansible_python_interpreter."
    ),
    ErrorCode.SUDO_MISSING: ErrorSpec(None, _LOCAL, "Install sudo on the machine, or connect as root."),
    ErrorCode.SUDO_REFUSED: ErrorSpec(
        None, _LOCAL, "Let the user work as root without a password, or put ansible_become_password into a vault."
    ),
    ErrorCode.CLOCK_SKEW: ErrorSpec(None, _LOCAL, "Set the machine's clock: timedatectl set-ntp true"),
    ErrorCode.REPOSITORY_UNAVAILABLE: ErrorSpec(
        None, _LOCAL, "Check rbee_repo_url and rbee_repo_branch, and that the machine may read it without a password."
    ),
    ErrorCode.RELEASE_FAILED: ErrorSpec(
        None, _LOCAL, "Correct what the message names, then run this again; what served before still does."
    ),
    ErrorCode.PROVISIONING_FAILED: ErrorSpec(
        None, _LOCAL, "Correct what the message names, then run this again; what is done already is not done twice."
    ),
    ErrorCode.CONNECTION_TIMEOUT: ErrorSpec(502, _UPSTREAM, "Check that the daemon runs and where its log is."),
    ErrorCode.INVALID_RESPONSE: ErrorSpec(502, _UPSTREAM, "Something else may be listening on that port."),
    ErrorCode.WORKER_START_FAILED: ErrorSpec(500, _SERVER, "The last lines of the worker's log say why."),
    ErrorCode.WORKER_BINARY_NOT_FOUND: ErrorSpec(
        500, _SERVER, "Install it on that machine: pip install 'rbee[worker]', or rbee-keeper hive install --node NODE"
    ),
    ErrorCode.WORKER_CRASHED: ErrorSpec(500, _SERVER, "Try again; its log says more: rbee-keeper logs --node NODE"),
    ErrorCode.WORKER_STALLED: ErrorSpec(500, _SERVER, "Try again; the stalled worker is being replaced."),
    ErrorCode.MODEL_INVALID: ErrorSpec(
        400, _INVALID, "Name a whole GGUF file; download or copy it again if it is truncated."
    ),
    ErrorCode.CONFIG_INVALID: ErrorSpec(None, _LOCAL, "Correct the file, then check it: rbee-keeper config check"),
    ErrorCode.STATE_CORRUPT: ErrorSpec(500, _SERVER, "Move the named file away; it is made anew at the next start."),
    ErrorCode.PORT_IN_USE: ErrorSpec(None, _LOCAL, "Stop what listens there, or choose another port."),
    ErrorCode.DAEMON_START_FAILED: ErrorSpec(
        None, _LOCAL, "The last lines of its log say why; correct that and start it again."
    ),
    ErrorCode.ALREADY_RUNNING: ErrorSpec(
        None, _LOCAL, "Use the one that runs, stop it (a queen: 'rbee-keeper daemon stop'), or set another RBEE_HOME."
    ),
    ErrorCode.PERMISSION_DENIED: ErrorSpec(500, _SERVER, "Make the path writable for this user, or set RBEE_HOME."),
    ErrorCode.INTERNAL: ErrorSpec(500, _SERVER, "This is a bug in rbee; the daemon's log has the details."),
}
