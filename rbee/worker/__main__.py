"""The program llm-worker-rbee: the model begins to load while the web server is still being imported."""

from __future__ import annotations

import gc
import os
import sys
from typing import Final, NoReturn

from rbee import lifeline

PROGRAM: Final = "llm-worker-rbee"
# The engine's thread needs the interpreter briefly but often, while it loads and after each step; by default it may
# wait 5 ms each time for the other thread to let go.
GIL_SWITCH_S: Final = 0.0002


def main() -> NoReturn:
    """Run one worker. Exit codes: 0 ended as asked, 1 failed, others see `EXIT_CODES`."""
    owner = lifeline.attach(listen=False)
    # Until the server runs: the collector would scan everything that is being imported, again and again.
    gc.disable()
    sys.setswitchinterval(GIL_SWITCH_S)
    ordered = sys.argv[1:] == [lifeline.ORDERED]
    if ordered:
        from rbee.worker import spare

        spare.prepare(owner)
    from rbee.daemonkit.cli import reported_failures

    with reported_failures(PROGRAM, owner):
        if ordered:
            sys.argv[1:] = spare.await_orders(owner)
        code = _run(owner)
    _leave(code)


def _run(owner: lifeline.OwnerLink) -> int:
    from rbee.daemonkit.cli import Program
    from rbee.observe import logs
    from rbee.worker.confinement import confine
    from rbee.worker.engine.thread import EngineThread
    from rbee.worker.settings import WorkerSettings

    program = Program(PROGRAM, WorkerSettings, description="Serve one model on one device.")
    settings = program.parse(sys.argv[1:], os.environ, owner)
    logs.configure(settings.worker_id, level=settings.log_level, secrets=(settings.key,))
    confine(settings)  # while there is one thread
    owner.listen()
    thread = EngineThread(settings.engine, settings.engine_options())
    from rbee.worker.app import run

    return run(settings, thread, owner)


def _leave(code: int) -> NoReturn:
    """Exit without the interpreter's own shutdown, which would wait for native threads that hang."""
    import logging

    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
