"""The calendar of coverage is a count of hours."""

from __future__ import annotations

import random
from datetime import datetime

import duckdb
import pytest

from ledgerhouse.operate.ui import calendar
from ledgerhouse.warehouse.schema import create_all
from tests.ledgerhouse.operate.ui.scene import DAY, HOUR

pytestmark = pytest.mark.slow


# Coverage, day by day, against a count of hours
def random_history(con, rng, accounts, first: datetime, days: int) -> tuple[dict, list]:
    """Random readings and failed fetches, whole hours: (account, dataset) → hours, failures."""
    read = {(a, d): set() for a in accounts for d in ("onchain_transactions", "onchain_transfers")}
    for (account, dataset), hours in read.items():
        at = rng.randrange(0, 40)
        while at < days * 24:
            end = min(at + rng.choice((1, 6, 24, 31, 96)), days * 24)
            hours.update(range(at, end))
            con.execute(
                "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
                "reason, run_id, batch_id, recorded_at) "
                "VALUES ('debank', ?, ?, ?, ?, ?, 'short page', "
                "'r', 'b', ?)",
                [account, dataset, first + at * HOUR, first + end * HOUR, first, first],
            )
            at = end + rng.choice((0, 0, 0, 6, 30))
    failures = []
    for number in range(rng.randrange(4)):
        account, start = rng.choice(accounts), rng.randrange(0, days * 24 - 6)
        end = start + rng.choice((1, 6, 50))
        tries = rng.randrange(1, 4)
        healed = rng.random() < 0.4  # its last attempt succeeded
        for attempt in range(1, tries + 1):
            state = "success" if healed and attempt == tries else "failed"
            con.execute(
                "INSERT INTO ops.sync_runs BY NAME SELECT 'sync' AS dag_id, ? AS run_id, "
                "'fetch_debank' AS task_id, 0 AS map_index, ? AS try_number, 'debank' AS source, "
                "? AS account, ? AS interval_start, ? AS interval_end, ? AS state, ? AS ended, "
                "now()::TIMESTAMP AS mirrored_at",
                [
                    f"run {number}",
                    attempt,
                    account,
                    first + start * HOUR,
                    first + end * HOUR,
                    state,
                    first + end * HOUR,
                ],
            )
        if not healed:
            failures.append((account, set(range(start, end))))
    return read, failures


@pytest.mark.parametrize("seed", range(12))
def test_the_calendar_is_a_count_of_hours(seed):
    rng, first, days = random.Random(seed), datetime(2024, 2, 20), 20
    accounts = ["a", "b"]
    with duckdb.connect() as con:
        create_all(con)
        read, failures = random_history(con, rng, accounts, first, days)
        answer = calendar.coverage(con, 2024)
    by_day = {
        (a["account"], day): (state, share, answer["notes"][note])
        for a in answer["accounts"]
        for day, state, share, note in a["days"]
    }
    gaps = set()
    for account in accounts:
        mine = [hours for (a, _), hours in read.items() if a == account]
        for number in range(-2, days + 4):
            span = set(range(number * 24, number * 24 + 24))
            whole = min(len(span & hours) for hours in mine)
            hole = any(span & (set(range(min(h), max(h))) - h) for h in mine)
            failed = any(a == account and span & hours for a, hours in failures)
            wanted = (
                "covered"
                if whole == 24
                else "failed"
                if failed
                else "gap"
                if hole
                else "partly"
                if whole
                else "none"
            )
            state, share, note = by_day.get(
                (account, str((first + number * DAY).date())), ("none", 0, {})
            )
            assert (state, share) == (wanted, whole * 1000 // 24), (account, number)
            assert ("failed" in note) == failed, "a failure is shown, also of a day read since"
        for hours in mine:
            missing = sorted(set(range(min(hours), max(hours))) - hours)
            starts = [h for h in missing if h - 1 not in missing]
            ends = [h + 1 for h in missing if h + 1 not in missing]
            gaps |= {(account, first + s * HOUR, first + e * HOUR) for s, e in zip(starts, ends)}
    assert {
        (
            g["account"],
            datetime.fromisoformat(g["start"][:-1]),
            datetime.fromisoformat(g["end"][:-1]),
        )
        for g in answer["gaps"]
    } == gaps
    assert answer["gaps_total"] == len(gaps)
