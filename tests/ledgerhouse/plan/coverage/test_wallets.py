"""Wallets that have not changed or could not be read, and whose reading an instant belongs to."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.core.interval import Interval, iso, utc
from extract.fetch import landing
from ledgerhouse.config import Account
from ledgerhouse.load.coverage_segments import CoverageSegment, newest
from ledgerhouse.load.loader import load
from ledgerhouse.plan import coverage, refresh
from ledgerhouse.plan.estimate import Known, priced
from tests.helpers.coinbase_stub import Vendor, served
from tests.ledgerhouse.plan.coverage.scene import COINBASE, SOURCES, WALLET, cover, jobs


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
