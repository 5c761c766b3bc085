"""Print the narration and progress that the queen's streams carry, with bars for downloads and loading."""

from __future__ import annotations

from typing import Any

from rbee.client.event import Event
from rbee.keeper.ui.output import Bar, Output, size_text


class ProgressPrinter:
    """The printer of one stream; close it, or use it as a context, so that no bar is left on the terminal."""

    def __init__(self, out: Output, *, as_events: bool = False) -> None:
        self._out = out
        self._as_events = as_events
        self._bar: Bar | None = None
        self._stage = ""

    def __enter__(self) -> ProgressPrinter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def handle(self, event: Event) -> bool:
        """Print *event* if it is narration or progress; return whether it was."""
        if event.name not in ("narration", "progress"):
            return False
        if self._as_events:
            self._out.event(event.name, event.data)
        if event.name == "narration":
            self._out.say(str(event.data.get("human", "")), str(event.data.get("emoji", "")))
        elif isinstance(event.data.get("download"), dict):
            self._download(event.data["download"])
        elif isinstance(event.data.get("loading"), dict):
            self._loading(event.data["loading"])
        return True

    def say(self, human: str, action: str, emoji: str = "") -> None:
        """Print a line of the keeper's own."""
        if self._as_events:
            self._out.event("narration", {"actor": "keeper", "action": action, "human": human, "emoji": emoji})
        self._out.say(human, emoji)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _download(self, now: dict[str, Any]) -> None:
        stage, reason = str(now.get("stage", "")), now.get("reason")
        done, total = now.get("bytes_downloaded") or 0, now.get("bytes_total")
        if stage == "downloading":
            title = f"Copying from {now['source']}" if now.get("source") else "Downloading"
            self._show_bar(title).show(done, total, _speed(done, total, now.get("speed_mbps") or 0.0))
        elif stage != self._stage or stage == "retrying":
            self.close()
            if stage == "retrying":
                again = f"; attempt {now['attempt']} of {now.get('attempts')}" if now.get("attempt") else ""
                self._out.say(f"Download interrupted ({reason}){again}", "🔁")
            elif stage == "verifying":
                self._out.say("Verifying the file", "🔎")
            elif stage == "complete" and now.get("fetched"):
                self._out.say(f"Downloaded {size_text(total or done)}", "📦")
        self._stage = stage

    def _loading(self, now: dict[str, Any]) -> None:
        stage = str(now.get("stage", ""))
        total = now.get("layers_total") or 0
        if stage == "ready":
            self.close()
        elif total:
            where = "VRAM" if stage == "loading_to_vram" else "RAM"
            loaded = now.get("layers_loaded") or 0
            self._show_bar(f"Loading to {where}").show(loaded, total, f"{loaded} of {total} layers")
        self._stage = stage

    def _show_bar(self, title: str) -> Bar:
        if self._bar is None or self._bar.title != title:
            self.close()
            self._bar = self._out.bar(title)
        return self._bar


def _speed(done: float, total: float | None, mbps: float) -> str:
    """Format sizes and speed: 12.0 MB of 94.0 MB, 5.6 MB/s (the wire counts megabits)."""
    sizes = f"{size_text(done)} of {size_text(total)}" if total else size_text(done)
    return f"{sizes}, {mbps / 8:.1f} MB/s" if mbps else sizes
