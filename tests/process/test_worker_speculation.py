"""Guessing ahead, over a worker's HTTP: the same answers in fewer steps, and figures of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.worker import Worker, text_of, worker

pytestmark = pytest.mark.process
REPEATING = {"text": "one two three four five six ", "tokens_per_s": 1000, "context": 400}


def figure(it: Worker, name: str) -> float:
    lines = it.http.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"rbee_{name}_total ")))


def test_a_worker_that_guesses_gives_the_same_text(tmp_path: Path) -> None:
    """The tokens and their end are those of a worker that does not guess; the end and the figures count the guesses."""
    (tmp_path / "plain").mkdir()
    with worker(tmp_path / "plain", fake=REPEATING) as it:
        it.until_idle()
        plain = it.infer(max_tokens=100, seed=1)
    with worker(tmp_path, "--speculate", "8", fake=REPEATING) as it:
        it.until_idle()
        seen = it.infer(max_tokens=100, seed=1)
        counts = figure(it, "worker_drafted_tokens"), figure(it, "worker_drafted_tokens_accepted")

    assert text_of(seen) == text_of(plain)
    assert [event["index"] for event in seen[:-1]] == list(range(100))
    done, without = seen[-1], plain[-1]
    assert (done["total_tokens"], done["finish_reason"]) == (without["total_tokens"], without["finish_reason"])
    assert 50 < done["accepted_tokens"] <= done["drafted_tokens"]
    assert counts == (done["drafted_tokens"], done["accepted_tokens"])
    assert "drafted_tokens" not in without


def test_a_model_that_cannot_take_back_does_not_guess(tmp_path: Path) -> None:
    """Where the state cannot be cut back speculation is off, and the log says so."""
    with worker(tmp_path, "--speculate", "8", fake={**REPEATING, "recurrent": True}) as it:
        it.until_idle()
        done = it.infer(max_tokens=50)[-1]

        assert done["total_tokens"] == 50
        assert "drafted_tokens" not in done
        assert "speculation is off" in it.log.read_text()
