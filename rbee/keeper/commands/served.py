"""`models serve`, `unserve`, `plan` and `served`: declare what the queen keeps served, and see what became of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup
from rbee.keeper.ui.options import backend_option, where_options

if TYPE_CHECKING:
    from rbee.keeper.session import Session

_PRESET: Final = re.compile(r"(?P<name>[^:=,]+):(?P<values>.+)", re.DOTALL)
_NEXT_VALUE: Final = re.compile(r",(?=\w+=)")
Command = TypeVar("Command", bound=Callable[..., Any])
_PRESET_KEYS: Final = (
    "temperature, top_p, top_k, min_p, repeat_penalty, presence_penalty, max_tokens, enable_thinking, "
    "reasoning_effort, system"
)
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def _presets(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for text in value:
        preset = _PRESET.fullmatch(text.strip())
        pairs = _NEXT_VALUE.split(preset["values"]) if preset else []
        if preset is None or not all("=" in pair for pair in pairs):
            raise click.BadParameter(
                f"{text[:100]!r} is not a name with its values: write NAME:temperature=0.2,max_tokens=100 "
                f"({_PRESET_KEYS})."
            )
        name, values = preset["name"].strip(), {}
        for key, _, said in (pair.partition("=") for pair in pairs):
            if key.strip() in values:
                raise click.BadParameter(f"{key.strip()} of {name} is given twice; leave one out.")
            values[key.strip()] = said.strip()
        if name in found:
            raise click.BadParameter(f"{name} is given twice; write all its values in one --preset.")
        found[name] = values
    return found


def _whole_path(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    return None if value is None else str(Path(value).expanduser().absolute())


_OPTIONS: Final = (
    click.option(
        "--replicas",
        type=click.IntRange(0, 64),
        metavar="N",
        help="Keep N workers up; without it or with 0, one is started on demand.",
    ),
    click.option(
        "--keep",
        metavar="TIME",
        help="How long an unused worker stays: 90s, 5m, 2h, or 'always', which never gives way to another model.  "
        "[default: 5m]",
    ),
    where_options,
    backend_option,
    click.option(
        "--device",
        "devices",
        type=click.IntRange(min=0),
        multiple=True,
        metavar="NUMBER",
        help="Use only this device of the backend; may be given several times.",
    ),
    click.option(
        "--slots", type=click.IntRange(1, 64), metavar="N", help="Serve up to N requests at once in a worker."
    ),
    click.option(
        "--context-length",
        type=click.IntRange(min=64),
        metavar="TOKENS",
        help="Context length of each slot, in tokens.",
    ),
    click.option(
        "--cache-type",
        type=click.Choice(["f32", "f16", "bf16", "q8_0"]),
        help="Number format of the KV cache; q8_0 halves it.",
    ),
    click.option(
        "--flash-attention/--no-flash-attention", default=None, help="Without it, on wherever it is supported."
    ),
    click.option("--prompt-batch", type=click.IntRange(4, 8192), metavar="N", help="Prompt tokens evaluated at once."),
    click.option(
        "--speculate", type=click.IntRange(0, 62), metavar="N", help="Tokens to draft in one step; 0 for none."
    ),
    click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Compute threads."),
    click.option(
        "--chat-template",
        "chat_template_file",
        callback=_whole_path,
        metavar="FILE",
        help="A file on the node with a chat template (Jinja) to use instead of the model's own.",
    ),
    click.option(
        "--preset",
        "presets",
        multiple=True,
        callback=_presets,
        metavar="NAME:KEY=VALUE,...",
        help="A further name of the model, with what its requests have where they do not say it: "
        f"{_PRESET_KEYS}. May be given several times.",
    ),
    click.option(
        "--fallback",
        multiple=True,
        metavar="NAME",
        help="Another declared model, or a preset of one, to use where this one cannot be served now; may be given "
        "several times. Who may use NAME may use it so.",
    ),
)


def declaration_options(command: Command) -> Command:
    """Add the options of a declaration, but for its model."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(cls=KeeperGroup.command_class)
@click.argument("name", metavar="NAME")
@click.option("--model", required=True, metavar="REF", help="A model reference, or an alias such as demo.")
@declaration_options
@click.pass_obj
def serve(flags: Flags, /, name: str, nodes: list[str], **options: Any) -> None:
    """Declare a model that is served under NAME.

    NAME is what clients ask for; the queen sees to it. What is declared survives a restart of the queen; to change it,
    declare it again, as a whole. Every option of a worker is for this model only; what is left out is its hive's. For
    example, a model of which two workers are always up:

        rbee-keeper models serve chat --model hf:org/repo:Q4_K_M --replicas 2 --keep always

    The same one with a second name, for short and exact answers:

        ... --preset 'chat-exact:temperature=0,max_tokens=200'

    Where an inventory describes the machines, rbee_served_models in it does the same.
    """
    from rbee.keeper.session import Session

    session = Session(flags)
    spec = _declared(session, name, nodes, options)
    queen = session.queen()
    row = queen.declare(name, spec)
    if flags.json:
        session.out.data(row)
        return
    session.out.text(f"{name} is declared: {row['declared']['model']}, {_wanted(row['declared'])}")
    names = ", ".join([name, *row["declared"]["presets"]])
    session.out.say(f"Clients ask for: {names}. To see what becomes of it: rbee-keeper models served")
    _warn_of_unknown(session, nodes, {str(hive["node"]) for hive in queen.hives()})


