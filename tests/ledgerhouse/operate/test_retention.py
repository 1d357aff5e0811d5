"""Retention: what is old and kept elsewhere goes, what is needed or young stays."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from extract.core.quarantine import quarantined
from extract.fetch.call_log import call_log, logged
from ledgerhouse.load.call_log import load_calls
from ledgerhouse.operate import retention
from ledgerhouse.operate.run_log.attempts import KEY, attempt
from ledgerhouse.warehouse.connection import hold

NOW = datetime.now(UTC)
CALL = {
    "called_at": "2026-01-01T00:00:00Z",
    "source": "debank",
    "account": "0xa",
    "endpoint": "/x",
    "duration_ms": 1,
    "units": 1,
}
AGO_30 = NOW - timedelta(days=30)


def write(path: Path, text: str = "x", *, days: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return aged(path, days)


def aged(path: Path, days: float) -> Path:
    at = (NOW - timedelta(days=days)).timestamp()
    os.utime(path, (at, at), follow_symlinks=False)
    return path


# --- logs -----------------------------------------------------------------------------------------


def test_old_logs_go_with_the_folders_they_leave_empty_and_young_ones_stay(tmp_path):
    base = tmp_path / "logs" / "dag_id=sync"
    old = write(base / "run_id=1" / "task_id=load" / "attempt=1.log", "12345", days=31)
    young = write(base / "run_id=2" / "task_id=load" / "attempt=1.log", days=29)
    about_to_be_written = base / "run_id=3"
    about_to_be_written.mkdir()
    removed = retention.logs([base], AGO_30)
    assert (removed.files, removed.bytes) == (1, 5)
    assert not old.parent.parent.exists(), "197,000 inodes are mostly folders"
    assert young.exists() and about_to_be_written.exists() and base.exists()


def test_a_folder_that_was_left_empty_long_ago_goes(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    aged(tmp_path / "a" / "b", 31)
    retention.logs([tmp_path], AGO_30)
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_never_followed(tmp_path):
    elsewhere = write(tmp_path / "precious" / "file.log", days=400)
    logs = tmp_path / "logs"
    logs.mkdir()
    for name, target in (("file", elsewhere), ("latest", elsewhere.parent), ("gone", logs / "no")):
        (logs / name).symlink_to(target)
        aged(logs / name, 31)
    retention.logs([logs], AGO_30)
    assert elsewhere.exists() and list(logs.iterdir()) == []


# --- call logs ------------------------------------------------------------------------------------


@pytest.fixture
def calls(con, tmp_path):
    """Three loaded logs of one call each, written 100, 100 and 10 days ago."""
    root = tmp_path / "calls"
    for number in range(3):
        with call_log(root, {"run_id": f"r{number}"}) as record:
            record(CALL | {"call_id": f"c{number}"})
    assert load_calls(con, root) == 3
    files = sorted(root.glob("*/*.jsonl"), key=lambda file: file.read_text())
    for file, days in zip(files, (100, 100, 10)):
        aged(file, days)
    return root, files


def test_a_call_log_goes_only_when_it_is_old_and_each_of_its_calls_is_in_the_warehouse(con, calls):
    root, (safe, lost, young) = calls
    con.execute("DELETE FROM ops.api_calls WHERE call_id = 'c1'")
    assert retention.call_logs(con, root, NOW - timedelta(days=62)).files == 1
    assert not safe.exists() and lost.exists() and young.exists()


def test_half_a_line_that_a_kill_has_left_keeps_no_call_log(con, calls):
    root, (first, *_) = calls
    first.write_text(first.read_text() + '{"call_id": "c9", "call')
    aged(first, 100)
    assert retention.call_logs(con, root, NOW - timedelta(days=62)).files == 2


def test_waiting_call_logs_are_not_looked_at_however_old(con, calls):
    root, _ = calls
    waiting = write(root / "inbox" / "x.jsonl", json.dumps({"call_id": "c0"}), days=500)
    retention.call_logs(con, root, NOW)
    assert waiting.exists()


def test_what_a_budget_counts_of_this_month_is_the_same_after(con, calls):
    root, _ = calls
    first = (NOW - timedelta(days=31)).date()
    before = sorted(call["call_id"] for call in logged(root, first))
    retention.call_logs(con, root, NOW - timedelta(days=32))
    assert sorted(call["call_id"] for call in logged(root, first)) == before == ["c2"]


def test_many_call_logs_are_looked_at_in_parts(con, calls, monkeypatch):
    monkeypatch.setattr(retention, "FILES_AT_ONCE", 1)
    root, _ = calls
    assert retention.call_logs(con, root, NOW - timedelta(days=62)).files == 2


# --- drafts ---------------------------------------------------------------------------------------


def test_drafts_of_killed_writers_go_after_a_day_and_nothing_else(tmp_path):
    gone = [
        write(tmp_path / folder / ".x.part", days=2)
        for folder in ("landing/inbox", "attempts", "account_units", ".")
    ]
    gone += [write(tmp_path / "data_docs/runs/.run.17/run.json", days=2).parent]
    gone += [write(tmp_path / "replay/warehouse.duckdb", days=2).parent]
    kept = [
        write(tmp_path / "landing/inbox/.y.part", days=0.9),
        write(tmp_path / "landing/inbox/a.jsonl.zst", days=900),
        write(tmp_path / "landing/coinbase/2024-01/a.jsonl.zst", days=900),
        write(tmp_path / "attempts/a.json", days=900),
        write(tmp_path / "data_docs/runs/run/run.json", days=900),
        write(tmp_path / "warehouse.duckdb", days=900),
        write(tmp_path / "secrets.json", days=900),
    ]
    for path in gone:
        aged(path, 2)
    assert retention.leftovers(tmp_path, NOW - timedelta(days=1)).files == len(gone)
    assert not [path for path in gone if path.exists()]
    assert all(path.exists() for path in kept)


def test_the_draft_of_a_replay_that_goes_on_stays(tmp_path):
    draft = write(tmp_path / "replay" / "warehouse.duckdb", days=2)
    aged(draft.parent, 2)
    with hold(tmp_path / "warehouse.duckdb", "replay"):
        assert retention.leftovers(tmp_path, NOW).files == 0
    assert draft.exists()
    assert retention.leftovers(tmp_path, NOW).files == 1


# --- records of attempts --------------------------------------------------------------------------


def test_records_that_no_mirror_reads_go_once_they_are_in_the_warehouse(con, tmp_path):
    root, key = tmp_path / "attempts", dict(zip(KEY, ("sync", "R", "load", -1, 1)))
    with attempt(root, key) as outcome:
        outcome["rows"] = 7
    with pytest.raises(ValueError), attempt(root, {**key, "task_id": "check"}):
        raise ValueError("broken")
    for file in root.glob("*.json"):
        aged(file, 15)
    with attempt(root, {**key, "run_id": "S"}):
        pass  # young
    (root / "damaged.json").write_text("{")
    aged(root / "damaged.json", 15)
    removed = retention.attempts(con, root, NOW - timedelta(days=14))
    assert removed.files == 4 and removed.bytes > 400
    assert len(list(root.glob("*.json"))) == 2, "those of S"
    assert [f.name for f, _, _ in quarantined(root)] == ["damaged.json"]
    rows = "SELECT run_id, task_id, state, rows, error FROM ops.sync_runs ORDER BY ALL"
    assert con.execute(rows).fetchall() == [
        ("R", "check", "failed", None, "broken"),
        ("R", "load", "success", 7, None),
    ]
    assert retention.attempts(con, root, NOW - timedelta(days=14)).files == 0


def test_a_record_that_was_left_behind_does_not_change_how_an_attempt_ended(con, tmp_path):
    root, key = tmp_path / "attempts", dict(zip(KEY, ("sync", "R", "load", -1, 1)))
    with attempt(root, key) as outcome:
        outcome["rows"] = 7
    retention.attempts(con, root, NOW + timedelta(days=1))
    (root / "x.json").write_text(json.dumps({**key, "state": "running", "calls": 3}))
    retention.attempts(con, root, NOW + timedelta(days=1))
    rows = "SELECT state, rows, calls FROM ops.sync_runs"
    assert con.execute(rows).fetchall() == [("success", 7, 3)]
