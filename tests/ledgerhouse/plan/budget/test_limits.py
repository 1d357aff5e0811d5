"""No day and no month passes its limit, whatever fails, and what was kept is not paid for again."""

import json
import random
from datetime import timedelta

import pytest

from extract.core.errors import BudgetReached, FetchStopped, Retriable
from extract.core.interval import Interval, utc
from extract.core.source import Job
from extract.fetch.client import Client
from extract.sources import get
from ledgerhouse.config import Limit
from ledgerhouse.load.loader import load
from ledgerhouse.plan.budget import Ledger
from sandbox.debank.keys import DEBANK_KEY
from sandbox.faults.faults import TRANSIENT
from sandbox.server import serve
from sandbox.world.world import World
from tests.helpers.books import Books, Hurried
from tests.ledgerhouse.plan.budget.scene import (
    HISTORY,
    NOW,
    START,
    WALLETS,
    Days,
    assert_onchain,
    lifted,
    spent,
)


def run_under(books: Books, url, days: Days, allowed: list[Limit]) -> list[tuple]:
    """One run after the other until nothing is missing, each stop waited for until the budget opens
    again: [(day, calls, units by the sandbox's count, fetches stopped)] a run."""
    books.budgets, runs = {"debank": Ledger(books.root, "debank", allowed, now=days)}, []
    while jobs := books.plan(START, NOW, WALLETS):
        assert len(runs) < 150, "it never comes to an end"
        before, opens = spent(url), []
        for job in jobs:
            try:
                books.fetch(job)
            except BudgetReached as reached:
                opens.append(reached.opens_at)
                assert reached.opens_at > days.now and DEBANK_KEY not in str(reached)
            except Retriable:
                pass  # its faults outlasted the tries; the interval is open
        load(books.con, books.root, books.sources)
        calls, units = (a - b for a, b in zip(spent(url), before))
        runs.append((days.now.date(), calls, units, len(opens)))
        days.now = max([days.now + timedelta(minutes=1), *opens])
    return runs


@pytest.mark.parametrize("seed", [1, 3])
def test_no_day_and_no_month_passes_its_limit_whatever_fails(seed, small, tmp_path):
    """By the sandbox's own count, which charges before it cuts or spoils an answer."""
    rng = random.Random(seed)
    with serve(small, now=NOW) as url:
        faulty = rng.sample([f for f in TRANSIENT if f != "timeouts"], 3)
        lifted(url).app.faults.set(",".join(faulty), rate=0.15)
        books = Books(url, tmp_path, clock=Hurried())
        allowed = [
            Limit("debank", "units", "day", rng.randrange(180, 300)),
            Limit("debank", "calls", "day", rng.randrange(18, 26)),
            Limit("debank", "units", "month", rng.randrange(250, 400)),
            Limit("coinbase", "calls", "day", 0),
        ]
        runs = run_under(books, url, Days(), allowed)
        assert_onchain(books, url)
        assert sum(run[1] for run in runs) == len(books.calls), "every call is logged"
        for limit in allowed[:3]:
            totals: dict[str, int] = {}
            for day, calls, units, _ in runs:
                opens = str(day)[: 10 if limit.period == "day" else 7]
                spent_so = {"calls": calls, "units": units}[limit.measure]
                totals[opens] = totals.get(opens, 0) + spent_so
            assert len(totals) > 1 and max(totals.values()) <= limit.allowed, limit


def test_what_was_kept_is_not_paid_for_again(small, tmp_path):
    """Stopped and resumed costs what one run costs, but for two pages a fetch that was stopped."""
    rng = random.Random(1)
    with serve(small, now=NOW) as url:
        lifted(url)
        whole = Books(url, tmp_path / "whole", clock=Hurried())
        whole.sync(START, NOW, accounts=WALLETS)
        once = spent(url)[1]
        books = Books(url, tmp_path / "parts", clock=Hurried())
        a_day = rng.randrange(12, 25) * get("debank").units[HISTORY]
        runs = run_under(books, url, Days(), [Limit("debank", "units", "day", a_day)])
        again, stopped = spent(url)[1] - once, sum(run[3] for run in runs)
        assert stopped > 0 and once > a_day and len(runs) > 1
        assert again <= once + 2 * stopped * get("debank").units[HISTORY]
        tables = ("onchain_transactions", "onchain_transfers")
        assert books.content(*tables) == whole.content(*tables)
        assert [books.plan(START, NOW, WALLETS), whole.plan(START, NOW, WALLETS)] == [[], []]


def test_a_long_walk_of_several_pieces_keeps_each(tmp_path):
    """Whatever the moment of the stop: what is covered is whole, and every page paid is kept."""
    start = "2024-02-01T00:00:00Z"
    with serve(World(5, start, 1.0, 0, mess=False), now=NOW) as url:
        lifted(url)
        wallet = max(
            WALLETS,
            key=lambda a: sum(r["wallet"] == a.account for r in url.world.transactions(NOW)),
        )
        truth = {
            (r["tx_id"], utc(r["time"]))
            for r in url.world.transactions(NOW)
            if r["wallet"] == wallet.account
        }
        job = Job("debank", wallet.account, "debank", Interval(start, NOW), utc(start))
        api = get("debank").connect(host=url.debank, password=DEBANK_KEY)
        kept = 0
        for calls in range(1, 50, 7):
            ledger = Ledger(
                tmp_path / str(calls),
                "debank",
                [Limit("debank", "calls", "month", calls)],
                now=Days(),
            )
            client = Client("debank", wallet.account, rates={}, units={}, budget=ledger)
            try:
                get("debank").fetch(client, api, job)
                break
            except FetchStopped as stop:
                rows = {
                    row["id"]
                    for page in stop.partial.pages
                    if "history_list" in page.endpoint
                    for row in json.loads(page.body)["history_list"]
                }
                spans = [
                    c.interval for c in stop.partial.covered if c.dataset == "onchain_transactions"
                ]
                assert len(stop.partial.pages) == calls == client.calls
                assert {tx for tx, at in truth if any(at in span for span in spans)} <= rows
                kept = max(kept, len(spans))
        assert kept > 1, "no walk was stopped in several pieces: make the history longer"
