"""What is asked next: the holes of what was requested, and a lookback as long as a vendor needs."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.core.interval import Interval, iso, union, utc
from extract.fetch import landing
from extract.sources import all_sources
from ledgerhouse.config import Account
from ledgerhouse.load.coverage_segments import CoverageSegment, newest
from ledgerhouse.load.loader import load
from ledgerhouse.plan import coverage, refresh
from ledgerhouse.plan.estimate import Known, priced
from tests.helpers.coinbase_stub import Vendor, served

SOURCES = all_sources()
WALLET = Account("debank", "0xme", "debank")
COINBASE = Account("coinbase", "main", "coinbase_main")
DAY = timedelta(days=1)
ZERO = utc("2026-01-01")


def cover(con, account: Account, *spans: tuple[str, str], read_at="2026-01-01") -> None:
    for dataset in coverage.events(SOURCES[account.source]):
        con.executemany(
            "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
            "reason, run_id, batch_id, recorded_at) "
            f"VALUES (?, ?, '{dataset}', ?, ?, ?, 'short page', 'r', 'b', "
            "'2026-01-01')",
            [[account.source, account.account, a, b, read_at] for a, b in spans],
        )


def jobs(con, account: Account, start, end, **more):
    return coverage.jobs(con, SOURCES, [account], Interval(start, end), snapshot=True, **more)


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


@pytest.fixture(scope="module")
def empty():
    import duckdb

    from ledgerhouse.warehouse.schema import create_all

    with duckdb.connect() as con:
        create_all(con)
        yield con


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


# ---- what has not changed, and what could not be read


def state(con, part: str, text="s", read_at="2026-01-20", account=COINBASE) -> None:
    con.execute(
        "INSERT INTO ops.part_states VALUES (?, ?, ?, ?, ?, 'b')",
        [account.source, account.account, part, text, read_at],
    )


def unreadable(con, part: str, since="2026-01-05", account=COINBASE) -> None:
    con.execute(
        "INSERT INTO ops.unread_parts VALUES (?, ?, 'exchanges_ledger', ?, ?, '2026-01-20', "
        "'HTTP 500', '2026-01-20', '2026-01-20', 'r', 'b')",
        [account.source, account.account, part, since],
    )


def reported(con, wallet: str, amount: str, *at: str, token="x") -> None:
    con.executemany(
        "INSERT INTO raw.balances (source, account, wallet, token, ts, amount_text, amount, "
        "row_hash, first_seen_at, changed_at, batch_id) "
        "VALUES ('coinbase', 'main', ?, ?, ?, ?, ?::DECIMAL(38,18), 0, '2026-01-20', "
        "'2026-01-20', 'b')",
        [[wallet, token, moment, amount, amount] for moment in at],
    )


def moved(con, wallet: str, *amounts: str, status="completed", vanished=None) -> None:
    for amount in amounts:
        con.execute(
            "INSERT INTO raw.exchanges_ledger (source, account, entry_id, wallet, asset, ts, "
            "status, is_settled, amount, vanished_at) VALUES ('coinbase', 'main', uuid(), ?, 'x', "
            "'2026-01-10', ?, ?, ?::DECIMAL(38,18), ?)",
            [wallet, status, status == "completed", amount, vanished],
        )


LAST = "2026-01-20"
NEXT = ("2026-01-01", "2026-01-20T06:00:00Z")


def test_a_wallet_is_known_where_nothing_is_awaited(con):
    cover(con, COINBASE, ("2026-01-01", LAST), read_at=LAST)
    wanted = {
        "empty": ("0", [], True),
        "adds up": ("0.3", ["0.1", "0.2"], True),
        "large": ("123456789012345678900.5", ["123456789012345678900.5"], None),
        "ahead": ("3", ["1", "1"], False),  # of its history, which comes later
    }
    for wallet, (amount, amounts, known) in wanted.items():
        if known is None:
            continue
        state(con, wallet)
        reported(con, wallet, amount, LAST)
        moved(con, wallet, *amounts)
    state(con, "pending")
    reported(con, "pending", "0", LAST)
    moved(con, "pending", "1", status="pending")
    state(con, "waited for no more")
    reported(con, "waited for no more", "0", LAST)
    moved(con, "waited for no more", "1", status="pending", vanished=LAST)
    moved(con, "waited for no more", "1", status="canceled")
    state(con, "unread")
    reported(con, "unread", "0", LAST)
    unreadable(con, "unread")
    state(con, "without a balance")
    state(con, "read later", read_at="2026-01-20T00:00:01Z")
    reported(con, "read later", "0", LAST)
    state(con, "old", "a day")
    reported(con, "old", "5", "2026-01-18", "2026-01-19", LAST)  # an opening, but it stands
    state(con, "moving")
    reported(con, "moving", "4", "2026-01-19")
    reported(con, "moving", "5", LAST)
    (job,) = jobs(con, COINBASE, *NEXT)
    assert set(job.known) == {"empty", "adds up", "waited for no more", "old"}
    assert job.known["old"] == "a day" and job.unread == {"unread": utc("2026-01-05")}


def test_a_source_that_judges_by_itself_gets_every_state_back(con):
    """But for what was never read, and a refetch or a refresh, which ask for everything."""
    own = Account("binance", "main", "binance_main")
    cover(con, own, ("2026-01-01", LAST), read_at=LAST)
    state(con, "asset BTC", "1 2026-01-20T00:00:00Z", account=own)
    (job,) = jobs(con, own, *NEXT)
    assert job.known == {"asset BTC": "1 2026-01-20T00:00:00Z"}
    for start, more in ((NEXT[0], {"refetch": True}), ("2025-12-01", {})):
        (job,) = jobs(con, own, start, NEXT[1], **more)
        assert job.known == {}
    assert all(not job.known for job in refresh.jobs(con, SOURCES, [own], refresh.FULL))


@pytest.mark.parametrize(
    "covered, asked, more, known",
    [
        ([("2026-01-01", LAST)], NEXT, {}, True),
        ([("2026-01-01", LAST)], NEXT, {"refetch": True}, False),
        ([("2026-01-01", LAST)], ("2025-12-01", NEXT[1]), {}, False),  # time that nobody read
        ([("2026-01-01", "2026-01-10"), ("2026-01-12", LAST)], NEXT, {}, False),
        ([("2026-01-01", "2026-01-10"), ("2026-01-12", LAST)], ("2026-01-13", NEXT[1]), {}, True),
        ([("2026-01-01", LAST)], ("2025-12-01", "2025-12-20"), {}, False),
    ],
)
def test_wallets_are_known_only_where_a_job_continues_what_is_covered(
    con, covered, asked, more, known
):
    cover(con, COINBASE, *covered, read_at=LAST)
    state(con, "w")
    reported(con, "w", "0", LAST)
    unreadable(con, "sick")
    (job,) = jobs(con, COINBASE, *asked, **more)
    assert (job.known == {"w": "s"}) == known
    begin = min((a for a, b in covered if utc(a) <= job.read_from <= utc(b)), default=asked[0])
    assert job.unread == {"sick": max(utc("2026-01-05"), utc(begin))}, "as far as there is no gap"


def test_a_refresh_knows_no_wallet_and_asks_for_no_unread_part_apart(con):
    cover(con, COINBASE, ("2025-01-01", LAST), read_at=LAST)
    cover(con, WALLET, ("2025-01-01", LAST), read_at=LAST)
    state(con, "w")
    reported(con, "w", "0", LAST)
    unreadable(con, "sick")
    state(con, "chain:eth", "eth", account=WALLET)
    asked = refresh.jobs(con, SOURCES, [COINBASE, WALLET], "full")
    assert [(j.known, j.unread) for j in asked if j.source == "coinbase"] == [({}, {})]
    assert {str(j.known) for j in asked if j.source == "debank"} == {"{'chain:eth': 'eth'}"}


def test_a_plan_of_300_wallets_asks_for_what_has_changed_and_estimates_it(con, tmp_path):
    """Plan, fetch and load, from a vendor that counts: 3 wallets changed, one of them sick."""
    then, now = "2026-03-10T06:00:00Z", "2026-03-10T12:00:00Z"

    def sync(vendor, until):
        vendor.now, vendor.asked[:] = iso(utc(until) + timedelta(minutes=1)), []
        (job,) = coverage.jobs(
            con, SOURCES, [COINBASE], Interval("2026-01-01", until), snapshot=True
        )
        books = Known.read(con, SOURCES, [COINBASE], utc(until))
        (cost,) = priced(books, SOURCES, [job], utc(until)).values()
        fetched = vendor.run(job)
        landing.write(tmp_path, job, fetched, {"run_id": until})
        load(con, tmp_path, SOURCES)
        con.execute("DELETE FROM ops.part_states")  # what the loader writes of the landed file
        for part, text in fetched.part_states.items():
            state(con, part, text, read_at=vendor.now[:-1])
        con.execute("DELETE FROM ops.unread_parts")
        for unread in fetched.unread:
            unreadable(con, unread.part, unread.interval.start.replace(tzinfo=None))
        return job, fetched, cost.calls

    with served(Vendor()) as vendor:
        for number in range(300):
            vendor.wallet(f"w{number:03}", f"C{number}", "1")
            vendor.entry(f"w{number:03}", 1, "2026-02-01T10:00:00Z")
        sync(vendor, then)
        assert len(vendor.asked) == 3 + 300 + 1
        for number in (7, 8, 9):
            vendor.wallet(f"w{number:03}", f"C{number}", "3", "2026-03-10T08:00:00Z")
            vendor.entry(f"w{number:03}", 2, "2026-03-10T08:00:00Z", "2")
        vendor.status["w009"] = 404
        job, fetched, estimated = sync(vendor, now)
        assert len(job.known) == 300 and len(vendor.asked) == 3 + 3 + 1 <= 8
        assert abs(estimated - len(vendor.asked)) <= 4, "3 had changed, more than one would think"
        assert [unread.part for unread in fetched.unread] == ["w009"]
        del vendor.status["w009"]
        job, fetched, estimated = sync(vendor, "2026-03-10T18:00:00Z")
        assert list(job.unread) == ["w009"] and len(vendor.asked) == 3 + 1 + 1
        assert abs(estimated - len(vendor.asked)) <= 3
        assert con.execute(
            "SELECT wallet, sum(amount)::INT FROM raw.exchanges_ledger WHERE vanished_at IS NULL "
            "GROUP BY 1 HAVING sum(amount) <> 1 ORDER BY 1"
        ).fetchall() == [("w007", 3), ("w008", 3), ("w009", 3)]


HOURS = st.integers(0, 40)
READINGS = st.lists(
    st.tuples(HOURS, HOURS, st.integers(0, 5), st.booleans()).filter(lambda r: r[0] < r[1]),
    max_size=12,
)


@settings(max_examples=500, deadline=None)
@given(READINGS)
def test_every_instant_belongs_to_its_newest_reading(drawn):
    at = [datetime(2026, 1, 1) + timedelta(hours=h) for h in range(41)]
    found = [
        CoverageSegment(at[a], at[b], at[r], str(n), "r", "b", at[0], fresh)
        for n, (a, b, r, fresh) in enumerate(drawn)
    ]
    segments = newest(found)
    assert all(x.end <= y.start for x, y in zip(segments, segments[1:])), "disjoint, oldest first"
    for hour in range(40):
        over = [r for r in found if r.start <= at[hour] < r.end]
        here = [s for s in segments if s.start <= at[hour] < s.end]
        assert bool(over) == bool(here)
        if over:
            best = max(r.read_at for r in over)
            settled = [r for r in over if r.read_at == best]
            assert here[0].read_at == best
            assert here[0].fresh == all(r.fresh for r in settled), "of a tie the one known before"
    again = newest(segments)
    assert again == segments, "twice equals once"
