"""The demo's times, and when it is not well."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from demo.story import RUNS, failed, times
from ledgerhouse.operate.commands.follow import at_work


@pytest.mark.parametrize(
    ("clock", "now"),
    [
        ("2026-11-24T00:13", "2026-11-24T00:00"),
        ("2026-11-24T05:44", "2026-11-24T00:00"),
        ("2026-11-24T05:46", "2026-11-24T06:00"),
        ("2026-11-24T23:59", "2026-11-25T00:00"),
    ],
)
def test_the_demo_ends_at_a_boundary_of_six_hours(clock, now):
    start, until, end = times(datetime.fromisoformat(clock + ":00+00:00"))
    assert end == datetime.fromisoformat(now + ":00+00:00")
    assert end - until == timedelta(hours=36)
    assert start.hour == 0 and timedelta(days=730) <= until - start < timedelta(days=731)


def test_progress_counts_mapped_tasks():
    tasks = [{"task_id": "fetch", "state": s} for s in ("success", "running", "scheduled")]
    assert at_work([*tasks, {"task_id": "load", "state": None}]) == "fetch 1 of 3"
    assert at_work([]) == "waiting for the scheduler"


def test_the_demo_is_not_well_where_a_check_failed_or_none_was_made():
    checks = [{"run_id": run, "checkpoint": "raw.x", "critical": 0} for run in RUNS]
    assert failed(checks) == []
    assert failed(checks[1:]) == ["history: no checkpoint was recorded"]
    assert "sync-2: 2 critical" in failed([*checks[:2], checks[2] | {"critical": 2}])[0]
