"""What the engine's thread does once its loading is over: serve until told to stop, and never die unheard."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.batcher import Batcher, Delivery
from rbee.worker.engine.protocol import Engine, EngineFailedError
from rbee.worker.engine.thread import Outcome
from rbee.worker.generation import Generation
from rbee.worker.prompts import Prompts
from rbee.worker.settings import WorkerSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineWork:
    """The work, and what is told of it on the event loop.

    Args:
        post: has a function called on the event loop.
        loaded: the engine is there.
        deliver: a step has given something.
        failed: it cannot go on; with the generations that will not be ended.
    """

    settings: WorkerSettings
    post: Callable[..., None]
    loaded: Callable[[Engine, Batcher, Prompts], None]
    deliver: Callable[[Delivery], None]
    failed: Callable[[RbeeError, list[Generation]], None]

    def __call__(self, outcome: Outcome) -> None:
        """Serve with the engine that was loaded until told to stop."""
        batcher: Batcher | None = None
        try:
            if isinstance(outcome, Exception):
                raise outcome
            prompts = Prompts(outcome, self.settings.chat_template())
            batcher = Batcher(
                outcome,
                self.settings.slots,
                prompt_batch=self.settings.prompt_tokens_per_step,
                deliver=self._delivered,
                speculate=self._speculate(outcome),
            )
            self.post(self.loaded, outcome, batcher, prompts)
            with contextlib.suppress(RbeeError):  # a request that needs the template will be told
                prompts.template()
            batcher.run()
            outcome.close()
        except RbeeError as error:
            self._give_up(error, batcher)
        except EngineFailedError as error:
            self._give_up(RbeeError(ErrorCode.WORKER_CRASHED, f"The engine failed: {error}."), batcher)
        except Exception:  # the thread's edge: a bug here must not leave a worker that looks alive
            log.exception("BUG: the engine's thread died")
            reason = "The worker's engine thread died of a bug; its log has more."
            self._give_up(RbeeError(ErrorCode.WORKER_CRASHED, reason), batcher)

    def _speculate(self, engine: Engine) -> int:
        """Give how many tokens may be guessed: none where the engine could not take a wrong guess back."""
        if self.settings.speculate and not engine.can_rewind:
            log.warning(
                "speculation is off: the state of this model cannot be cut back after a wrong guess",
                extra={"fields": {"model": engine.facts.description, "speculate": self.settings.speculate}},
            )
            return 0
        return self.settings.speculate

    def _delivered(self, delivery: Delivery) -> None:
        self.post(self.deliver, delivery)

    def _give_up(self, error: RbeeError, batcher: Batcher | None) -> None:
        self.post(self.failed, error, batcher.running() if batcher else [])
