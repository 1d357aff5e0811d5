"""The ledger of what was spent: shared by processes, counted from the warehouse, and read from files."""

import multiprocessing
import os
import random
import shutil
import signal
from datetime import timedelta

import pytest

from extract.core.errors import BudgetReached
from extract.core.interval import Interval, utc
from extract.core.source import Job
from extract.fetch.call_log import call_log, logged
from extract.fetch.client import Client
from extract.sources import get
from ledgerhouse.config import AccountsFile, Limit
from ledgerhouse.load.call_log import load_calls
from ledgerhouse.plan.budget import Ledger, from_logs, from_warehouse
from sandbox.debank.keys import DEBANK_KEY
from sandbox.server import serve
from tests.ledgerhouse.plan.budget.scene import NOW, START, WALLETS, Days, lifted, spent


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
            r"\[budget.bank\]: unknown source 'bank'; known: .*coinbase, ",
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
