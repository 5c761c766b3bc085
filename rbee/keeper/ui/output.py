"""Print everything of the keeper: data to stdout, narration and progress to stderr.

Colours and moving bars appear on a stream only if that stream is a terminal, NO_COLOR is unset and TERM is not dumb.
In a pipe tables are aligned plain lines and progress is a line now and then. Control characters go to a file as they
are; on a terminal they are shown and never obeyed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from rbee.keeper.ui.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table
    from rich.text import Text

    from rbee.keeper.ui.lazy import Flags

Rows = Sequence[Sequence[str]]
LINE_EVERY_SHARE = 0.25  # without a terminal, progress is printed each time another quarter is done


class Output:
    """Print for one command, as its flags say."""

    def __init__(self, flags: Flags) -> None:
        self.json = flags.json
        self.quiet = flags.quiet
        self._err: Console | None = None
        self._stdout_line_open = False

    def data(self, value: Any) -> None:
        """Print one JSON document: indented for a person, on one line for a pipe."""
        indent = 2 if is_terminal(sys.stdout) else None
        self._write(json.dumps(value, indent=indent, ensure_ascii=not _supports_unicode(sys.stdout)) + "\n")

    def event(self, kind: str, value: dict[str, Any]) -> None:
        """Print one line of a JSON stream: *value* with its kind as `event`."""
        ascii_only = not _supports_unicode(sys.stdout)
        self._write(json.dumps({"event": kind, **value}, ensure_ascii=ascii_only, separators=(",", ":")) + "\n")

    def text(self, text: str) -> None:
        """Print a line of data."""
        self._write(text + "\n")

    def piece(self, text: str) -> None:
        """Print a piece of an answer at once."""
        self._write(text)
        if text:
            self._stdout_line_open = not text.endswith("\n")

    def aside(self, text: str) -> None:
        """Print a piece that is no part of an answer, dimmed; only for people."""
        if is_terminal(sys.stdout):
            self._write(text, before="\x1b[2m", after="\x1b[0m")
            self._stdout_line_open = True

    def end_line(self) -> None:
        """End the line that pieces left open."""
        if self._stdout_line_open:
            self._write("\n")
            self._stdout_line_open = False

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
        """Print rows under their columns; without rows, print *empty* on stderr."""
        if not rows:
            self.say(empty)
            return
        if is_terminal(sys.stdout):
            from rich.console import Console

            console = Console(file=sys.stdout, highlight=False)
            # A column costs three cells beside its text; the first one has no edge before it.
            widths = column_widths([columns, *rows], console.width - 3 * len(columns) + 1)
            console.print(_records(columns, rows) if widths is None else _rich_table(columns, rows, widths=widths))
            return
        self._write(plain_table(columns, rows))

    def say(self, text: str, emoji: str = "") -> None:
        """Print one line of narration, unless --quiet is given."""
        if not self.quiet:
            mark = f"{emoji} " if emoji and is_terminal(sys.stderr) and _supports_unicode(sys.stderr) else ""
            self._write_stderr(mark + text, "dim" if not mark else "")

    def warn(self, text: str) -> None:
        """Print a warning, also with --quiet."""
        self._write_stderr(f"Warning: {text}", "yellow")

    def ask(self, lines: Sequence[str], question: str) -> bool:
        """Print some lines and ask a person, also with --quiet; no is the default."""
        for line in lines:
            self._write_stderr(line, "")
        return click.confirm(question, err=True)

    def error(self, lines: Sequence[str]) -> None:
        """Print an error; the first line is the headline."""
        for number, line in enumerate(lines):
            self._write_stderr(line, "bold red" if number == 0 else "")

    def bar(self, title: str) -> Bar:
        """Start a progress bar; close it, or use it as a context."""
        if self.quiet:
            return Bar(title)
        if is_terminal(sys.stderr):
            return _MovingBar(title, self._console())
        return _PlainBar(title, self)

    def live_table(self, columns: Sequence[str], rows: Callable[[], Rows]) -> LiveTable | None:
        """Start a table on stderr whose *rows* are asked for several times a second; None where it is no terminal."""
        if self.quiet or not is_screen(sys.stderr):
            return None
        return LiveTable(columns, rows, self._console())

    def _write(self, text: str, *, before: str = "", after: str = "") -> None:
        sys.stdout.write(before + (printable(text) if sys.stdout.isatty() else text) + after)
        sys.stdout.flush()

    def _console(self) -> Console:
        if self._err is None:
            from rich.console import Console

            self._err = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        return self._err

    def _write_stderr(self, text: str, style: str) -> None:
        if self._stdout_line_open and is_terminal(sys.stdout) and is_terminal(sys.stderr):
            self.end_line()
        if sys.stderr.isatty():
            text = printable(text)
        if is_terminal(sys.stderr):
            self._console().print(text, style=style, markup=False)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


class Bar:
    """An invisible progress bar, and the interface of the visible ones."""

    def __init__(self, title: str) -> None:
        self.title = title

    def show(self, done: float, total: float | None, note: str = "") -> None:
        """Show how far it is; *note* stands behind the bar (sizes, speed)."""

    def close(self) -> None:
        """Remove the bar."""

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _PlainBar(Bar):
    """One line for every quarter."""

    def __init__(self, title: str, output: Output) -> None:
        super().__init__(title)
        self._output = output
        self._shown_steps = -1

    def show(self, done: float, total: float | None, note: str = "") -> None:
        if not total:
            return
        share = min(done / total, 1.0)
        step = int(share / LINE_EVERY_SHARE)
        if step > self._shown_steps:
            self._shown_steps = step
            self._output.say(f"{self.title}: {share:4.0%}{'  ' + note if note else ''}")


class _MovingBar(Bar):
    """A bar on the terminal."""

    def __init__(self, title: str, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        super().__init__(title)
        self._progress: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._task: TaskID = self._progress.add_task(title, total=None, note="")
        self._progress.start()

    def show(self, done: float, total: float | None, note: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, note=note)

    def close(self) -> None:
        self._progress.stop()


class LiveTable:
    """Rows on the terminal that change in place, one line each; close it, or use it as a context."""

    def __init__(self, columns: Sequence[str], rows: Callable[[], Rows], console: Console) -> None:
        from rich.live import Live

        def draw() -> Table:
            found = rows()
            widths = cut_widths([columns, *found], console.width - 3 * len(columns) + 1)
            return _rich_table(columns, found, widths=widths, one_line=True)

        self._live = Live(console=console, transient=True, refresh_per_second=4, get_renderable=draw)
        self._live.start()

    def close(self) -> None:
        """Remove the table."""
        self._live.stop()


def column_widths(lines: Rows, width: int) -> list[int] | None:
    """Return how wide each column may be, in cells, so that all fit into *width* and no word is broken.

    None where that cannot be. The columns with the most to give are narrowed first. Pure.
    """
    from rich.cells import cell_len

    columns = list(zip(*lines, strict=True))
    widths = [max(cell_len(cell) for cell in column) for column in columns]
    least = [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    while sum(widths) > width:
        slack, index = max((now - low, index) for index, (now, low) in enumerate(zip(widths, least, strict=True)))
        if slack <= 0:
            return None
        widths[index] -= 1
    return widths


def cut_widths(lines: Rows, width: int) -> list[int]:
    """Return how wide each column may be, in cells, so that all fit into *width*: the widest are cut first. Pure."""
    from rich.cells import cell_len

    widths = [max(cell_len(cell) for cell in column) for column in zip(*lines, strict=True)]
    while sum(widths) > width and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    return widths


def _rich_table(
    columns: Sequence[str], rows: Rows, *, widths: Sequence[int] | None = None, one_line: bool = False
) -> Table:
    """Build a table whose columns have these widths or, with *one_line*, whose cells are cut where space ends."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(
            column,
            width=widths[index] if widths is not None else None,
            overflow="ellipsis" if one_line else "fold",
            no_wrap=one_line,
        )
    for row in rows:
        table.add_row(*(Text(printable(cell), style=_STYLES.get(cell, "")) for cell in row))
    return table


