"""What a model that ranks puts out, as a number from 0 to 1."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.worker.engine.llama_text import relevance

LOGITS = st.floats(-1e6, 1e6)


@given(st.lists(LOGITS, min_size=1, max_size=4))
def test_a_relevance_is_between_nothing_and_all(outputs: list[float]) -> None:
    """Whatever numbers come, the relevance is one from 0 to 1."""
    assert 0.0 <= relevance(outputs) <= 1.0


@given(LOGITS, LOGITS)
def test_a_larger_number_is_no_less_relevant(one: float, other: float) -> None:
    """The order of the numbers is the order of the relevances."""
    low, high = sorted((one, other))

    assert relevance([low]) <= relevance([high])


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [([0.0], 0.5), ([math.log(3)], 0.75), ([0.8, 0.2], 0.8), ([1.0, 1.0], 0.5), ([math.log(3), 0.0], 0.75)],
)
def test_the_first_of_several_is_what_counts(outputs: list[float], expected: float) -> None:
    """One number is a logit; of several the first one's share counts, computed already or not."""
    assert math.isclose(relevance(outputs), expected)
