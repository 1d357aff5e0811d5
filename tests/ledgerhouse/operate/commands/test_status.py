"""`airflow warehouse status`, `coverage` and `units`."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.core.interval import iso
from extract.sources import get
from ledgerhouse.check.agreement import AGREED
from ledgerhouse.operate.commands.spending import summed
from ledgerhouse.publish.books import has, open_books
from tests.ledgerhouse.operate.commands.scene import (
    ACCOUNTS,
    BROKEN,
    COINBASE,
    HOLE,
    NOW,
    OTHER,
    START,
    WHOLE,
)

pytestmark = pytest.mark.slow


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
    assert "1 gap;" in out and "HTTP 500" in out and "published" in out


def test_it_says_how_far_back_each_api_goes_and_what_it_does_not_list(airflow):
    shown = json.loads(airflow("warehouse", "status", "-o", "json")[1])["sources"]
    assert {row["source"]: (row["depth"], row["reconcilable"]) for row in shown} == {
        name: (get(name).depth, "yes") for name in ("coinbase", "debank")
    }
    only = json.loads(airflow("warehouse", "status", "--account", "main", "-o", "json")[1])[
        "sources"
    ]
    assert [row["source"] for row in only] == ["coinbase"]


def test_every_balance_is_counted_by_its_status(airflow, kept):
    code, out, _ = airflow("warehouse", "status", "-o", "json")
    shown = json.loads(out)
    with open_books(kept.var / "published") as con:
        by_status = dict(
            con.execute(
                "SELECT status, count(*) FROM curated.reconciliation GROUP BY ALL"
            ).fetchall()
        )
    counted: dict[str, int] = {}
    for line in shown["balances"]:
        name = line["status"].partition(":")[0]
        counted[name] = counted.get(name, 0) + line["all"]
    assert counted == by_status
    assert len(shown["disagree"]) == sum(n for s, n in by_status.items() if s not in AGREED)


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
