"""`infer`: answer one prompt; start a queen, a hive and a worker as needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from rbee.keeper.ui.lazy import Flags, KeeperCommand
from rbee.keeper.ui.options import backend_option, device_option
from rbee.surrogates import whole_characters

if TYPE_CHECKING:
    from rbee.keeper.inference import Inference
    from rbee.keeper.queen.lifecycle import QueenHandle
    from rbee.keeper.session import Session

_MAX_PROMPT_CHARS = 2_000_000
_MAX_PROMPT_BYTES = 3_900_000  # a daemon refuses bodies over 4 MiB
_MAX_TOKENS = 1_000_000
_MAX_STOPS = 16
_MAX_STOP_CHARS = 256
_START_OVERS = 3
_STOPPING_QUEEN_GONE_S = 120.0
_LOST_QUEEN_GONE_S = 10.0


def _prompt(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if value == "-":
        raw = sys.stdin.buffer.read(_MAX_PROMPT_BYTES + 1)
        try:
            value = raw.decode("utf-8", "surrogatepass" if len(raw) <= _MAX_PROMPT_BYTES else "ignore")
        except UnicodeDecodeError as error:
            raise click.BadParameter(f"standard input is not UTF-8 text (byte {error.start}).") from error
        value = whole_characters(value)
    else:
        value = _readable(value)
    if not value.strip():
        raise click.BadParameter("the prompt is empty.")
    if len(value) > _MAX_PROMPT_CHARS or len(value.encode("utf-8", "replace")) > _MAX_PROMPT_BYTES:
        raise click.BadParameter(
            f"the prompt is longer than {_MAX_PROMPT_CHARS:,} characters ({_MAX_PROMPT_BYTES / 1e6:.1f} MB), "
            "which is more than any model accepts."
        )
    return value


def _readable(value: str) -> str:
    """Replace the bytes of an argument that are no text in the terminal's encoding by U+FFFD."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _max_tokens(_ctx: click.Context, _param: click.Parameter, value: int | None) -> int | None:
    if value is not None and not 1 <= value <= _MAX_TOKENS:
        raise click.BadParameter(
            f"{value} is not in the range 1 to {_MAX_TOKENS}. An answer ends where the context of the worker does: "
            f"for one without another limit, give {_MAX_TOKENS}."
        )
    return value


def _system(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    return None if value is None else _readable(value)


def _stops(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    value = tuple(_readable(stop) for stop in value)
    if len(value) > _MAX_STOPS:
        raise click.BadParameter(f"at most {_MAX_STOPS} stop texts are accepted.")
    if any(not 0 < len(stop) <= _MAX_STOP_CHARS for stop in value):
        raise click.BadParameter(f"a stop text must have 1 to {_MAX_STOP_CHARS} characters.")
    return value


@click.command(cls=KeeperCommand)
@click.option("--model", required=True, metavar="REF", help="A model: its reference, an alias, or a declared name.")
@click.option("--prompt", required=True, callback=_prompt, metavar="TEXT", help="The prompt; - reads it from stdin.")
@click.option("--node", metavar="NAME", help="The node to run on; without it, the queen chooses.")
@click.option(
    "--max-tokens",
    type=int,
    callback=_max_tokens,
    default=None,
    metavar="N",
    help=f"Generate at most N tokens, 1 to {_MAX_TOKENS}.  [default: the preset's, else 20]",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    default=None,
    metavar="X",
    help="Sampling temperature; 0 always takes the most likely token.  [default: the preset's, else 0.7]",
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1),
    default=None,
    metavar="X",
    help="Sample from the likeliest tokens up to this total probability.  [default: the preset's, else 0.95]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 2),
    default=None,
    metavar="N",
    help="Seed of the sampler; the same seed gives the same answer.",
)
@click.option(
    "--stop", multiple=True, callback=_stops, metavar="TEXT", help="Stop before this text; may be given several times."
)
@click.option("--system", callback=_system, metavar="TEXT", help="The system prompt.")
@click.option("--raw", is_flag=True, help="Send the prompt as it is, without the model's chat template.")
@click.option(
    "--priority",
    type=click.IntRange(-10, 10),
    default=None,
    metavar="N",
    help="Requests of higher priority get a free slot first.  [default: 0]",
)
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(0, 86_400, min_open=True),
    default=None,
    metavar="SECONDS",
    help="Give up after this time, waiting for a slot included.",
)
@backend_option
@device_option
@click.pass_obj
def infer(flags: Flags, /, model: str, prompt: str, stop: tuple[str, ...], **options: object) -> None:
    """Answer one prompt: the answer goes to stdout, progress to stderr.

    A running queen is used and left running. Where none runs, one is started for this command and stopped
    afterwards, with its hive and its workers.

    With --json each line of stdout is an event: narration, progress, placed, token, done, or {"error": ...}.
    """
    from rbee.keeper.inference import Inference
    from rbee.keeper.model_names import resolve_for
    from rbee.keeper.session import Session

    if options["raw"] and options["system"]:
        raise click.UsageError("--system needs the chat template, which --raw leaves out.")
    session = Session(flags, node=str(options["node"]) if options["node"] else None)
    request = {key: value for key, value in options.items() if value is not None}
    request |= {"model": resolve_for(session, model), "prompt": prompt, "stop": list(stop)}
    _run(session, Inference(request, session.out, session.settings.paths))


def _ensure_hives(session: Session, queen: QueenHandle, inference: Inference) -> None:
    """Start the hive of the machine that was asked for; without one, see that the queen knows all of the inventory.

    The queen itself starts that of localhost. One that was started for this command knows the inventory already.
    """
    from rbee.contracts.ids import LOCALHOST_NODE
    from rbee.keeper.fleet.registration import register_missing
    from rbee.keeper.fleet.remote_hive import RemoteHive

    if inference.node is None and not queen.owned:
        register_missing(session, queen.client)
    if inference.node in (None, LOCALHOST_NODE):
        return
    hive = RemoteHive(session, queen.client, str(inference.node), inference.say)
    try:
        hive.ensure()
    finally:
        if hive.started:
            queen.started_hives.append(str(inference.node))


def _run(session: Session, inference: Inference) -> None:
    """Run it; start over with a new queen if one that is not ours stops before the first token."""
    from rbee.contracts.errors import ErrorCode
    from rbee.errors import RbeeError
    from rbee.keeper.fleet.inventory import inventory_path
    from rbee.keeper.queen.lifecycle import queen_for, wait_until_gone

    for attempt in range(1, _START_OVERS + 1):
        with queen_for(session) as queen:
            try:
                _ensure_hives(session, queen, inference)
                return inference.run(queen.client)
            except RbeeError as error:
                nowhere = error.code is ErrorCode.NODE_NOT_FOUND and inference.node is None
                if nowhere and inventory_path(session.settings).exists():
                    error.hint = "To install hives on the machines of the inventory: rbee-keeper hive install --all"
                if queen.owned or attempt == _START_OVERS or not inference.may_retry(error, queen.client):
                    raise
                lost = error
                stopping = error.code is ErrorCode.DRAINING
                what = "is stopping" if stopping else "was lost"
                session.out.say(f"The queen {what} ({error.message}); starting over when it has stopped", "🔁")
        if not wait_until_gone(session.settings, _STOPPING_QUEEN_GONE_S if stopping else _LOST_QUEEN_GONE_S):
            if not stopping:
                raise lost
            session.out.say("The queen still responds; retrying", "🔁")
    raise AssertionError("the last attempt returns or raises")
