"""`airflow dags backfill` and `airflow warehouse …`: on books of the sandbox, against its truth.

Airflow's own part is played by `FakeAirflow`, which answers as its REST API does; the real one is
in test_live.py. What a backfill costs is estimated, then made, and both are compared.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import subprocess
import sys
from datetime import date, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.core.interval import Interval, iso, utc
from extract.sources import all_sources
from ledgerhouse.operate.airflow.api import AirflowApi, AirflowApiError
from ledgerhouse.operate.airflow.provider import get_provider_info
from ledgerhouse.operate.commands import backfill as backfilling
from ledgerhouse.operate.commands import follow as following
from ledgerhouse.operate.commands import health
from ledgerhouse.operate.commands.explain import explained
from ledgerhouse.operate.commands.spending import summed
from ledgerhouse.operate.commands.tables import cell, digits
from ledgerhouse.plan.estimate import Known, planned, simulate, total
from ledgerhouse.publish.books import has, open_books
from ledgerhouse.publish.publish import publish
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.transform.touched_days import transform
from ledgerhouse.warehouse.connection import open_warehouse
from sandbox.server import serve
from stack.commands import attached
from stack.lock import lock
from tests.helpers.books import ACCOUNTS_TOML, Books, Hurried, of

pytestmark = pytest.mark.slow

START, NOW = "2024-11-01T00:00:00Z", "2024-11-22T12:00:00Z"
HOLE = Interval("2024-11-12T00:00:00Z", "2024-11-13T12:00:00Z")
SIX_HOURS, DAY = timedelta(hours=6), timedelta(days=1)
COINBASE, WHOLE, BROKEN, OTHER = ACCOUNTS = of("coinbase") + of("debank")
RUN = "manual__of_these_tests"


@pytest.fixture(scope="module")
def kept(planned, tmp_path_factory):
    """Books of four accounts, of which BROKEN has a hole; and what filling it really took."""
    var = tmp_path_factory.mktemp("commands") / "var"
    shutil.copytree(planned, var)
    with serve(seed=5, now=NOW, start=START) as url:
        url.app.lift_limits()
        kept = Books(url, var / "landing", path=str(var / FILE), clock=Hurried())
        for account in ACCOUNTS:
            if account is BROKEN:
                kept.sync(START, HOLE.start, accounts=[account])
                kept.sync(HOLE.end, NOW, accounts=[account])
            else:
                kept.sync(START, NOW, accounts=[account], snapshot=True)
        put_calls(kept.con, kept.calls)
        kept.con.execute(
            "INSERT INTO ops.sync_runs BY NAME SELECT 'sync' AS dag_id, 'r1' AS run_id, "
            "'fetch_debank' AS task_id, 0 AS map_index, 1 AS try_number, 'debank' AS source, "
            "? AS account, 'failed' AS state, now()::TIMESTAMP AS started, 'HTTP 500 six times' AS "
            "error, now()::TIMESTAMP AS mirrored_at",
            [OTHER.account],
        )
        kept.con.close()
        transform(var / FILE, owner="test")
        with open_warehouse(var / FILE, owner="test") as con:
            publish(con, var / "published", [], run_id=RUN)
        calls = list(kept.calls)
        yield SimpleNamespace(
            var=var,
            calls=calls,
            tried=tried(url, var, tmp_path_factory.mktemp("tried")),
            truth={at: url.world.balances(at=iso(at), now=NOW) for at in MIDNIGHTS},
        )


MIDNIGHTS = [utc(START) + n * DAY for n in (5, 20)]


def put_calls(con, calls) -> None:
    for call in calls:
        con.execute(
            "INSERT INTO ops.api_calls BY NAME SELECT ? AS call_id, ?::TIMESTAMPTZ::"
            "TIMESTAMP AS called_at, ? AS source, ? AS account, ? AS endpoint, "
            "0 AS duration_ms, ?::INTEGER AS units",
            [
                call["call_id"],
                str(call["called_at"]),
                call["source"],
                call["account"],
                call["endpoint"],
                call["units"],
            ],
        )


def six_hourly(span: Interval) -> list[Interval]:
    count = (span.end - span.start) // SIX_HOURS
    return [
        Interval(span.start + n * SIX_HOURS, span.start + (n + 1) * SIX_HOURS) for n in range(count)
    ]


# What is estimated and then made: the hole by runs of six hours, and known time all over again.
KNOWN = Interval("2024-11-18T06:00:00Z", "2024-11-18T12:00:00Z")
TRIES = {
    "hole": (six_hourly(HOLE), [BROKEN], False),
    "again": ([KNOWN], ACCOUNTS, True),
    "long ago": ([Interval(START, "2024-11-03")], [COINBASE, OTHER], True),
    "of late": (six_hourly(Interval("2024-11-22T00:00:00Z", NOW)), [OTHER], False),
}
LATE = "2024-11-22 00:00"  # in "of late", as if OTHER had been read up to then, and by then


def tried(url, var, folder) -> dict[str, SimpleNamespace]:
    """Of each try: the jobs and costs estimated, and those of the runs then made, in a copy."""
    sources, results = all_sources(), {}
    for name, (intervals, accounts, refetch) in TRIES.items():
        path = folder / f"{name.replace(' ', '_')}.duckdb"
        shutil.copy(var / FILE, path)
        books = Books(url, folder / name, path=str(path), clock=Hurried())
        if name == "of late":
            books.con.execute(
                f"UPDATE ops.coverage SET end_ts = '{LATE}', read_at = '{LATE}' "
                "WHERE account = ? AND dataset NOT IN ('balances', 'positions')",
                [OTHER.account],
            )
        known = Known.read(books.con, sources, ACCOUNTS, utc(NOW))
        options = {"refetch": refetch}
        jobs = [[] for _ in intervals]
        for number, job in planned(known, sources, accounts, intervals, utc(NOW), **options):
            jobs[number].append(job)
        result = results[name] = SimpleNamespace(
            jobs=jobs,
            costs=simulate(known, sources, accounts, intervals, utc(NOW), **options),
            planned=[],
            paid=[],
        )
        for interval in intervals:
            before = len(books.calls)
            result.planned.append(
                books.plan(interval.start, interval.end, accounts, refetch=refetch)
            )
            books.sync(interval.start, interval.end, accounts=accounts, refetch=refetch)
            paid = {}
            for call in books.calls[before:]:
                calls, units = paid.get(call["source"], (0, 0))
                paid[call["source"]] = (calls + 1, units + call["units"])
            result.paid.append(paid)
        books.con.close()
    return results


@pytest.fixture
def airflow(kept, monkeypatch, capsys):
    """airflow("warehouse", "status", …) → (exit code, stdout, stderr), on these books."""
    from airflow.cli import cli_parser

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(kept.var))

    def run(*argv: str):
        try:
            args = cli_parser.get_parser().parse_args(list(argv))
            args.func(args)
            code = 0
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


# --- what it would cost -----------------------------------------------------------------------


def test_what_is_covered_costs_nothing(kept):
    sources = all_sources()
    with open_books(kept.var / "published") as con:
        known = Known.read(con, sources, ACCOUNTS, utc(NOW))
    covered = six_hourly(Interval("2024-11-14", "2024-11-20"))
    assert simulate(known, sources, ACCOUNTS, covered, utc(NOW)) == [{}] * len(covered)
    assert total(simulate(known, sources, ACCOUNTS, [HOLE], utc(NOW))).keys() == {"debank"}


@pytest.mark.parametrize("name", TRIES)
def test_the_estimated_jobs_are_those_that_runs_then_plan(kept, name):
    result = kept.tried[name]
    assert result.jobs == result.planned and any(result.jobs)
    if name == "of late":
        assert all(
            job.read_from == job.interval.start - DAY for jobs in result.jobs for job in jobs
        )


@pytest.mark.parametrize("name", ["again", "long ago"])
def test_rows_that_are_known_are_estimated_to_the_call(kept, name):
    result = kept.tried[name]
    estimated = [{s: (c.calls, c.units) for s, c in run.items()} for run in result.costs]
    assert estimated == result.paid
    assert any(calls > 2 for run in estimated for calls, _ in run.values())


def test_a_hole_is_estimated_run_by_run_from_how_dense_the_account_is(kept):
    result = kept.tried["hole"]
    assert [set(run) for run in result.costs] == [set(run) for run in result.paid]
    actual, estimated = (
        sum(n)
        for n in ((r["debank"][0] for r in result.paid), (r["debank"].calls for r in result.costs))
    )
    assert actual >= len(result.paid) and abs(actual - estimated) <= max(2, actual / 4), (
        actual,
        estimated,
    )


def test_an_account_never_read_is_estimated_from_the_others_and_said_so(kept):
    sources = all_sources()
    stranger = BROKEN.__class__("debank", "0xfeed", "debank")
    with open_books(kept.var / "published") as con:
        known = Known.read(con, sources, [*ACCOUNTS, stranger], utc(NOW))
        alone = Known.read(con, sources, [stranger], utc(NOW))
    month = [Interval("2024-10-20", NOW)]
    (estimate,) = simulate(known, sources, [stranger], month, utc(NOW))
    costs = [
        simulate(known, sources, [a], month, utc(NOW), refetch=True)[0]["debank"].calls
        for a in (WHOLE, OTHER)
    ]
    assert min(costs) // 2 <= estimate["debank"].calls <= 2 * max(costs)
    assert known.guessed == {("debank", "0xfeed")}
    (least,) = simulate(alone, sources, [stranger], month, utc(NOW))
    assert least["debank"].calls == 2, "a walk a month: two of them, a page each, at least"


def test_units_are_at_the_prices_of_the_connection(kept):
    sources = all_sources()
    with open_books(kept.var / "published") as con:
        known = Known.read(con, sources, [BROKEN], utc(NOW))
    (own,) = simulate(known, sources, [BROKEN], [HOLE], utc(NOW))
    (dear,) = simulate(
        known,
        sources,
        [BROKEN],
        [HOLE],
        utc(NOW),
        prices={"debank": {"/v1/user/all_history_list": 1000}},
    )
    assert dear["debank"].units == 1000 * own["debank"].calls == 50 * own["debank"].units


# --- the rows behind a number -----------------------------------------------------------------


def test_every_balance_is_explained_by_its_rows_to_the_last_digit(kept):
    rng = random.Random(3)
    with open_books(kept.var / "published") as con:
        moved = con.execute(
            "SELECT source, account, token, date FROM curated.daily_flows "
            "WHERE legs > 0 ORDER BY ALL"
        ).fetchall()
        still = con.execute(
            "SELECT source, account, token, date FROM curated.daily_balances ORDER BY ALL"
        ).fetchall()
        brought = kinds = 0
        for source, account, token, day in rng.sample(moved, 40) + rng.sample(still, 10):
            explanation = explained(con, source, account, token, day)
            (closing, legs) = con.execute(
                "SELECT (SELECT balance FROM curated.daily_balances WHERE (source, account, token, "
                "date) = ($1, $2, $3, $4)), (SELECT count(*) FROM curated.tx_unified WHERE (source,"
                " account, token, ts::DATE) = ($1, $2, $3, $4))",
                [source, account, token, day],
            ).fetchone()
            assert explanation["adds_up"] and len(explanation["legs"]) == legs, (
                account,
                token,
                day,
            )
            assert Decimal(explanation["closing"]) == closing
            for leg in explanation["legs"]:
                assert leg["batch_id"] and leg["file"] and leg["run_id"] == "test"
                assert leg["counts"] != bool(leg["why_not"])
                brought, kinds = brought + 1, kinds + (leg["leg"] == "gas")
        assert brought > 40 and kinds, "gas legs come from the transaction's own row"


def test_explained_balances_are_the_sandboxs_truth(kept):
    with open_books(kept.var / "published") as con:
        seen = 0
        for at, truth in kept.truth.items():
            day = (at - DAY).date()
            for row in truth:
                if row["account"] == BROKEN.account:
                    continue
                explanation = explained(con, row["vendor"], row["account"], row["token"], day)
                if explanation["closing"] is None:  # not met yet
                    assert Decimal(row["amount"]) == 0 == len(explanation["legs"]), row
                elif explanation["is_exact"]:
                    assert Decimal(explanation["closing"]) == Decimal(row["amount"]), row
                    seen += Decimal(row["amount"]) != 0
        assert seen > 20


def test_a_balance_that_its_rows_do_not_make_is_reported(kept):
    with open_books(kept.var / "published") as con:
        source, account, token, day = con.execute(
            "SELECT source, account, token, date FROM curated.daily_flows WHERE legs > 1 "
            "ORDER BY ALL LIMIT 1"
        ).fetchone()
        con.execute("USE memory; CREATE SCHEMA curated; CREATE SCHEMA raw; CREATE SCHEMA ops")
        for schema, view in con.execute(
            "SELECT schema_name, view_name FROM duckdb_views() WHERE "
            "database_name = 'books' AND schema_name <> 'main'"
        ).fetchall():
            con.execute(f"CREATE TABLE {schema}.{view} AS FROM books.{schema}.{view}")
        assert explained(con, source, account, token, day)["adds_up"]
        con.execute(
            "UPDATE curated.daily_balances SET balance = balance + 1e-18::DECIMAL(38,18) "
            "WHERE (source, account, token, date) = (?, ?, ?, ?)",
            [source, account, token, day],
        )
        explanation = explained(con, source, account, token, day)
        assert not explanation["adds_up"]
        assert Decimal(explanation["closing"]) - Decimal(explanation["sum"]) == Decimal("1e-18")


def test_explain_as_typed(airflow, kept):
    code, out, _ = airflow("warehouse", "explain", "main", "usd", "2024-11-22", "-o", "json")
    explanation = json.loads(out, parse_float=lambda text: pytest.fail(f"{text} is a float"))
    (shot,) = explanation["snapshots"]
    assert code == 0 and explanation["token"] == "USD"
    assert shot["difference"] == "0" and shot["computed"] == shot["reported"]
    code, out, _ = airflow("warehouse", "explain", "MAIN", "USD", "2024-11-22")
    assert code == 0 and f"= {explanation['closing']}, to the last digit" in out
    assert all(
        leg["txid"] in "".join(out.split()) or leg["txid"][:20] in out
        for leg in explanation["legs"]
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ("nobody", "USD", "2024-11-20"),
            "no account 'nobody'; they hold: coinbase main, debank 0x",
        ),
        (("0x", "USD", "2024-11-20"), "may be debank 0x"),
        (("main", "ETHH", "2024-11-20"), r"never held 'ETHH'; it holds, or held: .*ETH"),
        ((WHOLE.account[:6], "ETH", "2024-11-20"), "name one: .*eth:eth"),
        (("main", "USD", "1999-01-01"), "from 2024-11-01, its first movement, to 2024-1"),
        (("main", "USD", "yesterday"), "'yesterday' is no day"),
    ],
)
def test_what_the_books_lack_is_answered_with_what_is_near(airflow, argv, said):
    code, out, err = airflow("warehouse", "explain", *argv)
    assert (code, out) == (2, "")
    assert re.search(said, err) and "Traceback" not in err


@given(
    st.decimals(
        allow_nan=False,
        allow_infinity=False,
        places=18,
        min_value=Decimal("-1e20"),
        max_value=Decimal("1e20"),
    )
)
@settings(max_examples=60)
def test_no_digit_of_an_amount_is_lost(amount):
    text = digits(amount)
    assert Decimal(text) == amount and "E" not in text and text == digits(Decimal(text))
    assert text in cell(amount)


# --- status, coverage, units ------------------------------------------------------------------


def test_health_is_a_line_and_an_exit_code_by_the_books_alone(airflow, kept, tmp_path, monkeypatch):
    """For cron and monitors: it is to be believed while nothing of Airflow runs."""
    code, out, _ = airflow("warehouse", "health")
    assert code == 1 and "no sync has come for" in out and "12 hours are allowed" in out
    assert "read through 2024-11-22T12:00:00Z" in out and "scheduler" in out
    rules = tmp_path / "accounts.toml"
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(rules))
    for age, allowed, wanted in ((11, 12, 0), (13, 12, 1), (13, 14, 0)):
        rules.write_text(f"[alerts]\nstale_after_hours = {allowed}\n")
        now = utc(NOW) + timedelta(hours=age)
        monkeypatch.setattr(health, "datetime", SimpleNamespace(now=lambda _, now=now: now))
        code, out, _ = airflow("warehouse", "health", "-o", "json")
        assert (code, json.loads(out)["alive"]) == (wanted, not wanted)
    rules.write_text("[alerts]\nstale_after_hours = 0\n")
    code, _, err = airflow("warehouse", "health")
    assert code == 1 and "stale_after_hours is 0; write hours" in err
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path / "nothing"))
    rules.write_text("")
    code, _, err = airflow("warehouse", "health")
    assert code == 1 and "no published books" in err


def test_status_tells_the_hole_the_failure_and_what_agrees(airflow, kept):
    code, out, _ = airflow("warehouse", "status", "-o", "json")
    accounts = {row["account"]: row for row in json.loads(out)["accounts"]}
    assert code == 1 and set(accounts) == {a.account for a in ACCOUNTS}
    broken, other = accounts[BROKEN.account], accounts[OTHER.account]
    assert (broken["gaps"], broken["covered_through"]) == (1, iso(HOLE.start))
    assert [accounts[a.account]["gaps"] for a in ACCOUNTS if a is not BROKEN] == [0, 0, 0]
    assert (other["state"], other["error"]) == ("failed", "HTTP 500 six times")
    for account in (COINBASE, WHOLE, OTHER):
        row = accounts[account.account]
        assert row["reconciled"] == row["assets"] > 0 and row["covered_through"] == NOW
    with open_books(kept.var / "published") as con:
        (pending,) = con.execute(
            "SELECT count(*) FROM raw.exchanges_ledger WHERE status = "
            "'pending' AND vanished_at IS NULL"
        ).fetchone()
    assert accounts["main"]["pending"] >= pending
    assert airflow("warehouse", "status", "--account", "main")[0] == 0
    code, out, _ = airflow("warehouse", "status")
    assert "1 gaps" in out and "HTTP 500" in out and "published" in out


def test_coverage_and_gaps_leave_no_instant_out(airflow):
    code, out, _ = airflow("warehouse", "coverage", "-o", "json")
    rows = json.loads(out)["coverage"]
    spans = {}
    for row in rows:
        if row["dataset"] not in ("balances", "positions"):
            spans.setdefault((row["account"], row["dataset"]), []).append(
                (row["start"], row["end"], row["what"], row["reason"])
            )
    assert code == 0 and len(spans) == 8
    for (account, _), found in spans.items():
        found.sort()
        assert (found[0][0], found[-1][1]) == (START, NOW)
        assert all(a[1] == b[0] for a, b in zip(found, found[1:])) and all(f[3] for f in found)
        gaps = [f[:2] for f in found if f[2] == "gap"]
        assert gaps == ([(iso(HOLE.start), iso(HOLE.end))] if account == BROKEN.account else [])
    code, out, _ = airflow(
        "warehouse",
        "coverage",
        "--account",
        BROKEN.account[:8],
        "--dataset",
        "onchain_transfers",
        "-o",
        "plain",
    )
    assert [line.split("\t")[3] for line in out.splitlines()] == [
        "what",
        "covered",
        "covered",
        "gap",
    ]
    assert airflow("warehouse", "coverage", "--dataset", "prices")[0] == 2
    assert airflow("warehouse", "coverage", "--source", "kraken")[0] == 2


def test_units_are_those_of_the_call_log_with_or_without_the_view(airflow, kept, monkeypatch):
    real = {}
    for call in kept.calls:
        calls, units = real.get(call["source"], (0, 0))
        real[call["source"]] = (calls + 1, units + call["units"])
    wanted = {
        ("coinbase", "calls"): real["coinbase"][0],
        ("debank", "calls"): real["debank"][0],
        ("debank", "units"): real["debank"][1],
    }
    for view in (True, False):
        monkeypatch.setattr(
            "ledgerhouse.operate.commands.spending.has", lambda con, name: view and has(con, name)
        )
        code, out, _ = airflow("warehouse", "units", "-o", "json")
        found = {(r["source"], r["measure"]): r["all"] for r in json.loads(out)["spending"]}
        assert (code, found) == (0, wanted)


@given(
    st.lists(
        st.tuples(st.integers(0, 70), st.integers(0, 500), st.integers(0, 9000)),
        max_size=40,
        unique_by=lambda spent: spent[0],
    ),
    st.integers(0, 5000),
)
@settings(max_examples=60)
def test_what_is_spent_saved_and_left_adds_up(spent, allowed):
    today = date(2026, 3, 17)
    days = [
        {"day": today - timedelta(days=ago), "units": units, "full_refresh_units": full}
        for ago, units, full in spent
    ]
    totals = summed(days, "units", today, {"month": allowed})
    month = sum(r["units"] for r in days if r["day"] >= date(2026, 3, 1))
    assert totals["month"] + totals["left_month"] == allowed and totals["month"] == month
    assert totals["today"] <= totals["month"] <= totals["all"] == sum(r["units"] for r in days)
    assert totals["left_today"] is None
    assert totals["forecast"] is None or totals["forecast"] >= month
    if totals["saved"]:
        share = 1 - Decimal(totals["all"]) / totals["full_refresh"]
        assert abs(Decimal(totals["saved"].removesuffix(" %")) / 100 - share) <= Decimal("0.0006")


def test_a_steady_pace_is_forecast_as_it_is():
    today = date(2026, 4, 20)
    days = [
        {"day": today - timedelta(days=n), "units": 30, "full_refresh_units": None}
        for n in range(60)
    ]
    totals = summed(days, "units", today, {})
    assert (totals["forecast"], totals["saved"], totals["full_refresh"]) == (30 * 30, None, None)


def test_nothing_published_is_said_and_not_a_traceback(tmp_path, airflow, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    for name in ("status", "units", "coverage"):
        code, out, err = airflow("warehouse", name)
        assert (code, out) == (1, "") and "they appear with the first sync" in err


# --- the backfill -----------------------------------------------------------------------------


class FakeAirflow(AirflowApi):
    """Answers as the REST API does; every query of the runs lets one more of them end.

    `ends`: how they end, by logical date ("success" where none is given).
    """

    def __init__(self, ends=None, *, dag=None, alive=True, dies=False, there=()):
        self.url, self.ends, self.alive, self.dies = "http://airflow", ends or {}, alive, dies
        self.dag = {
            "dag_id": "sync",
            "timetable_periodic": True,
            "is_paused": False,
            "start_date": "2024-11-01T00:00:00Z",
            "timetable_summary": "0 */6 * * *",
            "timezone": "UTC",
            "max_active_runs": 1,
            "tags": [{"name": "ledgerhouse"}],
            "params": {"interval_start": {}, "interval_end": {}, "refetch": {}},
        } | (dag or {})
        self.runs = {utc(at): state for at, state in dict(there).items()}
        self.created, self.said = None, []

    def scheduler_is_alive(self):
        return self.alive and not (self.dies and self.created)

    def dates(self, body):
        found, at = [], utc(body["from_date"])
        while at <= utc(body["to_date"]):
            state = self.runs.get(at)
            if (
                state is None
                or body["reprocess_behavior"] == "completed"
                or (state == body["reprocess_behavior"] == "failed")
            ):
                found.append(at)
            at += SIX_HOURS
        return found

    def call(self, method, path, body=None, **params):
        self.said.append((method, path))
        if path == f"/dags/{self.dag['dag_id']}/details":
            return self.dag
        if path == "/backfills/dry_run":
            return {"backfills": [{"logical_date": iso(at)} for at in self.dates(body)]}
        if (method, path) == ("POST", "/backfills"):
            self.runs |= dict.fromkeys(self.dates(body), "queued")
            self.created = body | {"id": 7, "completed_at": None}
            return self.created
        if path == "/backfills":
            return {"backfills": [self.created] if self.created else []}
        if path.endswith("/taskInstances"):
            return {"task_instances": [{"task_id": "fetch_debank"}]}
        if path.endswith(("/pause", "/cancel")):
            return None
        if path == "/dags/sync":
            return self.dag
        raise AirflowApiError(404, "not found")

    def all(self, path, key, **params):
        if path == "/dags":
            return [{"dag_id": "history"}, {"dag_id": "sync"}]
        paused = ("PUT", "/backfills/7/pause") in self.said
        for at, state in sorted(self.runs.items()) if not self.dies else ():
            if state == "running":
                self.runs[at] = self.ends.get(iso(at), "success")
                break
            if state == "queued" and not paused:
                self.runs[at] = "running"
                break
        return [
            {
                "logical_date": iso(at),
                "dag_run_id": f"backfill__{iso(at)}",
                "state": state,
                "data_interval_start": iso(at),
                "data_interval_end": iso(at + SIX_HOURS),
            }
            for at, state in self.runs.items()
        ]


class FakeHistory(FakeAirflow):
    """With the DAG history, whose run takes three looks."""

    def __init__(self, ends):
        super().__init__()
        self.last, self.looks, self.conf = ends, 0, None

    def call(self, method, path, body=None, **params):
        if path == "/dags/history":
            return {"is_paused": False}
        if path == "/dags/history/dagRuns":
            self.conf = body["conf"]
            return {"dag_run_id": "manual__1"}
        if path.startswith("/dags/history/dagRuns/"):
            self.looks += 1
            return {"state": self.last if self.looks > 3 else "running"}
        return super().call(method, path, body, **params)

    def all(self, path, key, **params):
        if key == "task_instances":
            return [
                {"task_id": "load", "state": "running"},
                {"task_id": "plan", "state": "success"},
            ]
        return super().all(path, key, **params)


RANGE = ("-s", "2024-11-12", "-e", "2024-11-12T12:00", "sync")
FIRST, SECOND, THIRD = (f"2024-11-12T{hour:02d}:00:00Z" for hour in (0, 6, 12))


@pytest.fixture
def run(airflow, monkeypatch):
    """run(fake, "-s", …) → (exit code, stdout, stderr) of `airflow dags backfill`."""
    monkeypatch.setattr(backfilling, "POLL_S", 0)
    monkeypatch.setattr(following, "POLL_S", 0)

    def run(fake, *argv):
        monkeypatch.setattr(backfilling, "connect", lambda: fake)
        return airflow("dags", "backfill", *argv)

    return run


def test_a_backfill_ends_with_0_when_every_run_succeeded(run):
    fake = FakeAirflow()
    code, out, err = run(fake, *RANGE, "-y", "-c", '{"refetch": false}', "--max-active-runs", "2")
    assert code == 0 and "3 of 3 runs succeeded" in out and "Traceback" not in err
    assert fake.created["max_active_runs"] == 2 and fake.created["dag_run_conf"] == {
        "refetch": False
    }
    assert (fake.created["from_date"], fake.created["to_date"]) == (FIRST, THIRD)
    assert fake.created["reprocess_behavior"] == "none"


def test_the_first_failure_starts_no_further_run_unless_told_to_go_on(run):
    fake = FakeAirflow({FIRST: "failed"})
    code, out, _ = run(fake, *RANGE, "-y")
    assert code == 1 and "0 of 3 runs succeeded, 1 failed, 2 were not started" in out
    assert fake.said[-2:] == [("PUT", "/backfills/7/cancel"), fake.said[-1]]
    assert "fetch_debank failed; http://airflow/dags/sync/runs/backfill__" in out
    fake = FakeAirflow({FIRST: "failed"})
    code, out, _ = run(fake, *RANGE, "-y", "--continue-on-failures")
    assert code == 1 and "2 of 3 runs succeeded, 1 failed" in out
    assert not [path for _, path in fake.said if "cancel" in path]


def test_runs_that_are_there_are_made_again_only_when_told(run):
    there = {FIRST: "success", SECOND: "failed", THIRD: "success"}
    code, out, _ = run(FakeAirflow(there=there), *RANGE, "-y")
    assert code == 1
    assert "Nothing to do: all 3 intervals have their run (1 failed, 2 success)" in out
    fake = FakeAirflow(there=there)
    assert run(fake, *RANGE, "-y", "--rerun-failed-tasks")[0] == 0
    assert fake.created["reprocess_behavior"] == "failed"
    fake = FakeAirflow(there=there)
    code, _, err = run(fake, *RANGE, "--reset-dagruns")
    assert code == 2 and "-y" in err and fake.created is None, "asks, where somebody could answer"
    assert run(fake, *RANGE, "--reset-dagruns", "-y")[0] == 0
    assert fake.created["reprocess_behavior"] == "completed"


def test_a_dry_run_starts_nothing_and_tells_what_it_would_take(run, kept):
    fake = FakeAirflow()
    whole = ("-s", iso(HOLE.start), "-e", iso(HOLE.end - SIX_HOURS), "sync", "-n")
    code, out, _ = run(fake, *whole, "-o", "json")
    estimate = json.loads(out)
    assert code == 0 and fake.created is None
    assert [(r["start"], r["end"]) for r in estimate["intervals"]] == [
        (iso(i.start), iso(i.end)) for i in six_hourly(HOLE)
    ]
    assert [r["calls"] for r in estimate["intervals"]] == [
        run["debank"].calls for run in kept.tried["hole"].costs
    ]
    assert estimate["history_total"]["debank"]["calls"] < estimate["total"]["debank"]["calls"]
    code, out, _ = run(FakeAirflow(), *whole)
    assert "add --history" in out, "one run fetches the same for less"
    code, out, _ = run(FakeAirflow(), "-s", "2024-11-19", "-e", "2024-11-20", "-n", "sync")
    assert code == 0 and "0 calls and 0 units: all of it is covered" in out
    assert "-e 2024-11-20T18:00" in out, "the end is a midnight: how to have the whole day"


def test_a_dry_run_says_what_would_pass_the_budget(run, kept, tmp_path, monkeypatch):
    """The books' calls are of today, by our clock."""
    spent = sum(call["units"] for call in kept.calls if call["source"] == "debank")
    need = sum(cost["debank"].units for cost in kept.tried["hole"].costs)
    argv = ("-s", iso(HOLE.start), "-e", iso(HOLE.end - SIX_HOURS), "sync", "-n", "-o", "json")
    listed = ACCOUNTS_TOML
    for allowed, said in ((spent + need, []), (spent + need - 1, [need - 1])):
        file = tmp_path / "accounts.toml"
        file.write_text(f"{listed}\n[budget.debank]\nunits_per_month = {allowed}\n")
        monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(file))
        code, out, _ = run(FakeAirflow(), *argv)
        over = [r for r in json.loads(out)["remarks"] if r.startswith("Over budget")]
        assert code == 0 and len(over) == len(said)
        assert all(
            f"and {left:,} of {allowed:,} are left this month" in remark
            for left, remark in zip(said, over, strict=True)
        )


