"""Runs under a budget: what their tasks do, and that Coinbase keeps its pages."""

import json
import re

import pytest

from extract.core.errors import BudgetReached
from ledgerhouse.config import Limit
from ledgerhouse.load.loader import load
from ledgerhouse.plan.budget import Ledger
from sandbox.debank.keys import DEBANK_KEY
from sandbox.server import serve
from tests.helpers.books import ACCOUNTS, Books, Hurried
from tests.ledgerhouse.plan.budget.scene import (
    NOW,
    START,
    WALLETS,
    Days,
    assert_onchain,
    lifted,
)


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
            {
                row["entry_id"]
                for row in url.world.truth("ledger", NOW, ["coinbase"])
                if START <= row["time"] < NOW
            },
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
