"""Which rows a checkpoint looks at, and what it leaves behind: results, handles, and no half of a run."""

from __future__ import annotations

import subprocess
import sys

import duckdb
import pytest

from extract.core.interval import Interval
from ledgerhouse.check import suites as suites_module
from ledgerhouse.check.checkpoints import (
    CheckResult,
    failed_critical,
    record,
)
from tests.ledgerhouse.check.checkpoints.clean import INTERVAL, RECEIVED, failures, run

pytestmark = pytest.mark.slow  # importing Great Expectations alone takes 8 s


def test_rows_outside_the_interval_are_not_looked_at(warehouse):
    outside = "ts NOT BETWEEN TIMESTAMP '2026-01-01' AND TIMESTAMP '2026-01-03'"
    path = warehouse(f"""
        UPDATE raw.exchanges_ledger SET kind = 'gift', asset = NULL, batch_id = 'x'
          WHERE entry_id IN ('e0', 'e5', 'e7');
        UPDATE raw.exchanges_ledger SET amount = 4 WHERE entry_id = 'e7';
        UPDATE raw.onchain_transfers SET amount = -1 WHERE tx_id = '{RECEIVED}';
        UPDATE raw.onchain_transactions SET status = 7 WHERE tx_id = '{RECEIVED}';
        INSERT INTO curated.tx_unified FROM curated.tx_unified WHERE {outside};
        DELETE FROM curated.daily_flows WHERE date <> '2026-01-02';
        UPDATE curated.daily_balances SET balance = -9 WHERE date <> '2026-01-02';""")
    assert failures(run(path)) == set()


def test_of_scattered_days_only_those_are_looked_at(warehouse):
    """Late rows touch single days of years: what lies between is not read, what they touch is."""
    wide = Interval("2025-12-20T00:00:00Z", "2026-01-25T00:00:00Z")
    spans = (
        Interval("2025-12-20T00:00:00Z", "2025-12-21T00:00:00Z"),
        INTERVAL,
        Interval("2026-01-20T00:00:00Z", "2026-01-25T00:00:00Z"),
    )
    between = "UPDATE raw.exchanges_ledger SET kind = 'gift' WHERE entry_id IN ('e0', 'e5', 'e7');"
    assert failures(run(warehouse(between), wide, spans=spans)) == set()
    assert ("raw.exchanges_ledger", "kind_known", "critical") in failures(
        run(warehouse(between), wide)
    )
    inside = "UPDATE raw.exchanges_ledger SET kind = 'gift' WHERE entry_id = 'e1'"
    assert failures(run(warehouse(inside), wide, spans=spans)) == {
        ("raw.exchanges_ledger", "kind_known", "critical")
    }


def test_each_of_the_scattered_days_is_looked_at(warehouse, only):
    only("raw.exchanges_ledger")
    spans = [
        Interval(f"2026-01-0{day}T00:00:00Z", f"2026-01-0{day + 1}T00:00:00Z") for day in (1, 3)
    ]
    path = warehouse(
        "UPDATE raw.exchanges_ledger SET kind = 'gift' WHERE entry_id IN ('e0', 'e5', 'e7')"
    )  # on the first, the second and the third
    for count, checked_spans in ((1, spans[:1]), (2, spans), (1, spans[1:])):
        whole = Interval(checked_spans[0].start.isoformat(), checked_spans[-1].end.isoformat())
        (bad,) = [r for r in run(path, whole, spans=checked_spans) if not r.success]
        assert bad.expectation == "kind_known" and bad.observed.startswith(f"{count} of ")


def test_the_ends_of_the_interval_are_half_open(warehouse, only):
    only("raw.exchanges_ledger")
    path = warehouse("UPDATE raw.exchanges_ledger SET kind = 'gift' WHERE entry_id IN ('e1', 'e5')")
    (bad,) = [r for r in run(path) if not r.success]
    assert bad.observed.startswith("1 of ")  # e1 lies on the start, e5 on the end


def test_an_empty_interval_is_legal(warehouse):
    results = run(warehouse(), Interval("2031-05-01T00:00:00Z", "2031-05-01T06:00:00Z"))
    assert failures(results) == set()
    assert not any(r.error for r in results)


def test_an_empty_warehouse_is_legal(warehouse):
    tables = [s.table for s in suites_module.suites(INTERVAL)]
    results = run(warehouse("".join(f"DELETE FROM {t};" for t in tables)))
    assert failures(results) == set()


def test_an_expectation_that_raises_is_a_critical_failure(warehouse):
    path = warehouse(
        "ALTER TABLE ops.batches RENAME batch_id TO gone; "
        "ALTER TABLE curated.assets RENAME TO elsewhere;"
    )
    results = run(path)
    raised = [r for r in results if r.error]
    assert {r.severity for r in raised} == {"critical"} and not any(r.success for r in raised)
    assert {r.checkpoint for r in raised if r.expectation == "batch_known"} == {
        t
        for t in (s.table for s in suites_module.suites(INTERVAL))
        if t.startswith("raw.") and t != "raw.adjustments"
    }
    assert {r.expectation for r in raised if r.checkpoint == "curated.assets"} == {
        "keys_unique",
        "token_present",
        "tokens_described",
    }
    assert failed_critical(results) == raised
    assert "batch_id" in raised[0].error


@pytest.mark.parametrize("sql", ["", "DROP TABLE curated.assets"], ids=["clean", "raising"])
def test_every_handle_is_released(warehouse, tmp_path, sql):
    path = warehouse(sql)
    run(path, docs_dir=tmp_path / "docs")
    code = f"import duckdb; duckdb.connect({str(path)!r}).execute('CREATE TABLE t (i INT)')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with duckdb.connect(str(path)) as con:  # read-only handles of this process would forbid it
        con.execute("DROP TABLE t")


def test_a_missing_warehouse_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no warehouse at"):
        run(tmp_path / "warehouse.duckdb")


def test_recording_a_run_twice_replaces_it(warehouse):
    results = [
        CheckResult("raw.t", "a", "warning", False, "3 rows"),
        CheckResult("raw.t", "b", "critical", False, error="boom"),
        CheckResult("raw.t", "c", "info", True),
    ]
    with duckdb.connect(str(warehouse())) as con:
        record(con, results[:1], "other", INTERVAL)
        record(con, results, "r1", INTERVAL)
        record(con, results, "r1", INTERVAL)
        rows = con.execute(
            "SELECT checkpoint, expectation, severity, success, observed, start_ts::VARCHAR, "
            "end_ts::VARCHAR FROM ops.checkpoints WHERE run_id = 'r1' ORDER BY 2"
        ).fetchall()
        assert con.execute("SELECT count(*) FROM ops.checkpoints").fetchone() == (4,)
        record(con, [], "r1", INTERVAL)
        assert con.execute("SELECT count(*) FROM ops.checkpoints").fetchone() == (1,)
    span = ("2026-01-02 06:00:00", "2026-01-02 12:00:00")
    assert rows == [
        ("raw.t", "a", "warning", False, "3 rows", *span),
        ("raw.t", "b", "critical", False, "boom", *span),
        ("raw.t", "c", "info", True, None, *span),
    ]
