"""The engine settings that hive and worker share, and which of them conflict.

A hive passes them on and must know what they cost, so bounds, description and default of each are here.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from rbee.contracts.devices import Backend

# With the token before it, the draft of one stream stays below 64 rows, from which on attention on a CPU rounds
# differently.
MAX_DRAFT_TOKENS: Final = 62
QUANTISED_BLOCK: Final = 32  # numbers in one block of a quantised cache
# Two tiles of a CPU's attention; with a small model they take half a second, for which running streams wait.
_CPU_PROMPT_BATCH: Final = 128
_GPU_PROMPT_BATCH: Final = 512  # a GPU needs that many to be busy

CacheName = Literal["f32", "f16", "bf16", "q8_0"]
CacheType = Annotated[
    CacheName,
    Field(description="number format of the KV cache; q8_0 halves it and needs flash attention"),
]
FlashAttention = Annotated[
    bool | None,
    Field(description="flash attention; default: on wherever device and model support it"),
]
PromptBatch = Annotated[
    int | None,
    Field(
        ge=4,
        le=8192,
        description=f"prompt tokens evaluated in one batch, for which running streams wait; default: "
        f"{_CPU_PROMPT_BATCH} on a CPU, {_GPU_PROMPT_BATCH} on a GPU",
    ),
]
Speculate = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_DRAFT_TOKENS,
        description="tokens to draft in one step, from the text so far (prompt lookup): faster where answers repeat "
        "their prompt, such as edits and lists; 0 turns it off",
    ),
]


def prompt_tokens(backend: Backend, wanted: int | None) -> int:
    """Return the prompt tokens of one batch: as requested, else the default for the device."""
    return wanted or (_CPU_PROMPT_BATCH if backend is Backend.CPU else _GPU_PROMPT_BATCH)


def conflict(cache_type: CacheName, *, flash_attention: bool | None) -> str | None:
    """Return why settings conflict; None if they do not."""
    if cache_type == "q8_0" and flash_attention is False:
        return "cache_type q8_0 needs flash attention; leave flash_attention out or set it to true"
    return None
