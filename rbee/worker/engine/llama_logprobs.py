"""Compute the model's own log probabilities of the next token from raw logits."""

from __future__ import annotations

from typing import Any

from rbee.worker.engine.protocol import Logprob


def logprobs(logits: Any, vocabulary: int, token: int, most: int) -> list[Logprob]:
    """Return the log probability of *token*, then those of the *most* likeliest; *logits* is llama.cpp's array."""
    import numpy as np  # imported only for a request with logprobs

    raw = np.ctypeslib.as_array(logits, shape=(vocabulary,)).astype(np.float64)
    top = raw.max()
    log_sum = top + np.log(np.exp(raw - top).sum())
    found = [Logprob(token, float(raw[token] - log_sum))]
    if most:
        likeliest = np.argpartition(raw, -most)[-most:]
        ordered = likeliest[np.argsort(-raw[likeliest], kind="stable")]
        found += [Logprob(int(index), float(raw[index] - log_sum)) for index in ordered]
    return found
