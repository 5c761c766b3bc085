"""The chain of samplers that a request's wishes become."""

from __future__ import annotations

from rbee.contracts.tasks import Sampling
from rbee.worker.sampling import PENALTY_WINDOW, Stage, chain_of


def kinds(sampling: Sampling) -> list[Stage]:
    return [kind for kind, _ in chain_of(sampling, 7).stages]


def test_temperature_zero_is_greedy() -> None:
    """At temperature 0 the likeliest token is taken and no chance is left."""
    assert kinds(Sampling(temperature=0)) == [Stage.GREEDY]


def test_the_order_of_the_chain() -> None:
    """Penalties come first, then the cuts, then the temperature, and chance decides last, with the seed."""
    sampling = Sampling(repeat_penalty=1.1)

    chain = chain_of(sampling, 7)

    assert kinds(sampling) == [
        Stage.PENALTIES,
        Stage.TOP_K,
        Stage.TOP_P,
        Stage.MIN_P,
        Stage.TEMPERATURE,
        Stage.CHANCE,
    ]
    assert chain.stages[-1] == (Stage.CHANCE, (7,))
    assert chain.history == PENALTY_WINDOW


def test_stages_without_effect_are_left_out() -> None:
    """Values that change nothing cost nothing."""
    sampling = Sampling(temperature=1, top_k=0, top_p=1, min_p=0)

    assert kinds(sampling) == [Stage.CHANCE]
    assert chain_of(sampling, 7).history == 0


def test_penalties_hold_at_temperature_zero() -> None:
    """The likeliest token is chosen after the penalties."""
    assert kinds(Sampling(temperature=0, presence_penalty=1)) == [Stage.PENALTIES, Stage.GREEDY]
