"""What a silent stream is told: that its request is worked on, at most once a second."""

from __future__ import annotations

from collections.abc import Sequence

from rbee.daemonkit.sse import PING, PING_INTERVAL_S
from rbee.worker.generation import Generation
from rbee.worker.progress_comments import ProgressComments
from rbee.worker.text.sampling import SamplerChain


def generation(evaluated: int, generated: int) -> Generation:
    one = Generation("r", [1] * 100, limit=10, chain=SamplerChain(()), seed=1, stops=())
    one.evaluated, one.generated = evaluated, generated
    return one


def comments(generations: Sequence[Generation], looks: Sequence[tuple[float, float]]) -> list[bytes]:
    """Look at each time, with the time of the engine's last progress; the stream began at 0."""
    now = progressed = 0.0
    told = ProgressComments(generations, lambda: progressed, clock=lambda: now)
    result = []
    for now, progressed in looks:  # noqa: B007 - read by the functions above
        result.append(told.next())
    return result


def test_progress_is_told_once_a_second_whoever_asks() -> None:
    """Several generations of one stream tell of the same progress once, with the tokens of them all."""
    told = comments([generation(40, 0), generation(100, 7)], [(1.0, 0.9), (1.1, 1.05), (2.0, 1.9)])

    assert told == [b": progress 140 of 200 prompt tokens, 7 tokens\n\n", b"", told[0]]


def test_an_engine_that_stands_still_tells_of_no_progress() -> None:
    """Only pings keep the connection open then, so that the queen sees a stall."""
    told = comments([generation(40, 0)], [(1.0, 0.0), (PING_INTERVAL_S, 0.0), (PING_INTERVAL_S + 1, 0.0)])

    assert told == [b"", PING, b""]