@pytest.mark.parametrize(("ends", "code"), [("success", 0), ("failed", 1)])
def test_history_fetches_the_whole_range_by_one_run(run, ends, code):
    fake = FakeHistory(ends)
    ended, out, _ = run(fake, *RANGE, "--history")
    assert ended == code and out.count("over [2024-11-12T00:00:00Z, 2024-11-12T18:00:00Z)") == 2
    assert fake.conf == {"interval_start": FIRST, "interval_end": "2024-11-12T18:00:00Z"}
    assert fake.created is None and ("✓" if code == 0 else "✗") in out


def test_a_dry_run_works_before_anything_was_read(run, tmp_path, monkeypatch):
    fake = FakeAirflow()
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path / "new"))
    code, out, _ = run(fake, "-n", *RANGE)
    assert code == 0 and "before anything was read" in out and "lower bound" in out
    assert not (tmp_path / "new").exists()


def test_a_sync_of_another_id_is_backfilled_and_priced_as_well(run):
    fake = FakeAirflow(dag={"dag_id": "crypto"})
    code, out, err = run(fake, *RANGE[:-1], "crypto", "--dry-run")
    assert code == 0 and "runs of crypto would be made" in out and "In all:" in out, err


WEEKLY = {
    "dag_id": "weekly_refresh",
    "timetable_summary": "0 2 * * 0",
    "params": {"scope": {}, "interval_start": {}, "interval_end": {}},
}


