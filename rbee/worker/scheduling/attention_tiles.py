"""Attention on a CPU: how long a batch must be to be computed fast, and when that is worth reading tokens again. Pure.

llama.cpp computes flash attention on a CPU in tiles of 64 rows, and batches of fewer rows by pairs of tokens. Measured
with SmolLM2 135M after 4,096 cached tokens: 63 rows take 4.0 s, 64 rows 0.6 s. The two paths round differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TILE_TOKENS: Final = 64  # ggml's GGML_FA_TILE_Q
# What one pair of tokens costs for each number that attention multiplies (layers x width), as a share of what one
# parameter costs a token. Measured on two x86 processors: 0.69 and 0.06 ns, beside 0.037 ns.
_BY_PAIRS: Final = 19.0
_IN_TILES: Final = 1.6


@dataclass(frozen=True, slots=True)
class AttentionTiles:
    """The tiles of a model; *attention* is the numbers (layers x width) of its attention for each of its parameters."""

    attention: float

    def worth_filling(self, tokens: int, cached: int) -> bool:
        """Return whether *tokens* new tokens take less time together with cached ones again, up to a whole tile."""
        if not 0 < tokens < TILE_TOKENS <= tokens + cached:
            return False
        saved = tokens * cached * self.attention * (_BY_PAIRS - _IN_TILES)
        again = (TILE_TOKENS - tokens) * (1 + cached * self.attention * _IN_TILES)
        return saved > again


def piece(tokens: int) -> int:
    """Return how many of a prompt's *tokens* one batch has, fewer than two tiles, so that none is short of a tile.

    It depends on nothing else, so that a prompt is computed alike whatever else is evaluated.
    """
    return tokens if tokens < 2 * TILE_TOKENS else TILE_TOKENS
