"""The chain of samplers that a sampling parameters become."""

from __future__ import annotations

from typing import Any

from rbee.contracts.tasks import Sampling
from rbee.worker.text.sampling import PENALTY_WINDOW, Stage, build_chain


def kinds(sampling: Sampling) -> list[Stage]:
    return [kind for kind, _ in build_chain(sampling, 7).stages]


def plain(**fields: Any) -> Sampling:
    """Sampling without penalties."""
    return Sampling.model_validate({"repeat_penalty": 1.0, **fields})


def test_temperature_zero_is_greedy() -> None:
    """At temperature 0 the likeliest token is taken and no chance is left."""
    assert kinds(plain(temperature=0)) == [Stage.GREEDY]


def test_the_order_of_the_chain() -> None:
    """Penalties come before the cuts, then comes the temperature, and chance decides last, with the seed."""
    chain = build_chain(plain(repeat_penalty=1.1, top_k=40), 7)

    names = [stage.value for stage, _ in chain.stages]
    assert names == ["top_k", "penalties", "top_k", "top_p", "min_p", "temperature", "random"]
    assert chain.history == PENALTY_WINDOW
    assert chain.stages[-1] == (Stage.RANDOM, (7,))


def test_stages_without_effect_are_left_out() -> None:
    """Values that change nothing cost nothing."""
    chain = build_chain(plain(temperature=1, top_k=0, top_p=1, min_p=0), 7)

    assert chain.history == 0
    assert chain.stages == ((Stage.RANDOM, (7,)),)


def test_penalties_look_at_few_tokens_where_that_is_the_same() -> None:
    """Penalties that only take away see the first tokens and as many more as they can push out of those."""
    chance = build_chain(plain(repeat_penalty=1.1, top_k=40), 7)
    greedy = build_chain(plain(temperature=0, presence_penalty=1), 7)

    first = [(stage.value, numbers) for stage, numbers in (chance.stages[0], greedy.stages[0])]
    assert first == [("top_k", (40 + PENALTY_WINDOW,)), ("top_k", (1 + PENALTY_WINDOW,))]


def test_penalties_that_add_look_at_all_tokens() -> None:
    """A negative penalty may lift any token, and without top_k any token may be chosen."""
    assert kinds(plain(temperature=0, presence_penalty=-1)) == [Stage.PENALTIES, Stage.GREEDY]
    assert kinds(plain(temperature=0, repeat_penalty=0.5)) == [Stage.PENALTIES, Stage.GREEDY]
    assert kinds(plain(repeat_penalty=1.1, top_k=0))[0] is Stage.PENALTIES
