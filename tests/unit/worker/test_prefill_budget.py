"""How much of a long prompt is read beside running streams: what fits into the time that they may wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.worker.scheduling.prefill_budget import PrefillBudget


def wait(budget: PrefillBudget, *, step_s: float, fixed_s: float, token_s: float, rounds: int) -> float:
    """Read for some rounds on a machine like that; give how many times as long as usual the last one took."""
    took = 0.0
    for _ in range(rounds):
        prompts_s = fixed_s + token_s * budget.tokens
        budget.record_round(step_s, prompts_s, budget.tokens)
        took = step_s + prompts_s
    return took / step_s


@pytest.mark.parametrize(
    ("step_s", "fixed_s", "token_s"),
    [(0.015, 0.0, 0.003), (0.060, 0.0, 0.003), (0.010, 0.010, 0.00005), (0.020, 0.005, 0.001)],
    ids=["one stream on a CPU", "16 streams on a CPU", "a GPU", "a faster CPU"],
)
def test_a_round_comes_to_take_what_streams_may_wait(step_s: float, fixed_s: float, token_s: float) -> None:
    """On any machine a stream waits less than three times as long as usual, and the prompt has what is left."""
    budget = PrefillBudget(512)

    factor = wait(budget, step_s=step_s, fixed_s=fixed_s, token_s=token_s, rounds=30)

    assert 1.9 < factor < 2.6


def test_a_round_that_was_too_long_is_not_repeated() -> None:
    """The next round is shorter at once."""
    budget = PrefillBudget(512)
    wait(budget, step_s=0.01, fixed_s=0.0, token_s=0.0001, rounds=30)
    before = budget.tokens

    budget.record_round(0.01, 0.0002 * 4 * before, before)

    assert budget.tokens < before / 2


@given(rounds=st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10), st.integers(0, 600))), most=st.integers(4, 600))
def test_there_is_always_something_and_never_too_much(rounds: list[tuple[float, float, int]], most: int) -> None:
    """Whatever the clock says, a prompt goes on, and no round has more than its bound."""
    budget = PrefillBudget(most)
    for streams_s, prompts_s, tokens in rounds:
        budget.record_round(streams_s, prompts_s, tokens)

        assert min(2, most) <= budget.tokens <= most