def _records(columns: Sequence[str], rows: Rows) -> Text:
    """Format rows as blocks of one line for each cell, for a terminal on which a table would break inside words."""
    from rich.text import Text

    width = max(len(column) for column in columns)
    text = Text("\n")
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            text.append(f"{column.ljust(width)}  ", "bold").append(printable(cell), _STYLES.get(cell, "")).append("\n")
        text.append("\n")
    text.rstrip()
    return text


_STYLES = {
    "idle": "green",
    "busy": "yellow",
    "loading": "cyan",
    "starting": "cyan",
    "crashed": "red",
    "reachable": "green",
    "unreachable": "red",
    "running": "green",
    "stale": "red",
    "done": "green",
    "failed": "red",
    "serves": "green",
    "ok": "green",
    "note": "yellow",
    "problem": "red",
}


def is_terminal(stream: IO[str]) -> bool:
    """Return whether colours and moving bars may be written to *stream*."""
    return is_screen(stream) and not os.environ.get("NO_COLOR")


def is_screen(stream: IO[str]) -> bool:
    """Return whether *stream* can be drawn anew, with colours or without."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align rows under their columns with spaces, without trailing ones."""
    lines = [[column.upper() for column in columns], *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def size_text(size_bytes: float | None) -> str:
    """Format a size for a person: 94.0 MB (decimal, as disks and networks count)."""
    if size_bytes is None:
        return "-"
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def elapsed_text(seconds: float) -> str:
    """Format a span as a clock shows it: 0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ago_text(then_unix: float | None, now_unix: float) -> str:
    """Format how long ago something was: 3 min ago."""
    if not then_unix:
        return "never"
    seconds = max(0, int(now_unix - then_unix))
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def _supports_unicode(stream: IO[str]) -> bool:
    return str(getattr(stream, "encoding", "")).lower().replace("-", "") in ("utf8", "utf16", "utf32")
