"""`infer`: answer one prompt, starting whatever is missing for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from rbee.keeper.ui.lazy import Flags, KeeperCommand
from rbee.keeper.ui.options import backend_option, device_option

if TYPE_CHECKING:
    from rbee.keeper.inference import Inference
    from rbee.keeper.queen.lifecycle import QueenHandle
    from rbee.keeper.session import Session

_MAX_PROMPT_CHARS = 2_000_000
_MAX_PROMPT_BYTES = 3_900_000  # a daemon refuses bodies over 4 MiB
_MAX_STOPS = 16
_MAX_STOP_CHARS = 256
_START_OVERS = 3
_OLD_QUEEN_GONE_S = 120.0


def _prompt(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if value == "-":
        raw = sys.stdin.buffer.read(_MAX_PROMPT_BYTES + 1)
        try:
            value = raw.decode("utf-8") if len(raw) <= _MAX_PROMPT_BYTES else raw.decode("utf-8", "ignore")
        except UnicodeDecodeError as error:
            raise click.BadParameter(f"standard input is not UTF-8 text (byte {error.start}).") from error
    if not value.strip():
        raise click.BadParameter("the prompt is empty.")
    if len(value) > _MAX_PROMPT_CHARS or len(value.encode("utf-8", "replace")) > _MAX_PROMPT_BYTES:
        raise click.BadParameter(
            f"the prompt is longer than {_MAX_PROMPT_CHARS:,} characters ({_MAX_PROMPT_BYTES / 1e6:.1f} MB), "
            "which is more than any model here takes."
        )
    return value


def _stops(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > _MAX_STOPS:
        raise click.BadParameter(f"at most {_MAX_STOPS} stop texts.")
    if any(not 0 < len(stop) <= _MAX_STOP_CHARS for stop in value):
        raise click.BadParameter(f"a stop text has 1 to {_MAX_STOP_CHARS} characters.")
    return value


@click.command(cls=KeeperCommand)
@click.option("--model", required=True, metavar="REF", help="A model reference, or an alias such as demo.")
@click.option("--prompt", required=True, callback=_prompt, metavar="TEXT", help="What to answer; - reads stdin.")
@click.option("--node", metavar="NAME", help="Where to run; without it the queen chooses.")
@click.option("--max-tokens", type=click.IntRange(1, 1_000_000), default=20, show_default=True)
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.7, show_default=True)
@click.option(
    "--top-p", type=click.FloatRange(0, 1), default=None, help="Keep tokens up to this share.  [default: 0.95]"
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 2), default=None, help="The same seed gives the same answer.")
@click.option("--stop", multiple=True, callback=_stops, metavar="TEXT", help="Stop before this text; repeatable.")
@click.option("--system", metavar="TEXT", help="Instructions that stand before the prompt.")
@click.option("--raw", is_flag=True, help="Take the prompt as it is, without the model's chat template.")
@click.option(
    "--priority",
    type=click.IntRange(-10, 10),
    default=None,
    help="Who waits for a slot with a higher one comes first.  [default: 0]",
)
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(0, 86_400, min_open=True),
    default=None,
    metavar="SECONDS",
    help="Wait for a slot, and generate, no longer than this.",
)
@backend_option
@device_option
@click.pass_obj
def infer(flags: Flags, /, model: str, prompt: str, stop: tuple[str, ...], **wish: object) -> None:
    """Answer one prompt: the answer to stdout as it comes, the story to stderr.

    A queen that runs is used and left alone; if none does, one is started and ended with everything below it.
    With --json each line of stdout is an event: narration, progress, placed, token, done, or {"error": ...}.
    """
    from rbee.keeper.inference import Inference
    from rbee.keeper.model_names import resolve
    from rbee.keeper.session import Session

    if wish["raw"] and wish["system"]:
        raise click.UsageError("--system needs the chat template, and --raw leaves it out.")
    session = Session(flags, node=str(wish["node"]) if wish["node"] else None)
    request = {key: value for key, value in wish.items() if value is not None}
    request |= {"model": resolve(model, session.settings.aliases), "prompt": prompt, "stop": list(stop)}
    _run(session, Inference(request, session.out, session.settings.paths))


def _ensure_remote_hive(session: Session, queen: QueenHandle, inference: Inference) -> None:
    """See that the hive of another machine serves; that of localhost is the queen's own care."""
    from rbee.contracts.ids import LOCALHOST_NODE
    from rbee.keeper.fleet.remote_hive import RemoteHive

    if inference.node in (None, LOCALHOST_NODE):
        return
    hive = RemoteHive(session, queen.client, str(inference.node), inference.say)
    try:
        hive.ensure()
    finally:
        if hive.started:
            queen.started.append(str(inference.node))


def _run(session: Session, inference: Inference) -> None:
    """Run it; a queen of somebody else's that ends before the first token is replaced."""
    from rbee.errors import RbeeError
    from rbee.keeper.queen.lifecycle import queen_for, wait_until_gone

    for attempt in range(1, _START_OVERS + 1):
        with queen_for(session) as queen:
            try:
                _ensure_remote_hive(session, queen, inference)
                return inference.run(queen.client)
            except RbeeError as error:
                if queen.own or attempt == _START_OVERS or not inference.may_retry(error):
                    raise
                session.out.say(f"The queen is ending ({error.message}); starting over when she is gone", "🔁")
        if not wait_until_gone(session.settings, _OLD_QUEEN_GONE_S):
            session.out.say("She still answers; trying her again", "🔁")
    raise AssertionError("the last attempt returns or raises")
