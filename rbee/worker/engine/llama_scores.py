"""Read what the model itself says of its next token: log probabilities out of raw logits."""

from __future__ import annotations

from typing import Any

from rbee.worker.engine.protocol import Score


def scores(logits: Any, vocabulary: int, token: int, most: int) -> list[Score]:
    """Give the score of *token*, then those of the *most* likeliest; *logits* is llama.cpp's own array."""
    import numpy as np  # only who asks for scores waits for it

    raw = np.ctypeslib.as_array(logits, shape=(vocabulary,)).astype(np.float64)
    top = raw.max()
    normal = top + np.log(np.exp(raw - top).sum())
    found = [Score(token, float(raw[token] - normal))]
    if most:
        likeliest = np.argpartition(raw, -most)[-most:]
        ordered = likeliest[np.argsort(-raw[likeliest], kind="stable")]
        found += [Score(int(index), float(raw[index] - normal)) for index in ordered]
    return found
