"""What a queen tells of a hive that has a model, or gets it."""

from __future__ import annotations

import asyncio

import pytest

from rbee.contracts.models import DownloadProgress
from rbee.contracts.tasks import Narration
from rbee.queen.progress import DownloadNarrator, ProgressFeed


def told(*steps: DownloadProgress) -> list[str]:
    """Return what is narrated of these steps."""

    async def work() -> list[str]:
        feed = ProgressFeed()
        narrator = DownloadNarrator(feed, "n1", "hf:bees/tiny")
        for step in steps:
            narrator.tell(step)
        feed.end()
        return [event.human async for event in feed.subscribe() if isinstance(event, Narration)]

    return asyncio.run(work())


@pytest.mark.parametrize("seen", [True, False])
def test_a_download_is_told_however_fast_it_was(seen: bool) -> None:
    """One that shows nothing but its end is a download too, with the file that was chosen."""
    end = DownloadProgress(stage="complete", fetched=True, remark="taking tiny.gguf")
    way = [DownloadProgress(stage="downloading", remark="taking tiny.gguf")] if seen else []

    assert told(*way, end) == [
        "hive n1: taking tiny.gguf",
        "hive n1: hf:bees/tiny is not in the catalog, downloading it",
    ]


def test_what_was_only_compared_is_no_download() -> None:
    """A model whose checksum is compared was there."""
    steps = DownloadProgress(stage="verifying"), DownloadProgress(stage="complete")

    assert told(*steps) == ["hive n1: comparing the checksum of hf:bees/tiny"]


def test_a_copy_is_told_with_its_source() -> None:
    """Where a model comes from is told, again where that changes."""
    steps = [
        DownloadProgress(stage="downloading", source="n2"),
        DownloadProgress(stage="downloading", source="n2"),
        DownloadProgress(stage="downloading", source="n3"),
        DownloadProgress(stage="complete", fetched=True),
    ]

    assert told(*steps) == [
        "hive n1: hf:bees/tiny is not in the catalog, copying it from n2",
        "hive n1: hf:bees/tiny: copying it from n3",
        "hive n1: hf:bees/tiny: downloading it",
    ]
