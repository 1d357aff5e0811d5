"""The budget: no call passes a limit, what was read is kept, and the books say what was spared."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sqlite3
from datetime import datetime, timedelta
from math import ceil

import pytest

from extract.core.errors import BudgetReached, Fatal, FetchStopped, Retriable
from extract.core.interval import Interval, utc
from extract.core.quarantine import quarantined
from extract.core.source import Job
from extract.fetch.call_log import call_log, logged
from extract.fetch.client import Client
from extract.sources import all_sources, get
from ledgerhouse.config import AccountsFile, Limit
from ledgerhouse.load import unit_balances
from ledgerhouse.load.call_log import load_calls
from ledgerhouse.load.loader import load
from ledgerhouse.plan import ledger_file
from ledgerhouse.plan import spending as spending_of
from ledgerhouse.plan.budget import Ledger, from_logs, from_warehouse
from sandbox.debank.keys import DEBANK_KEY
from sandbox.faults.faults import TRANSIENT
from sandbox.server import serve
from sandbox.world.world import World
from tests.helpers.books import ACCOUNTS, Books, Hurried

START, NOW = "2024-11-01T00:00:00Z", "2024-12-20T00:00:00Z"
WALLETS = [a for a in ACCOUNTS if a.source == "debank"]
HISTORY, TOKENS = "/v1/user/all_history_list", "/v1/user/all_token_list"


@pytest.fixture(scope="module")
def small():
    return World(5, START, 0.5, 0, mess=False)


def lifted(url):
    """The sandbox without limits of its own, for clients that do not wait."""
    url.app.lift_limits()
    return url


def spent(url) -> tuple[int, int]:
    """(calls, units) of DeBank by the sandbox's own count."""
    return url.app.stats()["total"]["debank"], url.app.apis["debank"].units_spent


class Days:
    """A clock that stands still, until it is moved on."""

    def __init__(self, text="2026-01-30T22:00:00Z"):
        self.now = utc(text)

    def __call__(self) -> datetime:
        return self.now


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


def assert_onchain(books, url):
    """Every transaction and leg that the world has, and none else."""
    truth = {r["tx_id"] for r in url.world.transactions(NOW) if START <= r["time"] < NOW}
    found = books.column(
        f"SELECT tx_id FROM raw.onchain_transactions WHERE vanished_at IS NULL AND ts >= '{START}'"
    )
    assert len(found) >= len(truth) and set(found) == truth
    assert len([r for r in url.world.transfers(NOW) if START <= r["time"] < NOW]) == len(
        books.column("SELECT 1 FROM raw.onchain_transfers WHERE vanished_at IS NULL")
    )


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


def killed(where: str, nth: int):
    """A function for a step of a call that kills its process at the nth time."""
    counts = {"n": 0}

    def step(now: str) -> None:
        if now == where:
            counts["n"] += 1
            if counts["n"] == nth:
                os.kill(os.getpid(), signal.SIGKILL)

    return step


def fetch_all(url: str, root: str, allowed: list[Limit], at: str, where: str, nth: int) -> None:
    """One process: fetches every wallet again and again, until the budget says no."""
    step, source = killed(where, nth), get("debank")
    api = source.connect(host=url, password=DEBANK_KEY)
    ask = api.get

    def get_(*args, **kwargs):
        step("reserved")
        answer = ask(*args, **kwargs)
        step("sent")
        return answer

    api.get = get_
    ledger = Ledger(root, "debank", allowed, now=Days(at))
    with call_log(f"{root}/calls", {"run_id": "r"}) as record:

        def write(call):
            record(call)
            step("logged")

        while True:
            for wallet in WALLETS:
                client = Client(
                    "debank",
                    wallet.account,
                    rates={},
                    units=source.units,
                    record=write,
                    budget=ledger,
                )
                try:
                    source.fetch(
                        client,
                        api,
                        Job("debank", wallet.account, "debank", Interval(START, NOW), utc(START)),
                    )
                except BudgetReached:
                    return


