"""Draw the fleet for a terminal: machines with their memory, models, requests. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from rbee.keeper.queen.fleet_rows import DeviceUse, FleetRows, Row, devices, name_of, shares, short_name, tokens_per_s
from rbee.keeper.ui.output import elapsed_text, size_text
from rbee.keeper.ui.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

# Told apart by shape too, where there is no colour.
_WORKERS: Final = (("█", "cyan"), ("▓", "magenta"), ("█", "blue"), ("▓", "green"))
_FOREIGN: Final = ("▒", "red")
_FREE: Final = ("░", "dim")
_STATES: Final = {
    "idle": "green",
    "busy": "yellow",
    "loading": "cyan",
    "starting": "cyan",
    "running": "yellow",
    "waiting": "cyan",
    "failed": "red",
    "missing": "red",
    "degraded": "red",
    "serving": "green",
}
_BAR_CELLS: Final = (8, 40)
_BESIDE_THE_BAR: Final = 62
_LABEL_CELLS: Final = 24
_LEAST_REQUESTS: Final = 3


def frame(rows: FleetRows, *, width: int, height: int, now_unix: float) -> Group:
    """Return the whole picture; requests are left out, the oldest that have ended first, where *height* ends."""
    parts: list[RenderableType] = [_headline(rows, now_unix), Text(), _machines(rows, width)]
    for title, table in (("models", _models(rows, now_unix)), ("downloads", _downloads(rows))):
        if table.row_count:
            parts += [Text(), Text(title, "bold"), table]
    used = sum(part.row_count if isinstance(part, Table) else 1 for part in parts)
    most = max(_LEAST_REQUESTS, height - used - 4)
    parts += [Text(), Text("requests", "bold"), *_requests(rows.of("task"), most, now_unix)]
    return Group(*parts)


def _headline(rows: FleetRows, now_unix: float) -> Text:
    queen = next(iter(rows.of("queen")), {})
    nodes, tasks = rows.of("node"), rows.of("task")
    connected = sum(bool(node["connected"]) for node in nodes)
    counts = {state: sum(task["state"] == state for task in tasks) for state in ("running", "waiting")}
    facts = [
        f"{connected} of {len(nodes)} machines",
        f"{len(rows.of('worker'))} workers",
        f"{counts['running']} running",
        f"{counts['waiting']} waiting",
    ]
    if "started_unix" in queen:
        facts.append(f"up {elapsed_text(max(0.0, now_unix - queen['started_unix']))}")
    if queen.get("draining"):
        facts.append("stopping")
    return Text(f"rbee {queen.get('version', '')}  ", "bold").append("  ".join(facts), "not bold")


def _machines(rows: FleetRows, width: int) -> Table:
    table = _table()
    cells = min(max(_BAR_CELLS[0], width - _BESIDE_THE_BAR), _BAR_CELLS[1])
    for use in devices(rows):
        _add(
            table,
            use.node,
            use.label,
            _bar(use, cells),
            f"{size_text(use.total - use.free)} of {size_text(use.total)}",
            _held(use),
        )
    for node in rows.of("node"):
        if not node["connected"]:
            _add(
                table,
                node["node"],
                "",
                Text("not connected", "red"),
                "",
                str(node.get("last_error") or "not tried yet"),
            )
        for backend, fault in node.get("faults", {}).items():
            _add(table, node["node"], backend, Text("cannot be used", "red"), "", str(fault))
    for column in table.columns[:4]:  # of what does not fit, the names of models are cut
        column.min_width = min(max((cell_len(str(cell)) for cell in column.cells), default=0), max(cells, _LABEL_CELLS))
    if not table.row_count:
        _add(table, Text("No machine is registered. To add one: rbee-keeper config set-ssh --help", "dim"))
    return table


def _bar(use: DeviceUse, cells: int) -> Text:
    parts = [size for _, size in use.workers] + [use.foreign]
    looks = [_WORKERS[index % len(_WORKERS)] for index in range(len(use.workers))] + [_FOREIGN]
    bar = Text()
    for count, (mark, style) in zip(shares(parts, use.total, cells), looks, strict=True):
        bar.append(mark * count, style)
    return bar.append(_FREE[0] * (cells - len(bar)), _FREE[1])


def _held(use: DeviceUse) -> Text:
    held = Text()
    for index, (name, size) in enumerate(use.workers):
        held.append(f"{printable(name)} {size_text(size)}  ", _WORKERS[index % len(_WORKERS)][1])
    return held.append(use.note, "yellow")


def _models(rows: FleetRows, now_unix: float) -> Table:
    """List the workers, and the declared models that have none or not enough."""
    table = _table()
    loads = {load["worker_id"]: load for load in rows.of("load")}
    for worker in rows.of("worker"):
        total, free = worker.get("slots_total", 0), worker.get("slots_available", 0)
        active = worker.get("last_active_unix") or worker.get("started_unix") or now_unix
        idle = (
            f"unused for {elapsed_text(max(0.0, now_unix - active))}"
            if worker["state"] == "idle" and free == total
            else ""
        )
        where = f"{worker['node']} {worker['backend']}:{worker['device']}"
        slots = f"{total - free} of {total} slots" if total else ""
        load = loads.get(worker["worker_id"])
        if load is not None and load["layers_total"]:
            slots = f"{load['layers_loaded']} of {load['layers_total']} layers"
        _add(table, name_of(worker), where, _state(worker["state"]), slots, idle or str(worker.get("detail") or ""))
    for served in rows.of("served"):
        if served["state"] not in ("serving", "on demand") or served.get("reason"):
            _add(
                table,
                served["declared"]["name"],
                "",
                _state(served["state"]),
                "",
                _text(str(served.get("reason") or ""), "dim"),
            )
    return table


def _downloads(rows: FleetRows) -> Table:
    table = _table()
    for row in rows.of("download"):
        total, got, speed = row.get("bytes_total"), row.get("bytes_downloaded", 0), row.get("speed_mbps", 0)
        share = f"{100 * got / total:.0f} % of {size_text(total)}" if total else ""
        source = f"from {row['source']}" if row.get("source") else ""
        pace = f"{speed:.0f} Mbit/s" if speed else ""
        _add(table, short_name(row["reference"]), row["node"], row["stage"], share, pace, source)
    return table


def _requests(tasks: list[Row], most: int, now_unix: float) -> list[RenderableType]:
    """Show those that have not ended, the first to come first, then those that ended last."""
    open_ = [task for task in tasks if task["state"] in ("running", "waiting")]
    ended = [task for task in reversed(tasks) if task["state"] not in ("running", "waiting")]
    shown = [*open_, *ended][:most]
    if not shown:
        return [Text("none yet", "dim")]
    table = _table("state", "client", "model", "node", "waited", "first", "tokens", "tok/s", "cached")
    for task in shown:
        pace = tokens_per_s(task, now_unix)
        state = (
            f"{task['position']}. of {task['queue_length']}"
            if task.get("position")
            else str(task.get("error") or task["state"])
        )
        prompt = task.get("prompt_tokens")
        _add(
            table,
            _text(state, _STATES.get(task["state"], "dim" if task["state"] == "done" else "")),
            task["client"],
            short_name(task["model"]),
            task.get("node", ""),
            _seconds(task.get("waited_s")),
            _seconds(task.get("first_token_s")),
            str(task["tokens"]),
            "" if pace is None else f"{pace:.1f}",
            f"{task.get('cached_tokens', 0)} of {prompt}" if prompt else "",
        )
    left = len(open_) - len([task for task in shown if task in open_])
    return [table, Text(f"and {left} more", "dim")] if left else [table]


def _state(state: str) -> Text:
    return _text(state, _STATES.get(state, ""))


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style)


def _add(table: Table, *cells: str | Text) -> None:
    """Add a row; what it says is no markup of rich, whatever it is."""
    table.add_row(*(_text(cell) if isinstance(cell, str) else cell for cell in cells))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=bool(columns), header_style="dim", padding=(0, 2, 0, 0))
    for column in columns or ("",) * 6:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    return table
