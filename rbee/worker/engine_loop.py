"""The engine's thread once loading is over: it serves until told to stop, and reports every failure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.chat.prompts import PromptTokenizer
from rbee.worker.engine.protocol import Engine, EngineFailedError
from rbee.worker.engine.thread import LoadResult
from rbee.worker.generation import Generation
from rbee.worker.scheduling.batcher import Batcher, Delivery
from rbee.worker.settings import WorkerSettings
from rbee.worker.template_file import read_template

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineLoop:
    """The work of the engine's thread, and the functions of the event loop that it reports to.

    Args:
        post: schedules a call on the event loop.
        on_loaded: the engine is ready.
        on_delivery: a step has generated events.
        on_failure: the engine cannot go on; with the generations that will not finish.
    """

    settings: WorkerSettings
    post: Callable[..., None]
    on_loaded: Callable[[Engine, Batcher, PromptTokenizer], None]
    on_delivery: Callable[[Delivery], None]
    on_failure: Callable[[RbeeError, list[Generation]], None]

    def __call__(self, result: LoadResult) -> None:
        """Serve with the loaded engine until told to stop."""
        batcher: Batcher | None = None
        try:
            if isinstance(result, Exception):
                raise result
            file = self.settings.chat_template_file
            tokenizer = PromptTokenizer(result, None if file is None else read_template(file))
            batcher = Batcher(
                result,
                self.settings.slots,
                prompt_batch=self.settings.prompt_tokens_per_step,
                deliver=self._deliver,
                speculate=self._draft_tokens(result),
            )
            self.post(self.on_loaded, result, batcher, tokenizer)
            batcher.run()
            result.close()
        except RbeeError as error:
            self._fail(error, batcher)
        except EngineFailedError as error:
            self._fail(RbeeError(ErrorCode.WORKER_CRASHED, f"The engine failed: {error}."), batcher)
        except Exception:  # the thread's outermost frame: a bug must not leave a worker that looks alive
            log.exception("BUG: the engine's thread died")
            reason = "The worker's engine thread died because of a bug; its log has the traceback."
            self._fail(RbeeError(ErrorCode.WORKER_CRASHED, reason), batcher)

    def _draft_tokens(self, engine: Engine) -> int:
        """Return how many tokens may be drafted: none where the engine could not undo a wrong draft."""
        if self.settings.speculate and not engine.can_rewind:
            log.warning(
                "speculation is off: the state of this model cannot be rewound after a wrong draft",
                extra={"fields": {"model": engine.facts.description, "speculate": self.settings.speculate}},
            )
            return 0
        return self.settings.speculate

    def _deliver(self, delivery: Delivery) -> None:
        self.post(self.on_delivery, delivery)

    def _fail(self, error: RbeeError, batcher: Batcher | None) -> None:
        self.post(self.on_failure, error, batcher.unfinished() if batcher else [])