@pytest.mark.slow
def test_processes_share_a_budget_and_three_of_four_are_killed(small, tmp_path):
    at, rng = "2026-01-30T22:00:00Z", random.Random(5)
    allowed = [
        Limit("debank", "units", "day", rng.randrange(2000, 3000)),
        Limit("debank", "calls", "month", rng.randrange(110, 130)),
    ]
    with serve(small, now=NOW) as url:
        lifted(url)
        spawn = multiprocessing.get_context("spawn")
        workers = [
            spawn.Process(target=fetch_all, args=(url.debank, str(tmp_path), allowed, at, where, 3))
            for where in ("reserved", "sent", "logged", "never")
        ]
        # The one that lives on uses up the rest: beside it, the others might not come to their third.
        for together in (workers[:3], workers[3:]):
            for worker in together:
                worker.start()
            for worker in together:
                worker.join(120)
        assert [w.exitcode for w in workers] == [*3 * [-signal.SIGKILL], 0]
        calls, units = spent(url)
        in_log = {c["call_id"]: c for c in logged(tmp_path / "calls")}
        ledger = Ledger(tmp_path, "debank", allowed, now=Days(at))
        assert calls <= allowed[1].allowed and units <= allowed[0].allowed
        # A killed one had at most a call of each of its 8 threads reserved, sent or not.
        left = ledger.remaining()
        assert calls <= allowed[1].allowed - left["calls", "month"] <= calls + 3 * 8
        assert left["calls", "month"] == 0 or left["units", "day"] < 20, "none was refused early"
        for _ in range(2):  # counted again, it says the same, however often
            ledger.recount(from_logs(lambda first: logged(tmp_path / "calls", first)))
            assert ledger.remaining() == left
        ledger.close()
        (tmp_path / "budget.sqlite").unlink()
        assert not ledger.is_counted
        ledger.recount(from_logs(lambda first: logged(tmp_path / "calls", first)))
        assert ledger.is_counted
        assert ledger.remaining() == {
            ("units", "day"): allowed[0].allowed - sum(c["units"] for c in in_log.values()),
            ("calls", "month"): allowed[1].allowed - len(in_log),
        }


def test_the_ledger_is_counted_from_the_warehouse_while_others_call(tmp_path, small):
    """Whatever is loaded, half loaded, in flight or lost counts once."""
    rng = random.Random(4)
    import duckdb

    from ledgerhouse.warehouse.schema import create_all

    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    create_all(con)
    clock = Days("2026-01-31T22:00:00Z")
    ledger = Ledger(
        tmp_path,
        "debank",
        [Limit("debank", "units", "day", 10**6), Limit("debank", "calls", "month", 10**6)],
        now=clock,
    )
    expected = {"day": [0, 0], "month": [0, 0]}
    for _ in range(60):
        with call_log(tmp_path / "calls", {}) as record:
            for _ in range(rng.randrange(3)):
                price = rng.randrange(9)
                call_id, at = ledger.reserve(price)
                fate = rng.choice(["lost", "logged", "settled", "cheaper"])
                cost = price // 2 if fate == "cheaper" else price
                if fate != "lost":
                    record(
                        {
                            "call_id": call_id,
                            "called_at": at.isoformat(),
                            "source": "debank",
                            "account": "a",
                            "endpoint": "/",
                            "status": 200,
                            "duration_ms": 1,
                            "units": cost,
                        }
                    )
                if fate in ("settled", "cheaper"):
                    ledger.settle(call_id, cost)
                for sums in expected.values():
                    sums[0] += 1
                    sums[1] += cost
            if rng.random() < 0.5:
                load_calls(con, tmp_path / "calls")
                for file in list((tmp_path / "calls").glob("????-??/*"))[:1]:  # killed in between
                    shutil.copy(file, tmp_path / "calls" / "inbox" / file.name)
            if rng.random() < 0.5:
                ledger.recount(from_warehouse(con, lambda: logged(tmp_path / "calls")))
        assert ledger.remaining() == {
            ("units", "day"): 10**6 - expected["day"][1],
            ("calls", "month"): 10**6 - expected["month"][0],
        }
        if rng.random() < 0.2:
            clock.now += timedelta(hours=1)
            if clock.now.hour == 0:
                expected["day"] = [0, 0]
                if clock.now.day == 1:
                    expected["month"] = [0, 0]
    assert clock.now.month == 2


