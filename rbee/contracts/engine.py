"""How a worker computes, as far as its hive has a say: the settings that both have, and what cannot go together.

A hive passes them on and must know what they cost, so each has its bounds, its words and its default here.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from rbee.contracts.devices import Backend

# With the token before it the draft of one stream stays below the 64 rows from which attention on a CPU rounds
# differently.
MOST_DRAFTED: Final = 62
QUANTISED_BLOCK: Final = 32  # numbers that a quantised cache stores together
_CPU_PROMPT_BATCH: Final = 126  # a round of a small model takes half a second, for which running streams wait
_GPU_PROMPT_BATCH: Final = 512  # a GPU needs that many to be busy, and is done with them in no time

CacheName = Literal["f32", "f16", "bf16", "q8_0"]
CacheType = Annotated[
    CacheName,
    Field(description="number format of the KV cache; q8_0 halves it and needs flash attention"),
]
FlashAttention = Annotated[
    bool | None,
    Field(description="attention without its large intermediate result; default: wherever device and model can"),
]
PromptBatch = Annotated[
    int | None,
    Field(
        ge=4,
        le=8192,
        description=f"prompt tokens in one round, for which running streams wait; default: {_CPU_PROMPT_BATCH} on a "
        f"CPU, {_GPU_PROMPT_BATCH} on a GPU",
    ),
]
Speculate = Annotated[
    int,
    Field(
        ge=0,
        le=MOST_DRAFTED,
        description="tokens to guess ahead in one step, from the text so far: faster where answers repeat their "
        "prompt, such as edits and lists; 0 never guesses",
    ),
]


def prompt_tokens(backend: Backend, wanted: int | None) -> int:
    """Give the prompt tokens of one round: as wished for, else what suits the device."""
    return wanted or (_CPU_PROMPT_BATCH if backend is Backend.CPU else _GPU_PROMPT_BATCH)


def conflict(cache_type: CacheName, *, flash_attention: bool | None) -> str | None:
    """Say why settings cannot go together; None if they can."""
    if cache_type == "q8_0" and flash_attention is False:
        return "cache_type q8_0 needs flash attention; leave flash_attention out or set it to true"
    return None
