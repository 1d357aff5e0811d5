"""`airflow warehouse runs`, and the balances of `status`: what the demo's report is made of."""

from __future__ import annotations

import json

import pytest

from ledgerhouse.operate.commands.balances import show_balances
from ledgerhouse.operate.commands.runs import show_runs
from ledgerhouse.operate.commands.tables import Answer

RUNS = (("old", 1), ("first", 2), ("second", 3))  # each on its day, a call of 5 units a day number


@pytest.fixture
def books(con):
    """Three runs; the newest has a critical check that failed; a call of no run."""
    for run, day in (*RUNS, (None, 4)):
        for number in range(day):
            con.execute(
                "INSERT INTO ops.api_calls BY NAME SELECT ? AS call_id, ?::TIMESTAMP AS called_at, "
                "'sync' AS dag_id, ? AS run_id, 'debank' AS source, '0xa' AS account, "
                "'list' AS endpoint, 1 AS duration_ms, 5 AS units",
                [f"{run}-{number}", f"2026-01-0{day} 06:00", run],
            )
    for run, day in RUNS[1:]:
        con.execute(
            "INSERT INTO ops.batches BY NAME SELECT 'b' AS batch_id, '1 file' AS file, "
            "'debank' AS source, '0xa' AS account, 'd' AS dataset, ? AS run_id, 9 AS rows, ? AS new, "
            "2 AS changed, 0 AS same, 0 AS stale, 0 AS removed, 0 AS vanished, "
            "?::TIMESTAMP AS loaded_at",
            [run, 10 * day, f"2026-01-0{day} 07:00"],
        )
        for name, severity, success in (("a", "critical", day == 2), ("b", "warning", True)):
            con.execute(
                "INSERT INTO ops.checkpoints BY NAME SELECT ? AS run_id, 'raw.x' AS checkpoint, "
                "? AS expectation, ? AS severity, ? AS success, now()::TIMESTAMP AS checked_at",
                [run, name, severity, success],
            )
    return con


def test_the_newest_runs_tell_what_they_brought_cost_and_found(books):
    answer = Answer("json")
    show_runs(books, answer, 2)
    lines = answer.document["runs"]
    assert [(n["run_id"], n["new"], n["changed"], n["calls"], n["units"]) for n in lines] == [
        ("first", 20, 2, 2, 10),
        ("second", 30, 2, 3, 15),
    ]
    (checked,) = answer.document["checkpoints"]
    assert checked == {"checkpoint": "raw.x", "first": "2 passed", "second": "1 passed, 1 critical"}


def test_a_run_that_loaded_nothing_is_there_with_its_calls(books):
    answer = Answer("json")
    show_runs(books, answer, 10)
    assert [line["run_id"] for line in answer.document["runs"]] == ["old", "first", "second"]
    assert answer.document["runs"][0]["new"] == 0 and answer.document["runs"][0]["calls"] == 1


def test_a_balance_that_disagrees_is_named_with_its_window_and_reason(con, capsys):
    con.execute(
        "CREATE SCHEMA curated; CREATE TABLE curated.assets AS SELECT 'eth:0x1' AS token, "
        "'ONE' AS symbol, 'eth' AS chain; CREATE TABLE curated.reconciliation AS "
        "SELECT 'debank' AS source, '0xa' AS account, token, status, kind, difference AS "
        "difference_text, reason, '1' AS computed_text, '1' AS reported_text, "
        "TIMESTAMP '2026-01-03' AS snapshot_ts FROM (VALUES ('eth', 'exact', NULL, '0', NULL), "
        "('eth:0x1', 'off', NULL, '0.5', 'a movement is missing'), "
        "('eth:0x2', 'explained', 'spam', '7', NULL)) t(token, status, kind, difference, reason)"
    )
    con.execute(
        "INSERT INTO ops.breaks BY NAME SELECT 'debank' AS source, '0xa' AS account, "
        "'eth:0x1' AS token, TIMESTAMP '2026-01-01' AS last_good_ts, "
        "TIMESTAMP '2026-01-02' AS first_bad_ts, TIMESTAMP '2026-01-03' AS last_bad_ts, "
        "'0.5' AS step_text, '0.5' AS residual_text, 'unknown' AS suspect, 'x' AS explanation, "
        "now()::TIMESTAMP AS found_at"
    )
    answer = Answer("table")
    shown = show_balances(con, answer, [("debank", "0xa")])
    assert len(shown) == 3 and show_balances(con, Answer("json"), [("debank", "0xb")]) == []
    assert json.loads(json.dumps(answer.document["balances"])) == [
        {"status": "exact", "all": 1, "debank 0xa": 1},
        {"status": "explained: spam", "all": 1, "debank 0xa": 1},
        {"status": "off", "all": 1, "debank 0xa": 1},
    ]
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "debank 0xa ONE on eth: off by 0.5 between 2026-01-01T00:00:00Z and 2026-01-02T00:00:00Z; "
        "a movement is missing"
    ) in out
    assert [row["token"] for row in answer.document["disagree"]] == ["eth:0x1"]
