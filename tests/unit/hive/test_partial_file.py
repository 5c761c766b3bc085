"""What earlier downloads and busy servers leave to later ones: bytes that may be spoilt, and wishes to wait."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from rbee.hive.models import partial_file
from rbee.hive.models.remote import MAX_RETRY_AFTER_S, parse_retry_after
from tests.support.downloads import FILE, REPO, fetched
from tests.support.hub import Hub


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        (None, None, None),
        ("0", 0, 0),
        ("7", 7, 7),
        ("99999", MAX_RETRY_AFTER_S, MAX_RETRY_AFTER_S),
        ("-5", 0, 0),
        ("soon", None, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
def test_a_wish_to_wait_has_bounds(said: str | None, least: float | None, most: float | None) -> None:
    """Retry-After is read as seconds or as a date, and is never longer than five minutes or less than nothing."""
    delay = parse_retry_after(said)

    assert (delay is None) is (least is None)
    assert delay is None or least is None or most is None or least <= delay <= most


def test_a_date_to_come_is_waited_for() -> None:
    """A date in Retry-After is as many seconds as there are until then."""
    delay = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=100)))

    assert delay is not None
    assert 60 <= delay <= 101


def left_part(home: Path, content: bytes, **note: object) -> Path:
    """Leave what a download that ended early leaves."""
    part = home / "models" / "hf" / REPO / f"{FILE}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    part.with_name(part.name + ".json").write_text(json.dumps(note))
    return part


def test_after_a_power_cut_only_synced_bytes_are_believed(tmp_path: Path, hub: Hub, content: bytes) -> None:
    """What an earlier start of the machine wrote beyond its last sync is fetched again, and no more than that."""
    sha256 = hashlib.sha256(content).hexdigest()
    torn = content[:1_000_000] + bytes(500_000)
    left_part(tmp_path, torn, version=sha256, synced=1_000_000, boot="the one before")

    assert Path(fetched(tmp_path).local_path).read_bytes() == content
    assert hub.ranges(REPO, FILE) == ["bytes=1000000-"]


def test_what_a_killed_process_left_is_believed(tmp_path: Path, hub: Hub, content: bytes) -> None:
    """Bytes that were written under this start of the machine count, synced or not."""
    sha256 = hashlib.sha256(content).hexdigest()
    left_part(tmp_path, content[:1_500_000], version=sha256, synced=0, boot=partial_file.boot_id())

    assert Path(fetched(tmp_path).local_path).read_bytes() == content
    assert hub.ranges(REPO, FILE) == ["bytes=1500000-"]


def test_spoilt_leftovers_are_fetched_anew(tmp_path: Path, hub: Hub, content: bytes) -> None:
    """A checksum that fails because of what an earlier download left is not blamed on the source."""
    sha256 = hashlib.sha256(content).hexdigest()
    left_part(tmp_path, bytes(1_000_000), version=sha256, synced=1_000_000, boot=partial_file.boot_id())

    assert Path(fetched(tmp_path).local_path).read_bytes() == content
    assert hub.ranges(REPO, FILE) == ["bytes=1000000-", None]
