"""What is covered is not asked again, and every hole is."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.core.interval import Interval, union, utc
from ledgerhouse.config import Account
from ledgerhouse.plan import coverage
from tests.ledgerhouse.plan.coverage.scene import COINBASE, SOURCES, WALLET, cover, jobs

DAY = timedelta(days=1)
ZERO = utc("2026-01-01")


def rows(con, account: Account, *entries: tuple[datetime, timedelta], status="completed") -> None:
    """Rows of `account`: (when it happened, how much later its newest version was met)."""
    table, key = (
        ("raw.exchanges_ledger", "entry_id, status, wallet")
        if account is COINBASE
        else ("raw.onchain_transactions", "tx_id, category, chain")
    )
    for number, (ts, delay) in enumerate(entries):
        con.execute(
            f"INSERT INTO {table} (source, account, {key}, ts, changed_at) "
            "VALUES (?, ?, ?, ?, 'x', ?, ?)",
            [
                account.source,
                account.account,
                f"{status}{number}",
                status,
                ts.replace(tzinfo=None),
                (ts + delay).replace(tzinfo=None),
            ],
        )


@settings(deadline=None, max_examples=100)
@given(read=st.lists(st.sets(st.integers(0, 9), min_size=1), min_size=1, max_size=3))
def test_what_is_called_covered_is_known_of_every_dataset(empty, read):
    """`read`: the days of each dataset. An account is as far as the one that lags."""
    with empty.cursor() as con:
        con.execute("DELETE FROM ops.coverage")
        for dataset, days in enumerate(read):
            con.executemany(
                "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
                "reason, run_id, batch_id, recorded_at) "
                f"VALUES ('s', 'a', 'd{dataset}', ?, ?, '2026-02-01', "
                "'short page', 'r', 'b', '2026-01-01')",
                [[(ZERO + n * DAY).replace(tzinfo=None) for n in (day, day + 1)] for day in days],
            )
        ((_, _, since, whole_to, until, gaps),) = con.execute("FROM ops.reached").fetchall()
    ends = [next(day for day in range(min(days), 12) if day not in days) for days in read]
    at = [utc(moment) for moment in (since, whole_to, until)]
    assert at == [
        ZERO + n * DAY
        for n in (min(map(min, read)), min(ends), min(max(days) + 1 for days in read))
    ]
    holes = {
        (a + 1, b) for days in read for a, b in zip(sorted(days), sorted(days)[1:]) if b > a + 1
    }
    assert gaps == len(holes)


def test_a_run_closes_every_hole_there_is_with_one_job_a_month(con):
    cover(con, WALLET, ("2025-11-01", "2025-11-20"), read_at="2025-11-20")
    cover(con, WALLET, ("2025-12-10", "2026-01-03"), read_at="2026-01-03")
    asked = jobs(con, WALLET, "2025-11-01", "2026-01-25")
    assert [str(j.interval)[1:11] for j in asked] == ["2025-11-20", "2025-12-01", "2026-01-03"]
    assert union(j.interval for j in asked) == [
        Interval("2025-11-20", "2025-12-10"),
        Interval("2026-01-03", "2026-01-25"),
    ]
    assert [j.snapshot for j in asked] == [False, False, True]
    assert [j.interval.start - j.read_from for j in asked] == [DAY, timedelta(0), DAY], (
        "the lookback is read where the hole continues what is covered"
    )
    assert con.execute(
        "SELECT start_ts::DATE::VARCHAR, end_ts::DATE::VARCHAR FROM ops.gaps WHERE "
        "dataset = 'onchain_transfers'"
    ).fetchall() == [("2025-11-20", "2025-12-10")]
    cover(con, COINBASE, ("2025-11-01", "2025-11-20"))
    (only,) = jobs(con, COINBASE, "2025-11-01", "2026-01-25")
    assert str(only.interval) == "[2025-11-20T00:00:00Z, 2026-01-25T00:00:00Z)", (
        "an API that cannot seek walks once"
    )


@pytest.mark.parametrize(
    ("read_at", "lookback"),
    [("2025-11-20", DAY), ("2025-11-20T23:59:59Z", DAY), ("2025-11-21", timedelta(0))],
)
def test_what_was_read_long_after_it_happened_is_not_read_again(con, read_at, lookback):
    """A backfill that was stopped leaves such holes, and each lookback would be paid for."""
    cover(con, WALLET, ("2025-11-01", "2025-11-20"), read_at=read_at)
    (job,) = jobs(con, WALLET, "2025-11-01", "2025-11-25")
    assert job.interval.start - job.read_from == lookback


def test_covered_time_is_not_asked_again_unless_it_is_asked_for(con):
    cover(con, WALLET, ("2026-01-01", "2026-01-10"), ("2026-01-10", "2026-01-20"))
    assert jobs(con, WALLET, "2026-01-02", "2026-01-19") == []
    (again,) = jobs(con, WALLET, "2026-01-02", "2026-01-19", refetch=True)
    assert again.interval == Interval("2026-01-02", "2026-01-19")


@pytest.mark.parametrize(
    "pending, begin",
    [
        ("2026-01-07T05:00:00Z", "2026-01-07T05:00:00Z"),  # longer than the lookback
        ("2026-01-19T05:00:00Z", "2026-01-19T00:00:00Z"),  # within it
        (
            "2025-11-07T05:00:00Z",
            "2025-12-21T00:00:00Z",
        ),  # pending for longer: the weekly refresh's
    ],
)
def test_what_is_pending_is_read_again_until_it_is_final(con, pending, begin):
    cover(con, COINBASE, ("2025-01-01", "2026-01-20"))
    rows(con, COINBASE, (utc(pending), timedelta(hours=1)), status="pending")
    (job,) = jobs(con, COINBASE, "2025-01-01", "2026-01-20T06:00:00Z")
    assert job.read_from == utc(begin)
    con.execute("UPDATE raw.exchanges_ledger SET vanished_at = '2026-01-20'")
    (job,) = jobs(con, COINBASE, "2025-01-01", "2026-01-20T06:00:00Z")
    assert job.read_from == utc("2026-01-19"), "a pending entry that is gone is not waited for"


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 24 * 20), min_size=1, max_size=40), st.booleans())
def test_the_tail_is_as_long_as_the_vendor_was_slow(delays, was_there):
    import duckdb

    from ledgerhouse.warehouse import schema

    with duckdb.connect() as con:
        schema.create_all(con)
        cover(
            con,
            WALLET,
            ("2025-01-01", "2026-03-01"),
            read_at="2026-01-01" if was_there else "2026-02-25",
        )
        rows(
            con,
            WALLET,
            *((ZERO + n * timedelta(hours=6), timedelta(hours=h)) for n, h in enumerate(delays)),
        )
        lookback = coverage.learned_lookback(con, SOURCES["debank"], "0xme", utc("2026-03-01"))
    slowest = timedelta(hours=max(delays)) if was_there else timedelta(0)  # else history: met late
    assert lookback == min(max(DAY, slowest * 1.25), 7 * DAY)


def test_old_slowness_is_forgotten(con):
    cover(con, WALLET, ("2025-01-01", "2026-03-01"), read_at="2025-01-01")
    rows(con, WALLET, (utc("2025-11-01"), 5 * DAY))
    assert (
        coverage.learned_lookback(con, SOURCES["debank"], "0xme", utc("2026-01-01")) == 6.25 * DAY
    )
    assert coverage.learned_lookback(con, SOURCES["debank"], "0xme", utc("2026-03-01")) == DAY
