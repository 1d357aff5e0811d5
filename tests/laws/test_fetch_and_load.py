"""Laws of extraction, against the sandbox over HTTP: complete, additive, repeatable."""

import math
import random
from datetime import timedelta

import pytest
import requests

from extract.core.errors import Fatal, UnitsExhausted
from extract.core.interval import Interval, iso, utc
from ledgerhouse.load.loader import load
from sandbox.server import serve
from tests.helpers.books import ACCOUNTS, KEPT, Books, Hurried, assert_truth

START, NOW = "2024-11-01T00:00:00Z", "2025-03-01T00:00:00Z"
SCALE = 0.25
SEEDS = [7, *random.Random("ledgerhouse").sample(range(10**9), 19)]


def control(url, path: str, **body) -> None:
    requests.post(f"{url}/_control/{path}", json=body, timeout=10).raise_for_status()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_warehouse_is_the_ground_truth(seed, tmp_path):
    with serve(seed=seed, now=NOW, scale=SCALE) as url:
        books = Books(url, tmp_path)
        books.sync(START, NOW)
        assert_truth(books, url.world, NOW)
        assert books.plan(START, NOW) == [], "covered time costs no call"


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS[:4])
def test_fetches_add_up_in_any_order_and_again_changes_nothing(seed, tmp_path):
    rng = random.Random(seed)
    with serve(seed=seed, now=NOW, scale=SCALE) as url:
        whole = Books(url, tmp_path / "whole")
        whole.sync(START, NOW)
        # Cut where it hurts: at the very second of transactions, and at random.
        times = [r["time"] for r in url.world.transactions(NOW)]
        ties = [t for t in set(times) if times.count(t) > 1]
        cuts = {iso(utc(t)) for t in rng.sample(sorted(ties), 4)}
        cuts |= {iso(utc(START) + timedelta(seconds=rng.randrange(120 * 86400))) for _ in range(4)}
        edges = sorted({START, NOW, *cuts} - {c for c in cuts if c >= NOW})
        pieces = list(zip(edges, edges[1:]))
        rng.shuffle(pieces)
        parts = Books(url, tmp_path / "parts")
        for start, end in pieces:
            parts.sync(start, end, lookback=timedelta(0))
        assert parts.content() == whole.content()
        before, touched = whole.content(), "SELECT count(*) FROM ops.touched_days"
        whole.con.execute("DELETE FROM ops.touched_days")
        done = whole.sync(START, NOW, refetch=True)
        assert (done.new, done.changed, done.removed) == (0, 0, 0) and done.same == done.rows
        assert whole.content() == before and whole.column(touched) == [0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS[4:6])
def test_six_hourly_syncs_follow_pending_late_and_changing_rows(seed, tmp_path):
    with serve(seed=seed, now=START, scale=1.0) as url:
        url.app.lift_limits()  # eleven days pass in seconds
        books, now, changed = Books(url, tmp_path, clock=Hurried()), utc(START), 0
        while now < utc("2024-11-12"):
            now += timedelta(hours=6)
            control(url, "clock", now=iso(now))
            changed += books.sync(START, now).changed
        assert_truth(books, url.world, iso(now))
        assert changed and books.column("SELECT count(*) FROM raw.history")[0] >= changed
        was = dict(
            books.con.execute(
                "SELECT h.key->>'$.entry_id', list(h.row->>'$.status') FROM raw.history h "
                "WHERE dataset = 'exchanges_ledger' GROUP BY 1"
            ).fetchall()
        )
        settled = {r["entry_id"] for r in url.world.ledger(iso(now), KEPT) if r["is_settled"]}
        assert any("pending" in was.get(e, []) for e in settled), "pending → completed, both kept"


def test_a_row_a_month_late_changes_exactly_the_days_it_touches(tmp_path):
    with serve(seed=11, now=NOW, scale=SCALE, late_days=30) as url:
        books = Books(url, tmp_path)
        books.sync(START, NOW)
        later = "2025-04-05T00:00:00Z"
        control(url, "clock", now=later)
        known = {(r["wallet"], r["tx_id"]) for r in url.world.transactions(NOW)}
        late = [
            r
            for r in url.world.transactions(later)
            if r["time"] < "2025-02-20" and (r["wallet"], r["tx_id"]) not in known
        ]
        assert late, "the world has late rows"
        books.con.execute("DELETE FROM ops.touched_days")
        done = books.sync(START, "2025-02-20", refetch=True)
        assert done.new and not done.changed
        assert set(
            books.column(
                "SELECT day::VARCHAR FROM ops.touched_days WHERE dataset = 'onchain_transactions'"
            )
        ) == {r["time"][:10] for r in late}


@pytest.mark.parametrize("status, error", [(401, Fatal), (403, UnitsExhausted)])
def test_a_failing_source_leaves_its_interval_open_and_the_next_run_fetches_it(
    status, error, tmp_path
):
    with serve(seed=3, now=NOW, scale=SCALE) as url:
        books = Books(url, tmp_path)
        middle = "2025-01-15T00:00:00Z"
        books.sync(START, middle)
        control(url, "fail", vendor="debank", status=status)
        for job in books.plan(START, "2025-02-01"):
            if job.source == "debank":
                calls = len(books.calls)
                with pytest.raises(error, match=f"debank account {job.account}.*HTTP {status}"):
                    books.fetch(job)
                assert len(books.calls) == calls + 1, "asked once: no retry can help"
                assert books.calls[-1]["status"] == status and books.calls[-1]["units"] == 0
            else:
                books.fetch(job)
        load(books.con, books.root, books.sources)
        holes = {j.source for j in books.plan(START, "2025-02-01")}
        assert holes == {"debank"}, "the other source has arrived"
        control(url, "fail", vendor="debank", status=None)
        books.sync(START, NOW)
        assert_truth(books, url.world, NOW)


@pytest.mark.parametrize("inclusive", [True, False])
def test_the_walk_costs_the_least_number_of_calls(inclusive, tmp_path):
    with serve(seed=9, now=NOW, scale=1.0, inclusive=inclusive) as url:
        books = Books(url, tmp_path)
        for account in [a for a in ACCOUNTS if a.source == "debank"]:
            span = Interval("2025-02-01", "2025-02-22")
            for job in books.plan(span.start, span.end, [account]):
                before = len(books.calls)
                books.fetch(job)
                rows = [
                    r
                    for r in url.world.transactions(NOW)
                    if r["wallet"] == account.account
                    and iso(span.start) <= r["time"] < iso(span.end)
                ]
                calls = books.calls[before:]
                least = math.ceil((len(rows) + 1) / 20)
                # A row of the border second may be read twice, and a second fuller than a
                # page is read again chain by chain.
                walked = [c for c in calls if c["endpoint"].endswith("all_history_list")]
                assert len(walked) <= math.ceil(1.1 * least) + (
                    2 if len(calls) > len(walked) else 0
                )


def test_what_has_not_happened_yet_is_not_covered(tmp_path):
    with serve(seed=2, now="2025-01-01T03:00:00Z", scale=SCALE) as url:
        books = Books(url, tmp_path)
        books.sync("2025-01-01T00:00:00Z", "2025-01-01T06:00:00Z")
        assert set(books.column("SELECT end_ts::VARCHAR FROM ops.coverage")) == {
            "2025-01-01 03:00:00"
        }, "coverage never passes the vendor's own clock"
        for job in books.plan("2025-01-02", "2025-01-03", lookback=timedelta(0)):
            with pytest.raises(Fatal, match="has not happened yet"):
                books.fetch(job)