def test_a_budget_that_opens_again_is_named(tmp_path):
    for period, opens in (("day", "2026-02-01T00:00:00Z"), ("month", "2026-02-01T00:00:00Z")):
        ledger = Ledger(
            tmp_path / period,
            "debank",
            [Limit("debank", "units", period, 50)],
            now=Days("2026-01-31T23:59:59.9Z"),
        )
        ledger.reserve(40)
        with pytest.raises(
            BudgetReached,
            match="allows 50 units a .*40 are spent and the next "
            f"call costs 20.*opens again at {opens}.*units_per_{period}",
        ) as error:
            ledger.reserve(20)
        assert (error.value.spent, error.value.opens_at) == (40, utc(opens))
        ledger.reserve(10)
        ledger._now = Days(opens)
        ledger.reserve(50)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[budget.bank]\nunits_per_day = 1",
            r"\[budget.bank\]: unknown source 'bank'; known: coin",
        ),
        ("[budget.debank]\nunits_a_day = 1", r"unknown 'units_a_day'; there are units_per_day, "),
        ("[budget.debank]\ncalls_per_day = -1", r"calls_per_day is -1; write a whole number"),
        ("[budget.debank]\ncalls_per_month = 1.5", r"calls_per_month is 1.5; write a whole"),
        ("[budget.debank]\ncalls_per_month = true", r"calls_per_month is True; write a whole"),
        ('[budget.debank]\ncalls_per_month = "9"', r"calls_per_month is '9'; write a whole"),
        ("[budget]\ndebank = 7", r"give it lines like units_per_day = 20000"),
        ("budget = 7", r"write the budget of a source as \[budget.debank\]"),
        ("budget = ", r"cannot read the budget in"),
    ],
)
def test_a_wrong_budget_is_refused(text, said, tmp_path):
    (tmp_path / "accounts.toml").write_text(text)
    with pytest.raises(ValueError, match=said):
        AccountsFile.read(tmp_path / "accounts.toml", "budget").limits()


def test_the_limits_of_a_file(tmp_path):
    file = tmp_path / "accounts.toml"
    file.write_text(
        '[[account]]\nsource = "coinbase"\naccount = "a"\nconnection = "c"\n'
        "[budget.debank]\nunits_per_day = 20\ncalls_per_month = 0\n"
    )
    assert AccountsFile.read(file).limits() == [
        Limit("debank", "units", "day", 20),
        Limit("debank", "calls", "month", 0),
    ]
    assert len(AccountsFile.read(file).accounts()) == 1


# --- a damaged ledger -----------------------------------------------------------------------------

