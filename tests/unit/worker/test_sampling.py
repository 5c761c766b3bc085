"""The chain of samplers that a request's wishes become."""

from __future__ import annotations

from rbee.contracts.tasks import Sampling
from rbee.worker.sampling import PENALTY_WINDOW, Stage, chain_of


def kinds(sampling: Sampling) -> list[Stage]:
    return [kind for kind, _ in chain_of(sampling, 7).stages]


def test_temperature_zero_is_greedy() -> None:
    """At temperature 0 the likeliest token is taken and no chance is left."""
    assert kinds(Sampling(temperature=0, repeat_penalty=1)) == [Stage.GREEDY]


def test_the_order_of_the_chain() -> None:
    """Penalties come first, then the cuts, then the temperature, and chance decides last, with the seed."""
    sampling = Sampling(repeat_penalty=1.1)

    chain = chain_of(sampling, 7)

    names = [stage.value for stage, _ in chain.stages]
    assert names == ["penalties", "top_k", "top_p", "min_p", "temperature", "chance"]
    assert chain.history == PENALTY_WINDOW
    assert chain.stages[-1] == (Stage.CHANCE, (7,))


def test_stages_without_effect_are_left_out() -> None:
    """Values that change nothing cost nothing."""
    sampling = Sampling(temperature=1, top_k=0, top_p=1, min_p=0, repeat_penalty=1)

    chain = chain_of(sampling, 7)

    assert chain.history == 0
    assert chain.stages == ((Stage.CHANCE, (7,)),)


def test_penalties_hold_at_temperature_zero() -> None:
    """The likeliest token is chosen after the penalties."""
    assert kinds(Sampling(temperature=0, presence_penalty=1)) == [Stage.PENALTIES, Stage.GREEDY]
