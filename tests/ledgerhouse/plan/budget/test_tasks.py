"""Budgets in runs: what is spent and saved, the vendor's own count, and tasks that keep their pages."""

import json
import re
from math import ceil

import pytest

from extract.core.errors import BudgetReached
from extract.fetch.call_log import call_log
from extract.fetch.client import Client
from extract.sources import all_sources, get
from ledgerhouse.config import Limit
from ledgerhouse.load import unit_balances
from ledgerhouse.load.call_log import load_calls
from ledgerhouse.load.loader import load
from ledgerhouse.plan import spending as spending_of
from ledgerhouse.plan.budget import Ledger
from sandbox.debank.keys import DEBANK_KEY
from sandbox.server import serve
from tests.helpers.books import ACCOUNTS, Books, Hurried
from tests.ledgerhouse.plan.budget.scene import (
    HISTORY,
    NOW,
    START,
    TOKENS,
    WALLETS,
    Days,
    assert_onchain,
    lifted,
)


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