@pytest.mark.parametrize(
    ("fake", "argv", "code", "said"),
    [
        (FakeAirflow(), ("sync",), 2, "give a range"),
        (FakeAirflow(), ("-s", "2024-11-20", "-e", "2024-11-19", "sync"), 2, "before the start"),
        (FakeAirflow(), ("-s", "2999-01-01", "sync"), 2, "in the future"),
        (FakeAirflow(), ("-s", "2024-11-20", "-e", "2999-01-01", "sync"), 2, "in the future"),
        (FakeAirflow(), ("-s", "2024-11-20", "-c", "{", "sync"), 2, "no JSON"),
        (FakeAirflow(), ("-s", "2024-11-20", "-c", "[1]", "sync"), 2, "JSON object"),
        (
            FakeAirflow(),
            ("-s", "2024-11-20", "-c", '{"interval_start": "2024-11-01"}', "sync"),
            2,
            "every run the same interval",
        ),
        (FakeAirflow(), ("-s", "2024-11-20", "nosuch"), 2, "it knows: history, sync"),
        (
            FakeAirflow(),
            ("-s", "2024-10-01", "-e", "2024-11-20", "sync"),
            2,
            "begins at 2024-11-01",
        ),
        (
            FakeAirflow(dag=WEEKLY),
            ("-s", "2024-11-20", "weekly_refresh"),
            2,
            "cannot be backfilled",
        ),
        (
            FakeAirflow(dag={"timetable_periodic": False}),
            ("-s", "2024-11-20", "sync"),
            2,
            "cannot be backfilled",
        ),
        (
            FakeAirflow(dag={"is_paused": True}),
            ("-s", "2024-11-20", "sync"),
            1,
            "dags unpause sync",
        ),
        (FakeAirflow(alive=False), ("-s", "2024-11-20", "sync"), 1, "no scheduler is alive"),
        (FakeAirflow(), ("--follow", "sync"), 1, "no backfill of sync is under way"),
        (FakeAirflow(), ("--cancel", "sync"), 1, "no backfill of sync is under way"),
        (
            AirflowApi("http://127.0.0.1:9", "admin", "x"),
            ("-s", "2024-11-20", "sync"),
            1,
            "does not answer at http://127.0.0.1:9.*make up",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_words_and_nothing_is_made(run, fake, argv, code, said):
    ended, out, err = run(fake, *argv)
    assert (ended, out) == (code, "") and re.search(said, err), err
    assert "Traceback" not in err and getattr(fake, "created", None) is None


def test_a_scheduler_that_dies_meanwhile_is_reported_and_the_backfill_kept(run, monkeypatch):
    fake = FakeAirflow(dies=True)
    monkeypatch.setattr(following, "LOOK_AFTER_S", -1)
    code, _, err = run(fake, *RANGE, "-y")
    assert code == 1 and "no scheduler is alive: the backfill waits" in err
    assert "--follow sync" in err


def test_ctrl_c_ends_the_following_and_says_how_to_go_on(run, monkeypatch):
    fake = FakeAirflow()
    monkeypatch.setattr(
        backfilling.time, "sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    code, _, err = run(fake, *RANGE, "-y")
    assert code == 130 and "--follow sync" in err and "--cancel sync" in err
    monkeypatch.undo()


# --- how Airflow finds it ---------------------------------------------------------------------


def test_the_provider_is_as_airflows_schema_says_and_imports_nothing():
    from importlib.resources import files

    from jsonschema import validate

    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    validate(get_provider_info(), schema)
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; import ledgerhouse.operate.airflow.provider; print(*sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=os.path.dirname(os.path.dirname(__file__)),
    )
    assert not {"airflow", "duckdb", "pandas", "ccxt"} & set(loaded.stdout.split())


def test_the_real_command_line_has_our_commands_and_keeps_its_own(tmp_path):
    """As a process of its own: the `dags` group is replaced while Airflow's parser is imported."""
    env = os.environ | {"AIRFLOW_HOME": str(tmp_path)}

    def airflow(*argv):
        return subprocess.run(
            [sys.executable, "-m", "airflow", *argv],
            env=env,
            text=True,
            capture_output=True,
            cwd=tmp_path,
        )

    listed = airflow("dags", "--help")
    assert all(name in listed.stdout for name in ("backfill", "trigger", "unpause")), listed.stderr
    refused = airflow("dags", "backfill", "-s", "2024-02-01", "-e", "2024-01-01", "sync")
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.strip().splitlines()[-1] == (
        "airflow: the end 2024-01-01T00:00:00Z is before the start 2024-02-01T00:00:00Z"
    )


def test_a_replay_needs_the_state_of_the_models_where_it_is(airflow, tmp_path, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    (tmp_path / "postgres").mkdir()
    code, out, err = airflow("warehouse", "replay")
    assert (code, out) == (1, "") and "make replay without one" in err
    monkeypatch.setenv("LEDGERHOUSE_STATE_URI", f"postgresql://postgres@/sqlmesh?host={tmp_path}")
    code, out, err = airflow("warehouse", "replay")
    assert (code, out) == (1, "") and "does not answer: start the stack" in err
    assert not (tmp_path / "replay").exists()


def test_a_replay_makes_the_same_warehouse_and_the_same_books(kept, airflow, tmp_path, monkeypatch):
    for name in ("landing", FILE):
        (shutil.copytree if name == "landing" else shutil.copy)(kept.var / name, tmp_path / name)
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.delenv("LEDGERHOUSE_STATE_URI", raising=False)
    heard = logging.getLogger("ledgerhouse").level
    code, out, err = airflow("warehouse", "replay", "--output", "json")
    report = json.loads(out)
    assert logging.getLogger("ledgerhouse").level == heard  # quiet for its own steps alone
    assert (code, report["published"], report["critical"], report["differences"]) == (
        0,
        True,
        [],
        {},
    ), err
    with open_books(kept.var / "published") as old, open_books(tmp_path / "published") as new:
        for table in ("curated.daily_balances", "curated.tx_unified", "raw.exchanges_ledger"):
            query = (
                f"SELECT * EXCLUDE (batch_id) FROM {table} ORDER BY ALL"
                if table.startswith("raw")
                else f"FROM {table} ORDER BY ALL"
            )
            assert new.execute(query).fetchall() == old.execute(query).fetchall(), table


def test_a_command_is_given_the_settings_of_the_running_stack(tmp_path):
    environ = {"LEDGERHOUSE_VAR": str(tmp_path), "PATH": os.environ["PATH"]}
    _, alive = attached(environ)
    assert not alive
    addresses = {
        "ui": "http://127.0.0.1:18123",
        "sandbox": "http://127.0.0.1:18124",
        "postgres": str(tmp_path / "sockets"),
    }
    with lock(tmp_path, "stack up", **addresses):
        env, alive = attached(environ)
    api = json.loads(env["AIRFLOW_CONN_AIRFLOW_API"])
    assert alive and api["host"] == "http://127.0.0.1:18123" and api["password"]
    assert "18124" in env["AIRFLOW_CONN_DEBANK"]
    assert str(tmp_path / "sockets") in env["LEDGERHOUSE_STATE_URI"]
    assert str(tmp_path / "sockets") in env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]


def test_an_export_is_one_file_that_is_not_replaced_unasked(kept, airflow, tmp_path):
    import duckdb

    file = tmp_path / "books.duckdb"
    code, out, err = airflow("warehouse", "export", "--duckdb", str(file), "-o", "json")
    answer = json.loads(out)
    assert code == 0 and answer["rows"] > 0 and answer["file"] == str(file.resolve()), err
    with duckdb.connect(str(file), read_only=True) as one:
        assert one.execute("SELECT count(*) > 0 FROM curated.daily_balances").fetchone() == (True,)
    code, out, err = airflow("warehouse", "export", "--duckdb", str(file))
    assert (code, out) == (1, "") and "name another file, or use --force" in err