TEN_CALLS = [Limit("debank", "calls", "month", 10)]
DAMAGED = {
    "foreign": lambda data: b"no database at all, by any means" * 200,
    "cut": lambda data: data[: len(data) // 2],
    "a page": lambda data: data[:4096] + bytes(4096) + data[8192:],
}


def spending(root, calls: int) -> Ledger:
    """A ledger that counts again from the call log, of so many calls that are written down."""
    days = Days()
    with call_log(root / "calls", {}) as record:
        for n in range(calls):
            called = {"called_at": days.now.isoformat(), "endpoint": "/x", "status": 200}
            record({"call_id": f"c{n}", "source": "debank", "account": "0x", "units": 1,
                    "duration_ms": 1, **called})  # fmt: skip
    count = from_logs(lambda first: logged(root / "calls", first))
    ledger = Ledger(root, "debank", TEN_CALLS, now=days, count=count)
    ledger.recount(count)
    return ledger


def remaining(ledger: Ledger) -> int:
    return ledger.remaining()["calls", "month"]


@pytest.mark.parametrize(
    "when, harm",
    [("between two tasks", harm) for harm in DAMAGED]
    + [("in a fetch", "foreign"), ("in a fetch", "cut")],
)
def test_a_damaged_ledger_is_put_aside_and_counted_again(tmp_path, harm, when):
    ledger, file = spending(tmp_path, 7), tmp_path / "budget.sqlite"
    waiting, _ = ledger.reserve(1)
    assert remaining(ledger) == 2
    if when == "between two tasks":
        ledger.close()
    file.write_bytes(DAMAGED[harm](file.read_bytes()))
    ledger.reserve(1)
    assert remaining(ledger) in (1, 2), "the open reservation counts where it can still be read"
    assert [f.name for f, _, _ in quarantined(tmp_path)] == ["budget.sqlite"]
    while remaining(ledger):
        ledger.reserve(1)
    with pytest.raises(BudgetReached):
        ledger.reserve(1)
    ledger.settle(waiting, 1)
    assert len(list(quarantined(tmp_path))) == 1


def test_others_that_have_a_damaged_ledger_open_go_on_with_the_new_one(tmp_path):
    first, file = spending(tmp_path, 6), tmp_path / "budget.sqlite"
    count = from_logs(lambda day: logged(tmp_path / "calls", day))
    second = Ledger(tmp_path, "debank", TEN_CALLS, now=Days(), count=count)
    third = Ledger(tmp_path, "debank", TEN_CALLS, now=Days())  # knows no call logs
    assert [remaining(each) for each in (first, second, third)] == [4, 4, 4]
    file.write_bytes(DAMAGED["foreign"](b""))
    first.reserve(1)
    assert remaining(second) == remaining(first) == 3
    with pytest.raises(Fatal, match="was damaged, and is begun again: the next try"):
        third.reserve(1)
    assert remaining(third) == 3
    second.reserve(1)
    assert remaining(first) == remaining(third) == 2


def test_where_nothing_tells_what_was_spent_the_next_try_does(tmp_path):
    (tmp_path / "budget.sqlite").write_bytes(DAMAGED["foreign"](b""))
    with pytest.raises(Fatal, match="next try counts from the call logs"):
        Ledger(tmp_path, "debank", TEN_CALLS).reserve(1)
    assert not Ledger(tmp_path, "debank", TEN_CALLS).is_counted


def test_any_flipped_bit_blocks_nobody_and_the_next_plan_counts_right(tmp_path):
    ledger, file, rng = spending(tmp_path, 6), tmp_path / "budget.sqlite", random.Random(4)
    count = from_logs(lambda day: logged(tmp_path / "calls", day))
    ledger.close()
    whole, put_aside = file.read_bytes(), 0
    written = [n for n, byte in enumerate(whole) if byte]  # most of the file is zeros
    for place in [*rng.sample(written, 100), *range(0, 100, 3)]:
        data = bytearray(whole)
        data[place] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        opened = Ledger(tmp_path, "debank", TEN_CALLS, now=Days(), count=count)
        opened.recount(count)
        assert remaining(opened) == 4, place
        call_id, _ = opened.reserve(1)
        opened.settle(call_id, 1)
        opened.close()
        put_aside = len(list(quarantined(tmp_path)))
    assert put_aside > 20
    with sqlite3.connect(file) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_busy_ledger_is_not_a_damaged_one(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_file, "WAIT_S", 0.1)
    ledger = spending(tmp_path, 1)
    with sqlite3.connect(tmp_path / "budget.sqlite", isolation_level=None) as con:
        con.execute("BEGIN IMMEDIATE")
        with pytest.raises(Fatal, match="cannot be used: database is locked"):
            ledger.close() or ledger.reserve(1)
        con.execute("ROLLBACK")
    ledger.reserve(1)
    assert not list(quarantined(tmp_path))


def synced(books: Books, url, clock: str, run: str, dag: str = "sync") -> None:
    """A run up to `clock`, with its calls in ops.api_calls."""
    url.clock.set(clock)
    before, books.run_id = len(books.calls), run
    books.sync(START, clock, snapshot=True)
    with call_log(books.root / "calls", {"dag_id": dag, "run_id": run}) as record:
        for call in books.calls[before:]:
            record(call)
    load_calls(books.con, books.root / "calls")


@pytest.mark.slow
def test_spending_and_the_full_refresh_it_is_held_against(small, tmp_path):
    """Spent: as the sandbox counts. A full refresh: as the stated formula has it of the truth, and
    of Coinbase, whose pages do not overlap, what reading everything again really takes."""
    with serve(small, now=START) as url:
        lifted(url)
        books = Books(url, tmp_path / "books", clock=Hurried())
        spending_of.record(books.con, all_sources().values(), [("debank", "units", "day", 500)])
        synced(books, url, "2024-12-10T00:00:00Z", "h", dag="history")
        synced(books, url, "2024-12-12T00:00:00Z", "backfill__1")
        clocks = ["2024-12-17T06:00:00Z", NOW]
        for number, clock in enumerate(clocks):
            synced(books, url, clock, f"s{number}")
        total = url.app.stats()["total"]
        rows = {
            row[0]: row[1:]
            for row in books.con.execute(
                "SELECT source, sum(calls), sum(units), sum(full_refresh_calls), "
                "sum(full_refresh_units) FROM ops.spending GROUP BY 1"
            ).fetchall()
        }
        assert rows["debank"][:2] == (total["debank"], url.app.apis["debank"].units_spent)
        assert rows["coinbase"][:2] == (total["coinbase"], 0)
        price = get("debank").units
        full = {}
        for number, clock in enumerate(clocks):
            pages = sum(
                ceil(
                    (
                        sum(
                            r["wallet"] == a.account and START <= r["time"]
                            for r in url.world.transactions(clock)
                        )
                        + 1
                    )
                    / 20
                )
                for a in WALLETS
            )
            full["debank", f"s{number}"] = (pages + 3, pages * price[HISTORY] + 3 * price[TOKENS])
            wallets = {}
            for row in url.world.ledger(clock):
                wallets[row["wallet"]] = wallets.get(row["wallet"], 0) + (START <= row["time"])
            known = books.column(
                "SELECT count(DISTINCT wallet) FROM raw.balances WHERE source = 'coinbase'"
            )[0]
            fills = sum(START <= r["time"] for r in url.world.fills(clock))
            lists = sum(max(1, ceil(n / 100)) for n in wallets.values())
            full["coinbase", f"s{number}"] = (
                # The last call lists the products of the fills.
                ceil(known / 100) + lists + known - len(wallets) + ceil((fills + 1) / 100) + 1,
                0,
            )
        assert {
            (s, r): (c, u)
            for s, r, c, u in books.con.execute(
                "SELECT source, run_id, calls, units FROM ops.full_refreshes"
            ).fetchall()
        } == full
        for source in rows:
            assert rows[source][2:] == tuple(
                sum(v[n] for (s, _), v in full.items() if s == source) for n in (0, 1)
            )
        fresh, before = Books(url, tmp_path / "fresh", clock=Hurried()), dict(total)
        for job in fresh.plan(START, NOW, ACCOUNTS[:1], snapshot=True):
            fresh.fetch(job)
        again = url.app.stats()["total"]
        assert full["coinbase", "s1"][0] == again["coinbase"] - before["coinbase"]
        assert books.con.execute("FROM ops.budgets").fetchall() == [("debank", "units", "day", 500)]


def test_the_vendors_count_is_kept_beside_ours(small, tmp_path, caplog):
    """Readings of a run come in once, with what fell between them; a wrong price is logged."""
    caplog.set_level("INFO")
    with serve(small, now=NOW, prices={"user/all_history_list": 30}) as url:
        lifted(url)
        books = Books(url, tmp_path, clock=Hurried())
        source, folder = get("debank"), tmp_path / "units"

        def read(run, moment):
            client = Client("debank", WALLETS[0].account, rates={}, units={})
            unit_balances.note(
                folder,
                source="debank",
                connection="c",
                run_id=run,
                moment=moment,
                balance=source.remaining_units(client, books.apis["debank"]),
                accounts=[a.account for a in WALLETS],
            )

        for run, prices in (("r1", {}), ("r2", {HISTORY: 30}), ("r3", {})):
            read(run, "before")
            books.sources["debank"] = type(source)(
                **{**vars(source), "units": {**source.units, **prices}}
            )
            before = len(books.calls)
            for job in books.plan(START, NOW, WALLETS, refetch=True)[:2]:
                books.fetch(job)
            with call_log(tmp_path / "calls", {"dag_id": "sync", "run_id": run}) as record:
                for call in books.calls[before:]:
                    record(call)
            if run == "r3":
                url.app.apis["debank"].balance += 10_000
            read(run, "after")
            load_calls(books.con, tmp_path / "calls")
            for _ in range(2):
                unit_balances.load_unit_balances(books.con, folder, run)
        found = books.con.execute(
            "SELECT run_id, moment, used, counted FROM ops.account_units ORDER BY reading_at"
        ).fetchall()
        assert [row[:2] for row in found] == [
            (r, m) for r in ("r1", "r2", "r3") for m in ("before", "after")
        ]
        used, counted = found[1][2:]
        assert used > counted > 0 and found[3][2] == found[3][3] == used
        assert found[5][2] == used - 10_000
        levels = [r.levelname for r in caplog.records if r.name == "ledgerhouse.load.unit_balances"]
        assert levels == ["WARNING", "INFO", "WARNING"]
        assert "refilled" in caplog.text and '{"units": {endpoint: units}}' in caplog.text


@pytest.mark.slow
def test_the_tasks_of_runs_under_a_budget(small, tmp_path, monkeypatch):
    """Plan, probe, fetch, units and load as Airflow calls them: stopped in the first run, ended in the second."""
    from types import SimpleNamespace

    from airflow.sdk.exceptions import AirflowFailException

    from ledgerhouse.operate.airflow.operators.fetch import FetchOperator
    from ledgerhouse.operate.airflow.operators.load import LoadOperator
    from ledgerhouse.operate.airflow.operators.plan import PlanOperator
    from ledgerhouse.operate.airflow.operators.vendor import ProbeOperator, UnitsOperator
    from ledgerhouse.operate.run_log import attempts
    from ledgerhouse.warehouse.connection import open_warehouse

    file, jobs, warnings = tmp_path / "accounts.toml", {}, []
    listed = "".join(
        f'[[account]]\nsource = "debank"\naccount = "{a.account}"\nconnection = "debank_x"\n'
        for a in WALLETS
    )
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(file))
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.setattr(
        PlanOperator,
        "log",
        SimpleNamespace(
            info=lambda *_: None, warning=lambda text, *values: warnings.append(text % values)
        ),
    )

    def run(name: str, budget: str) -> list[str]:
        """The errors of a run's fetches."""

        def context(task):
            return {
                "params": {},
                "dag_run": SimpleNamespace(run_type="scheduled"),
                "ti": SimpleNamespace(
                    dag_id="sync",
                    run_id=name,
                    task_id=task,
                    map_index=-1,
                    xcom_push=lambda **_: None,
                    xcom_pull=lambda task_ids: jobs[name],
                    try_number=1,
                ),
            }

        file.write_text(listed + budget)
        jobs[name] = PlanOperator(
            task_id="plan",
            connection="debank_x",
            interval_start=START,
            interval_end=NOW,
            history_start=START,
            close_gaps=True,
        ).execute(context("plan"))
        errors = []
        ProbeOperator(task_id="probe", connection="debank_x", source="debank", plan="plan").execute(
            context("probe")
        )
        for job in jobs[name]:
            try:
                FetchOperator(task_id="fetch", **job).execute(context("fetch"))
            except AirflowFailException as error:
                errors.append(str(error))
        UnitsOperator(task_id="units").execute(context("units"))
        LoadOperator(task_id="load").execute(context("load"))
        return errors

    with serve(small, now=NOW) as url:
        lifted(url)
        monkeypatch.setenv(
            "AIRFLOW_CONN_DEBANK_X",
            json.dumps({"conn_type": "debank", "host": url.debank, "password": DEBANK_KEY}),
        )
        errors = run("one", "[budget.debank]\nunits_per_month = 300\ncalls_per_day = 9999\n")
        assert errors and all(
            e.startswith("BudgetReached: the budget of debank allows 300 units a month")
            for e in errors
        )
        assert 250 < url.app.apis["debank"].units_spent <= 300
        _, known = attempts.read(tmp_path / "attempts")
        logged = [(a["error_type"], a.get("error_fields")) for a in known.values() if "error" in a]
        limit = {"measure": "units", "period": "month", "allowed": 300}
        assert logged and all(kind == "BudgetReached" for kind, _ in logged)
        assert all(json.loads(fields) == limit for _, fields in logged)
        assert run("two", "[budget.debank]\nunits_per_month = 320\n"), "spent before, so not again"
        assert url.app.apis["debank"].units_spent <= 320
        (tmp_path / "budget.sqlite").unlink()
        assert run("three", "[budget.debank]\nunits_per_month = 320\n"), "lost, and counted again"
        assert url.app.apis["debank"].units_spent <= 320
        assert run("four", "") == [] and run("five", "") == [] == jobs["five"]
        with open_warehouse(owner="test") as con:
            assert con.execute("SELECT sum(units) FROM ops.api_calls").fetchall() == [
                (url.app.apis["debank"].units_spent,)
            ]
            assert con.execute("FROM ops.budgets").fetchall() == []
            assert con.execute(
                "SELECT run_id, used = counted FROM ops.account_units "
                "WHERE moment = 'after' ORDER BY ALL"
            ).fetchall() == [(name, True) for name in sorted(("one", "two", "three", "four"))]
            assert_onchain(
                SimpleNamespace(column=lambda sql: [row[0] for row in con.execute(sql).fetchall()]),
                url,
            )
        with pytest.raises(AirflowFailException, match="unknown 'units_per_year'"):
            run("six", "[budget.debank]\nunits_per_year = 1\n")
    assert [re.sub(r"\d+(,\d+)*", "N", line) for line in warnings if "budget has" in line] == 2 * [
        "debank: about N units are needed, and the budget has N left of this month: the run will "
        "stop there, keep what it has, and fail; the next goes on"
    ]