@click.command(cls=KeeperGroup.command_class)
@click.argument("name", metavar="NAME")
@click.pass_obj
def unserve(flags: Flags, /, name: str) -> None:
    """Remove the declaration of NAME.

    Its files stay where they are, and a model of a catalog can still be asked for by its reference.
    """
    from rbee.keeper.session import Session

    session = Session(flags)
    queen = session.queen()
    queen.remove_declaration(name)
    place = next((row["place"] for row in queen.served()["served"] if row["declared"]["name"] == name), None)
    if flags.json:
        session.out.data({"removed": name, "declared_in": place})
    elif place is None:
        session.out.text(f"{name} is not declared any more")
    else:
        session.out.text(f"{name} stays declared in {place}; what a command had declared beside that is removed")


@click.command(cls=KeeperGroup.command_class)
@click.pass_obj
def served(flags: Flags, /) -> None:
    """List the declared models and their state.

    They are declared by the inventory (rbee_served_models), by the queen's config file, or by `models serve`. With
    --json each has its options, presets and workers.
    """
    from rbee.keeper.session import Session

    session = Session(flags)
    listed = session.queen().served()
    if flags.json:
        session.out.data(listed)
        return
    session.out.table(
        ["name", "model", "wanted", "where", "state", "workers", "declared by"],
        [_cells(row, session.settings.aliases) for row in listed["served"]],
        empty="No model is declared. To declare one: rbee-keeper models serve NAME --model REF",
    )
    if listed.get("problem"):
        session.out.warn(str(listed["problem"]))


@click.command(cls=KeeperGroup.command_class)
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--model", metavar="REF", help="A model reference, or an alias such as demo; with NAME.")
@declaration_options
@click.option("--remove", multiple=True, metavar="NAME", help="A declaration that would be removed.")
@click.pass_obj
def plan(flags: Flags, /, name: str | None, model: str | None, remove: tuple[str, ...], **options: Any) -> None:
    """Show what a change of the declared models would do, without doing it.

    With NAME and the options of `models serve`, as if the model were declared so; with --remove, as if that declaration
    were gone; with neither, what is to be done next as it is. Each step is the next one: a worker that is to be
    replaced ends only after another one serves, where memory allows it.
    """
    from rbee.keeper.session import Session

    if (name is None) != (model is None):
        raise click.UsageError("NAME and --model belong together.")
    session = Session(flags)
    nodes = options.pop("nodes")
    put = [] if name is None else [{**_declared(session, name, nodes, {"model": model, **options}), "name": name}]
    found = session.queen().plan(put, list(remove))
    if flags.json:
        session.out.data(found)
        return
    session.out.table(
        ["step", "model", "node", "on", "worker", "gives way", "why"],
        [_step_cells(step) for step in found["steps"]],
        empty="Nothing would be started or ended.",
    )
    for row in found["models"]:
        if row["reason"]:
            session.out.say(f"{row['name']}: {row['state']}: {row['reason']}")


def _step_cells(step: Mapping[str, Any]) -> list[str]:
    return [
        step["action"],
        step["model"],
        step["node"],
        f"{step['backend']}:{step['device']}",
        step["worker_id"] or "new",
        ", ".join(worker["name"] for worker in step["evict"]) or "-",
        step["reason"],
    ]


def _declared(session: Session, name: str, nodes: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is declared by options, with the reference of its model. Raises RbeeError INVALID_REQUEST."""
    from rbee.config.served import parse
    from rbee.contracts.errors import ErrorCode
    from rbee.errors import RbeeError

    spec = _spec(nodes, options)
    model, findings = parse(name, spec, session.settings.aliases)
    if model is None:
        first, *others = [f"{finding.reason}{'' if finding.reason.endswith('?') else '.'}" for finding in findings]
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            first,
            details={"also": [{"message": reason} for reason in others]},
            hint="Correct it and run the command again: rbee-keeper models serve --help",
        )
    return {**spec, "model": model.model}


def _spec(nodes: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is declared: the options that were given."""
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    given = {key: value for key, value in given.items() if value not in (None, [], {})}
    where = {"nodes": list(nodes), "backend": given.pop("backend", None), "devices": given.pop("devices", [])}
    where = {key: value for key, value in where.items() if value}
    return {**given, "where": where} if where else given


def _warn_of_unknown(session: Session, nodes: Sequence[str], known: set[str]) -> None:
    unknown = [node for node in nodes if node not in known]
    if unknown:
        are = "is no node" if len(unknown) == 1 else "are no nodes"
        session.out.warn(f"{', '.join(unknown)} {are} of this queen so far. To see its nodes: rbee-keeper hive status")


def _cells(row: Mapping[str, Any], aliases: Mapping[str, str]) -> list[str]:
    from rbee.contracts.references import shown_reference
    from rbee.keeper.model_names import display_name

    declared, where = row["declared"], row["declared"]["where"]
    presets = f" ({', '.join(declared['presets'])})" if declared["presets"] else ""
    places = [*where["nodes"], *([where["backend"]] if where["backend"] else [])]
    places += [f"device {number}" for number in where["devices"]]
    return [
        declared["name"] + presets,
        display_name(shown_reference(declared["model"]), aliases),
        _wanted(declared),
        ", ".join(places) or "anywhere",
        row["state"] + (f": {row['reason']}" if row["reason"] else ""),
        ", ".join(f"{worker['node']} {worker['state']}" for worker in row["workers"]) or "-",
        str(row["place"] or "command"),
    ]


def _wanted(declared: Mapping[str, Any]) -> str:
    """Return in words how many workers are kept up, and how long others stay."""
    count, keep = declared["replicas"], declared["keep"]
    if count:
        number = "1 worker" if count == 1 else f"{count} workers"
        return f"{number}, always" if keep == "always" else number
    if keep == "always":
        return "on demand, then always"
    size, unit = next((size, unit) for size, unit in _UNITS if keep % size == 0 or size == 1)
    return f"on demand, for {keep / size:g} {unit}"
