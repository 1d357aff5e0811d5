"""What a refresh finds: exactly what the sandbox tells differently."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import requests

from extract.core.interval import Interval, iso, union, utc
from extract.fetch.call_log import call_log
from extract.sources.debank import HISTORY, PAGE, TOKENS, UNIT_PRICES
from ledgerhouse.load import refresh_report
from ledgerhouse.load.call_log import load_calls
from ledgerhouse.load.loader import load
from ledgerhouse.plan import refresh
from ledgerhouse.plan.estimate import Known, priced
from sandbox.server import serve
from tests.helpers.books import Books, Hurried, of
from tests.ledgerhouse.plan.refresh.scene import DAY, SOURCES, WEEK

START, NOW = utc("2024-11-01"), utc("2025-03-25")
ACCOUNTS = of("coinbase") + of("debank")


class Vendor:
    """The sandbox at `url`: its clock, its truth at a moment, and what it has counted."""

    LISTS = {
        "exchanges_ledger": ("coinbase/ledger", ("entry_id",)),
        "exchanges_trades": ("coinbase/fills", ("trade_id",)),
        "onchain_transactions": ("debank/transactions", ("chain", "tx_id")),
        "onchain_transfers": ("debank/transfers", ("chain", "tx_id", "direction")),
    }

    def __init__(self, url: str):
        self.url = url

    def tell(self, path: str, **body):
        answer = requests.post(f"{self.url}/_control/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def stats(self) -> dict:
        return requests.get(f"{self.url}/_stats", timeout=30).json()

    def busy_moment(self) -> datetime:
        """When rows of both vendors have been shown that are shown differently a second later."""
        waits = []
        for place in ("coinbase/ledger", "debank/transactions"):
            rows = requests.get(f"{self.url}/_truth/{place}", {"now": iso(NOW)}, timeout=30).json()
            waits.append(
                [
                    (r["visible_at"], r.get("changes_at") or r["updated"])
                    for r in rows
                    if (r.get("changes_at") or r.get("updated") or "") > r["visible_at"]
                ]
            )
        return utc(
            max(
                moment
                for mine, other in (waits, waits[::-1])
                for shown, moment in mine
                if moment < iso(NOW) and any(a < moment < b for a, b in other)
            )
        ) - timedelta(seconds=1)

    def truth(self, dataset: str, now: datetime) -> dict[tuple, list[dict]]:
        """(account, *key) → its rows as the vendor has them at `now`, but when they are known."""
        place, key = self.LISTS[dataset]
        rows: dict[tuple, list[dict]] = {}
        for row in requests.get(f"{self.url}/_truth/{place}", {"now": iso(now)}, timeout=30).json():
            if row["time"] < iso(now):
                account = row.get("wallet", "main") if place.startswith("debank") else "main"
                rows.setdefault((account, *(row[k] for k in key)), []).append(
                    {k: v for k, v in row.items() if k not in ("visible_at", "changes_at")}
                )
        return rows


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory):
    """Four months read once, then again whole: rows have come, changed and gone since. Yields
    the vendor, the books, what was found, and what led to it."""
    root = tmp_path_factory.mktemp("refreshed")
    with serve(seed=21, now=iso(NOW), scale=0.4, late_days=40) as url:
        url.app.lift_limits()  # nobody here waits
        books, vendor = Books(url, root / "landing", clock=Hurried()), Vendor(url)
        read = vendor.busy_moment()
        vendor.tell("clock", now=iso(read))
        books.sync(START, read, accounts=ACCOUNTS, lookback=timedelta(0))
        vendor.tell("clock", now=iso(NOW))
        gone = [
            vendor.tell("vanish", vendor=name, seed=seed)
            for seed in range(2)
            for name in ("coinbase", "debank")
        ]
        vendor.tell("clock", now=iso(NOW + timedelta(hours=1)))
        before = {
            d: {
                (a, *k)
                for a, *k in books.con.execute(
                    f"SELECT account, {', '.join(key)} FROM raw.{d}"
                ).fetchall()
            }
            for d, (_, key) in Vendor.LISTS.items()
        }
        vendor.tell("reset_stats")
        found = again(books, "full", "weekly", root)
        yield vendor, books, found, before, gone, vendor.stats(), root, read


def again(books: Books, scope, run_id: str, root: Path) -> refresh_report.RefreshReport:
    """One refresh as the DAG does it: plan with its estimate, fetch, load, report."""
    jobs = refresh.jobs(books.con, SOURCES, ACCOUNTS, scope)
    now = refresh.newest(books.con, ACCOUNTS)
    known = Known.read(books.con, SOURCES, ACCOUNTS, now)
    estimate = {
        account: (cost.calls, cost.units)
        for account, cost in priced(known, SOURCES, jobs, now).items()
    }
    books.run_id, books.calls[:] = run_id, []
    for job in jobs:
        books.fetch(job)
    with call_log(root / "calls", {"run_id": run_id, "dag_id": "weekly_refresh"}) as record:
        for call in books.calls:
            record(call)
    load_calls(books.con, root / "calls")
    load(books.con, books.root, SOURCES)
    refresh_report.record(books.con, run_id, scope, estimate)
    return refresh_report.record(books.con, run_id, scope, estimate)  # a retry of the task


@pytest.mark.parametrize("dataset", Vendor.LISTS)
def test_a_refresh_finds_exactly_what_the_vendor_tells_differently(refreshed, dataset):
    vendor, _, found, before, *_, read = refreshed
    known = vendor.truth(dataset, read)
    assert known.keys() == before[dataset]
    now = {
        key: rows
        for key, rows in vendor.truth(dataset, NOW + timedelta(hours=1)).items()
        if rows[0]["time"] < iso(read)
    }
    more = {key: len(rows) - len(known.get(key, ())) for key, rows in now.items()}
    wanted = {
        "rows_new": Counter(),
        "rows_vanished": Counter(k[0] for k in known if k not in now for _ in known[k]),
    }
    for key, rows in more.items():
        wanted["rows_new"][key[0]] += max(0, rows)
    if dataset != "onchain_transfers":  # where a leg comes in between, others get its number
        wanted["rows_changed"] = Counter(k[0] for k in now if k in known and known[k] != now[k])
        wanted["rows_same"] = Counter(k[0] for k in now if known.get(k) == now[k])
    mine = [row for row in found.rows if row["dataset"] == dataset]
    for column, counts in wanted.items():
        assert Counter({r["account"]: r[column] for r in mine}) == counts, column
    if dataset in ("exchanges_ledger", "onchain_transactions"):
        assert sum(wanted["rows_vanished"].values()) and sum(wanted["rows_changed"].values())
    if dataset.startswith("onchain"):
        assert sum(wanted["rows_new"].values()) and sum(
            wanted["rows_same"].values() if "rows_same" in wanted else [1]
        )
    fields = Vendor.LISTS[dataset][1]
    listed = {
        (account, *(json.loads(key)[f] for f in fields))
        for name, account, key, *_ in found.late
        if name == dataset
    }
    assert listed == {k for k, rows in more.items() if rows > 0}, "all of it is older than a week"
    assert {
        (account, *(json.loads(key)[f] for f in fields))
        for name, account, key, *_ in found.vanished
        if name == dataset
    } == {k for k in known if k not in now}


def test_what_was_told_to_vanish_is_listed_with_its_instant(refreshed):
    _, _, found, _, gone, *_ = refreshed
    for row in gone:
        (met,) = [
            met
            for name, _, key, _, met in found.vanished
            if name in ("exchanges_ledger", "onchain_transactions")
            and (row.get("entry_id") or row["tx_id"]) in key
        ]
        assert met == (NOW + timedelta(hours=1)).replace(tzinfo=None)


def test_the_cost_is_estimated_before_and_counted_after(refreshed):
    _, books, found, _, _, stats, *_ = refreshed
    assert found.total("calls") == sum(stats["total"].values())
    assert found.total("units") == stats["units_spent"] > 0
    # A page repeats the row it was asked from, and a second beside a full one is asked by chain.
    for what in ("calls", "units"):
        assert 1 <= found.total(what) / found.total(f"estimated_{what}") < 1.5
    totals = books.con.execute(
        "SELECT sum(calls), sum(units), count(*), count(DISTINCT run_id) FROM "
        "ops.refreshes WHERE run_id = 'weekly'"
    ).fetchone()
    assert totals == (found.total("calls"), found.total("units"), len(found.rows), 1), "once"


def test_a_fetch_that_failed_is_listed_with_its_cost(refreshed, tmp_path):
    _, books, *_ = refreshed
    with call_log(tmp_path / "calls", {"run_id": "failed"}) as record:
        record(
            {
                **books.calls[0],
                "call_id": "one more",
                "source": "debank",
                "account": "0xelse",
                "units": 20,
            }
        )
    load_calls(books.con, tmp_path / "calls")
    (row,) = refresh_report.record(
        books.con, "failed", "full", {("debank", "0xelse"): (7, 140)}
    ).rows
    assert (
        row["account"],
        row["dataset"],
        row["rows_same"],
        row["calls"],
        row["units"],
        row["estimated_units"],
    ) == ("0xelse", "", 0, 1, 20, 140)


def test_what_the_weekly_refresh_leaves_of_the_savings_is_counted(refreshed):
    """Against a full refresh a day: 86 % at most when everything is read each week, 96 % by
    quarters. Less by what a walk costs beyond ceil(n / 20) pages, and by whole months being read:
    in so short a history both are much."""
    vendor, books, found, *_, root, first = refreshed
    wallets = Counter(wallet for wallet, *_ in vendor.truth("onchain_transactions", first))
    daily = sum(
        UNIT_PRICES[HISTORY] * -(-(rows + 1) // PAGE) + UNIT_PRICES[TOKENS]
        for rows in wallets.values()
    )
    assert 0.81 < 1 - found.total("units") / (7 * daily) < 1 - 1 / 7
    spent, read, clock = [], [], NOW
    for week in range(refresh.PARTS):
        clock += WEEK
        vendor.tell("clock", now=iso(clock))
        vendor.tell("reset_stats")
        quarter = again(books, "quarter", f"week {week}", root)
        spent.append(vendor.stats()["units_spent"])
        assert quarter.total("units") == spent[-1]
        read += [
            Interval(r["start_ts"], r["end_ts"])
            for r in quarter.rows
            if r["dataset"] == "onchain_transactions"
        ]
    over = (first - 7 * DAY).replace(day=1, hour=0, minute=0, second=0)
    assert union(read) == [Interval(START, over)], "all of the settled months"
    # A week reads a fourth of the rows, and at most a month more than that.
    assert max(spent) < (
        1 / refresh.PARTS + 1 / len(Interval(START, over).by_month())
    ) * found.total("units")
    assert 0.94 < 1 - sum(spent) / (7 * refresh.PARTS * daily) < 1 - 1 / 28