def test_coinbase_keeps_its_pages_and_claims_no_time_before_every_wallet_is_read(small, tmp_path):
    account = [a for a in ACCOUNTS if a.source == "coinbase"]
    with serve(small, now=NOW) as url:
        lifted(url)
        whole = Books(url, tmp_path / "whole", clock=Hurried())
        whole.sync(START, NOW, accounts=account)
        needed, truth = (
            len(whole.calls),
            {r["entry_id"] for r in url.world.ledger(NOW) if START <= r["time"] < NOW},
        )
        claimed = []
        books = Books(url, tmp_path / "parts", clock=Hurried())
        for calls in (1, needed // 2, needed - 1):
            books.budgets = {
                "coinbase": Ledger(
                    tmp_path / str(calls),
                    "coinbase",
                    [Limit("coinbase", "calls", "day", calls)],
                    now=Days(),
                )
            }
            (job,) = books.plan(START, NOW, account)
            with pytest.raises(BudgetReached) as stop:
                books.fetch(job)
            assert len(stop.value.partial.pages) == calls
            claimed.append([c.dataset for c in stop.value.partial.covered])
            load(books.con, books.root, books.sources)
        assert claimed == [[], [], ["exchanges_ledger"]]
        assert truth <= set(books.column("SELECT entry_id FROM raw.exchanges_ledger"))
        books.budgets = {}
        books.sync(START, NOW, accounts=account)
        assert books.plan(START, NOW, account) == []
        tables = ("exchanges_ledger", "exchanges_trades")
        assert books.content(*tables) == whole.content(*tables)
