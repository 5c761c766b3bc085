"""Decide how many tokens of long prompts one round evaluates while streams run, from the earlier rounds. Pure."""

from __future__ import annotations

from typing import Final

# Of the time that a step of the streams alone takes: a running stream then waits 2.2 times as long as usual, of the 3
# that are promised; the rest is for steps that take longer than the last ones did.
_PROMPTS_SHARE: Final = 1.2
_FIRST: Final = 16
_LEAST: Final = 2  # one row is computed in another way than several
_SMOOTHING: Final = 0.2
_SLOWER, _FASTER = 0.25, 1.25


class PrefillBudget:
    """The prompt tokens that a round may have; *most* is never exceeded."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tokens = float(min(_FIRST, most))
        self._step_s: float | None = None

    @property
    def tokens(self) -> int:
        """Return the budget of the next round."""
        return int(self._tokens)

    def record_round(self, streams_s: float, prompts_s: float, tokens: int) -> None:
        """Adapt to a round: seconds for the streams, seconds for *tokens* of prompts; 0 for what it did not have.

        The budget shrinks at once after a round that was too long, and grows slowly.
        """
        if streams_s > 0:
            before = streams_s if self._step_s is None else self._step_s
            self._step_s = before + _SMOOTHING * (streams_s - before)
        if self._step_s is None or not tokens or prompts_s <= 0:
            return
        fits = tokens * _PROMPTS_SHARE * self._step_s / prompts_s
        wanted = min(max(fits, self._tokens * _SLOWER), self._tokens * _FASTER)
        self._tokens = min(max(wanted, min(_LEAST, self._most)), self._most)
