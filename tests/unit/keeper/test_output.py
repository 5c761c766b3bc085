"""What output looks like where no terminal is."""

from __future__ import annotations

import sys

import pytest

from rbee.client.event import Event
from rbee.keeper.ui.lazy import Flags
from rbee.keeper.ui.output import Output, ago_text, column_widths, cut_widths, elapsed_text, plain_table, size_text
from rbee.keeper.ui.progress import ProgressPrinter


def test_a_table_in_a_pipe_is_aligned_and_plain() -> None:
    """Columns are padded, the last one is not, and there is no colour."""
    assert plain_table(["id", "state"], [["worker-1", "idle"], ["w", "busy"]]) == (
        "ID        STATE\nworker-1  idle\nw         busy\n"
    )


@pytest.mark.parametrize(
    ("width", "widths"),
    [(60, [5, 22]), (27, [5, 22]), (26, [5, 21]), (21, [5, 16]), (20, None)],
)
def test_columns_narrow_between_words_only(width: int, widths: list[int] | None) -> None:
    """The column with most to give is narrowed, never below its longest word; where that is not enough, nothing is."""
    lines = [["node", "queen"], ["gpu-1", "not connected: refused"], ["gpu-2", "abcdefghijklmnop"]]

    assert column_widths(lines, width) == widths


@pytest.mark.parametrize(("columns", "blocks"), [("80", True), ("160", False)])
def test_a_table_breaks_no_word_of_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str, *, blocks: bool
) -> None:
    """Rows for which the terminal has no room become blocks of lines, with every word whole."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("rbee.keeper.ui.output.is_terminal", lambda _stream: True)
    row = ["control", "192.168.100.10", "serves", "0.1.0-abcdef012345-cpu", "not connected: connection refused", "-"]

    Output(Flags()).table(["node", "host", "state", "release", "queen", "workers"], [row], empty="")

    printed = capsys.readouterr().out
    assert all(len(line) <= int(columns) for line in printed.splitlines())
    assert [word for word in " ".join(row).split() if word not in printed.split()] == []
    assert ("\nnode     control\n" in printed) is blocks


@pytest.mark.parametrize(("seconds", "text"), [(7.9, "0:07"), (750, "12:30"), (3723, "1:02:03")])
def test_spans(seconds: float, text: str) -> None:
    """A span reads like a clock."""
    assert elapsed_text(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(None, "-"), (0, "0 B"), (999, "999 B"), (94_000_000, "94.0 MB"), (5.2e12, "5.2 TB")]
)
def test_sizes(size: float | None, text: str) -> None:
    """Sizes are decimal, with one digit."""
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("then", "text"), [(None, "never"), (1000, "0 s ago"), (1060, "0 s ago"), (940, "1 min ago"), (-90000, "1 d ago")]
)
def test_times(then: float | None, text: str) -> None:
    """Times are said as a distance; a clock that is ahead is no negative distance."""
    assert ago_text(then, 1000) == text


@pytest.mark.B31
def test_progress_in_a_pipe_is_a_line_for_every_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand events of a download are a few lines with percent, bytes and speed."""
    with ProgressPrinter(Output(Flags())) as printer:
        for done in range(1001):
            now = {"stage": "downloading", "bytes_downloaded": done * 1000, "bytes_total": 10**6, "speed_mbps": 80.0}
            assert printer.handle(Event("progress", {"download": now}))
        printer.handle(Event("progress", {"download": {"stage": "complete", "bytes_total": 10**6, "fetched": True}}))
        for layer in range(33):
            now = {"stage": "loading_to_ram", "layers_loaded": layer, "layers_total": 32}
            printer.handle(Event("progress", {"loading": now}))

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "Downloading:   0%  0 B of 1.0 MB, 10.0 MB/s",
        "Downloading:  25%  250.0 kB of 1.0 MB, 10.0 MB/s",
        "Downloading:  50%  500.0 kB of 1.0 MB, 10.0 MB/s",
        "Downloading:  75%  750.0 kB of 1.0 MB, 10.0 MB/s",
        "Downloading: 100%  1.0 MB of 1.0 MB, 10.0 MB/s",
        "Downloaded 1.0 MB",
        "Loading to RAM:   0%  0 of 32 layers",
        "Loading to RAM:  25%  8 of 32 layers",
        "Loading to RAM:  50%  16 of 32 layers",
        "Loading to RAM:  75%  24 of 32 layers",
        "Loading to RAM: 100%  32 of 32 layers",
    ]


def test_nothing_is_called_downloaded_that_was_there(capsys: pytest.CaptureFixture[str]) -> None:
    """A model of which only the checksum was compared is not said to have been downloaded."""
    with ProgressPrinter(Output(Flags())) as printer:
        for stage in ("verifying", "complete"):
            printer.handle(Event("progress", {"download": {"stage": stage, "bytes_total": 10**6, "fetched": False}}))

    assert capsys.readouterr().err.splitlines() == ["Verifying the file"]


def test_a_retry_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Each attempt of a download that breaks is a line with its number and the reason."""
    with ProgressPrinter(Output(Flags())) as printer:
        for attempt in (1, 2):
            now = {"stage": "retrying", "attempt": attempt, "attempts": 6, "reason": "connection reset"}
            printer.handle(Event("progress", {"download": now}))

    assert capsys.readouterr().err.splitlines() == [
        "Download interrupted (connection reset); attempt 1 of 6",
        "Download interrupted (connection reset); attempt 2 of 6",
    ]


def test_quiet_drops_the_story_but_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """`--quiet` is about narration and progress only."""
    flags = Flags()
    flags.quiet = True
    out = Output(flags)

    out.say("a story")
    out.bar("Loading").show(1, 2)
    out.warn("a warning")

    assert capsys.readouterr().err == "Warning: a warning\n"


@pytest.mark.parametrize(
    ("cells", "width", "widths"),
    [
        (["ab", "abcdef"], 20, [2, 6]),
        (["ab", "abcdef"], 6, [2, 4]),
        (["abcd", "abcdef"], 4, [2, 2]),
        (["ab", "cd"], 1, [1, 1]),
    ],
)
def test_of_lines_that_are_cut_the_widest_cells_are_cut_first(cells: list[str], width: int, widths: list[int]) -> None:
    """A long reference costs itself, not the columns beside it, of which something is always seen."""
    assert cut_widths([cells], width) == widths


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b]0;title\x07\x1b[31mred", "^[]0;title^G^[[31mred"),
        ("\x9b2J\x7f\x00\b", "\\x9b2J^?^@^H"),
        ("rm -rf /\rls\r\n", "rm -rf /ls\n"),
        ("Biene 🐝 é", "Biene 🐝 é"),
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_model_says_does_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, said: str, shown: str, *, terminal: bool
) -> None:
    """On a terminal control characters are shown, in answers, thoughts, logs, errors; a file gets them as they are."""
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    out = Output(Flags())
    out.piece(said)
    out.text(said)
    out.error([said])
    printed = capsys.readouterr()
    wanted = shown if terminal else said
    assert printed.out.startswith(f"{wanted}{wanted}\n")
    assert printed.err.endswith(f"{wanted}\n")
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    out.aside(said)
    out.table(["said"], [[said.strip()]], empty="")
    coloured = capsys.readouterr().out
    assert coloured.startswith(f"\x1b[2m{shown}\x1b[0m") is terminal
    assert not (terminal and set("\x07\x9b\r\b\x00") & set(coloured))
