"""The ledger keeps every frame, and a disk that takes no more ends the ledger, not the call."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.ledger import Ledger, LedgerEntry, read_ledger
from app.options import UsageError
from codec.frame import FrameSource

ENTRY = LedgerEntry(
    playout_s=12.34,
    timestamp=2**32 + 960,
    source=FrameSource.DRED,
    wait_ms=41.25,
    decode_us=2718.0,
    delay_ms=101.5,
    stretch_ms=-6.25,
    margin_ms=-3.75,
)

FULL = Path("/dev/full")


def test_entries_are_read_as_they_were_added(tmp_path: Path) -> None:
    entries = [
        ENTRY,
        LedgerEntry(0.0, 0, FrameSource.SILENCE, None, 3.0, None),
        *(
            ENTRY._replace(playout_s=0.02 * n, source=source)
            for n, source in enumerate(FrameSource)
        ),
    ]
    ledger = Ledger(tmp_path / "frames.csv")
    for entry in entries:
        ledger.add(entry)
    ledger.close()
    assert list(read_ledger(tmp_path / "frames.csv")) == entries
    assert ledger.error is None


def test_what_has_been_flushed_can_be_read_while_the_call_lasts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "frames.csv")
    ledger.add(ENTRY)
    ledger.flush()
    assert list(read_ledger(tmp_path / "frames.csv")) == [ENTRY]
    ledger.close()


def test_without_a_file_nothing_is_kept() -> None:
    ledger = Ledger()
    for _ in range(10_000):
        ledger.add(ENTRY)
    ledger.flush()
    ledger.close()
    assert ledger.error is None


def test_a_writer_that_is_behind_by_a_minute_loses_the_oldest(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "frames.csv")
    for n in range(4000):
        ledger.add(ENTRY._replace(timestamp=n))
    ledger.close()
    assert [entry.timestamp for entry in read_ledger(tmp_path / "frames.csv")] == [
        *range(1000, 4000)
    ]


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--ledger: {tmp_path}"):
        Ledger(tmp_path)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_the_ledger_and_says_so() -> None:
    ledger = Ledger(FULL)
    ledger.add(ENTRY)
    ledger.flush()
    assert ledger.error == "the ledger /dev/full ended: No space left on device"
    ledger.add(ENTRY)
    ledger.flush()
    ledger.close()


def test_another_table_is_not_taken_for_a_ledger(tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("name,age\nme,7\n")
    with pytest.raises(ValueError, match="is not a ledger"):
        list(read_ledger(other))
