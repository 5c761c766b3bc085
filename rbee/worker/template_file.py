"""Read and check the chat template that an operator gives instead of the model's own, before the worker is ready.

A model's own template may be wrong and the worker useful: raw prompts go on. A file that was named is meant to be used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.chat.prompts import PromptTokenizer

MAX_BYTES: Final = 1_000_000
_HINT: Final = "Correct the file (--chat-template), or leave the option out to use the model's own template."


def read_template(file: Path) -> str:
    """Return the text of *file*. Raises RbeeError MODEL_INVALID where it is none."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refusal(file, f"it cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise _refusal(file, f"it has more than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _refusal(file, f"line {line}: byte 0x{data[error.start]:02x} is no UTF-8") from error
    if not text.strip():
        raise _refusal(file, "it is empty")
    return text


async def check_template(tokenizer: PromptTokenizer, file: Path) -> None:
    """Check that the template of *tokenizer*, which is that of *file*, parses and renders a conversation.

    Raises RbeeError MODEL_INVALID.
    """
    try:
        failure = (await tokenizer.description())["failure"]
    except RbeeError as error:
        failure = str(error.details.get("reason") or error.message)
    if failure:
        raise _refusal(file, failure.removesuffix("."))


def _refusal(file: Path, reason: str) -> RbeeError:
    return RbeeError(
        ErrorCode.MODEL_INVALID,
        f"The chat template {file} cannot be used: {reason}.",
        details={"path": str(file), "reason": reason},
        hint=_HINT,
        param="chat_template_file",
    )
