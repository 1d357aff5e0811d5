"""What goes wrong, a story a kind: each spoils the books step by step, and after its last step all is well."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace

from extract.core.interval import Interval
from ledgerhouse.check.checkpoints import CheckResult, record
from ledgerhouse.operate.commands.tables import rows
from ledgerhouse.operate.commands.warehouse import STATUS
from tests.ledgerhouse.operate.alerts.scene import MINE, NOW


def story_failed_source(books):
    books.ran(state="failed", error="Fatal: HTTP 401\nno", number=1)
    books.do("UPDATE ops.sync_runs SET state = 'up_for_retry'")
    yield None, "", ""
    books.do("UPDATE ops.sync_runs SET state = 'failed'")
    yield ("failed_source", "debank", "0xa", ""), "Fatal: HTTP 401 no", ""
    books.ran(state="running")
    yield ("failed_source", "debank", "0xa", ""), "sync run 1, task fetch_debank", ""
    books.do("UPDATE ops.sync_runs SET state = 'success' WHERE state = 'running'")


def story_failed_source_of_a_plan_and_of_an_attempt_that_never_began(books):
    for task in ("plan_debank", "fetch_debank"):
        books.ran()
        books.ran(task=task, source=None, account=None, state="failed")
        yield ("failed_source", "debank", "0xa", ""), f"task {task}", "left no message"
    books.ran()


def story_failed_source_of_a_probe(books):
    """No fetch was begun: the probe is of all accounts of its connection, and of no other."""
    books.ran()
    books.ran("fetch_coinbase_main", source="coinbase", account="main")
    run = books.ran("probe_debank", "failed", "NotJson: no API", source=None, account=None)
    books.ran("fetch_debank", "upstream_failed", source=None, account=None, run=run)
    yield ("failed_source", "debank", "0xa", ""), "task probe_debank", "NotJson: no API"
    log = dict(books.con.execute("SELECT source, sync_status FROM ops.sync_log").fetchall())
    assert log == {"coinbase": "success", "debank": "failed"}
    status = {row["source"]: (row["state"], row["error"]) for row in rows(books.con, STATUS)}
    assert status == {"coinbase": ("success", None), "debank": ("failed", "NotJson: no API")}
    books.ran("probe_debank", source=None, account=None)
    books.ran()


def story_failed_source_tried_again(books):
    run = books.ran(state="failed", error="once", number=1)
    books.ran(state="success", run=run, number=2)
    yield None, "", ""


def story_failed_task(books):
    books.ran("transform", "failed", "a model broke", None, None)
    yield ("failed_task", "", "", "transform"), "a model broke", ""
    books.ran("transform", "skipped", None, None, None)
    yield ("failed_task", "", "", "transform"), "a model broke", ""
    books.ran("mirror", "failed", "not about the books", None, None)
    books.ran("transform", "success", None, None, None, dag="history")


def story_stale_coverage(books):
    books.do("UPDATE ops.coverage SET end_ts = end_ts - INTERVAL 13 HOUR WHERE source = 'debank'")
    yield ("stale_coverage", "debank", "0xa", ""), "covered through 2026-03-09T23:00:00Z", ""
    books.cover(MINE[0], NOW - timedelta(hours=2), NOW)
    yield ("stale_coverage", "debank", "0xa", ""), "T23:00:00Z, where a hole begins", ""
    books.do("DELETE FROM ops.coverage WHERE source = 'debank'")
    yield ("stale_coverage", "debank", "0xa", ""), "nothing of it was ever read", ""
    books.cover(MINE[0], "2026-01-01", NOW - timedelta(hours=12))


def story_balance_off(books):
    books.do("INSERT INTO curated.assets VALUES ('eth:0x1', 'POL')")
    books.do(
        "INSERT INTO curated.reconciliation VALUES ('debank', '0xa', 'eth:0x1', "
        "'awaiting_coverage', '0', '7', '7', '2026-03-10')"
    )
    yield None, "", ""
    books.do(
        "UPDATE curated.reconciliation SET status = 'off', difference_text = '0.100000000000000001'"
    )
    yield (
        ("balance_off", "debank", "0xa", "eth:0x1"),
        "POL: computed 0, reported 7",
        "is 0.100000000000000001",
    )
    books.do("UPDATE curated.reconciliation SET status = 'awaiting_coverage'")
    yield ("balance_off", "debank", "0xa", "eth:0x1"), "", ""
    books.do("UPDATE curated.reconciliation SET status = 'explained'")


def story_balance_regressed(books):
    """It agreed at a snapshot before; until it is off for good (settling), nobody is alerted."""
    books.do("INSERT INTO curated.assets VALUES ('eth:0x1', '\u202ePOL')")
    books.do(
        "INSERT INTO ops.breaks BY NAME SELECT 'debank' AS source, '0xa' AS account, 'eth:0x1' AS "
        "token, TIMESTAMP '2026-03-09' AS last_good_ts, TIMESTAMP '2026-03-10' AS first_bad_ts, "
        "first_bad_ts AS last_bad_ts, '7' AS step_text, '7' AS residual_text, 'doubled' AS suspect, "
        "'it is there twice' AS explanation, first_bad_ts AS found_at"
    )
    books.do(
        "INSERT INTO curated.reconciliation VALUES ('debank', '0xa', 'eth:0x1', "
        "'settling', '0', '7', '7', '2026-03-10')"
    )
    yield None, "", ""
    books.do("UPDATE curated.reconciliation SET status = 'off'")
    key = ("balance_regressed", "debank", "0xa", "eth:0x1")
    yield key, "POL: computed 0", "agreed at 2026-03-09T00:00:00Z, suspect: doubled"
    books.do("UPDATE curated.reconciliation SET status = 'exact'")


def story_damaged_file(books):
    books.do(
        "INSERT INTO ops.quarantined_files VALUES ('landing', 'f.jsonl.zst', 'debank', '0xa', "
        "'2026-03-01', '2026-03-02', 'it is empty', '2026-03-03')"
    )
    key = ("damaged_file", "debank", "0xa", "landing/f.jsonl.zst")
    yield key, "f.jsonl.zst cannot be read: it is empty", "it is empty"
    books.do("DELETE FROM ops.quarantined_files")


def story_held_account(books):
    """The run is red and names it: one incident, of the account alone."""
    law = CheckResult("raw.x", "keys_unique", "critical", False, accounts=(("debank", "0xa"),))
    record(books.con, [law], "a", Interval("2026-03-01", "2026-03-02"))
    books.ran("publish", "failed", "1 account keeps its days", None, None, run="a")
    books.do(
        "INSERT INTO ops.held_accounts VALUES ('debank', '0xa', '2026-03-01', 'a', 'raw.x keys_unique')"
    )
    key = ("held_account", "debank", "0xa", "")
    yield key, "since 2026-03-01T00:00:00Z: raw.x keys_unique", "run a"
    books.do("DELETE FROM ops.held_accounts")
    books.checked("b", True)
    books.ran("publish", "success", None, None, None, run="b")


def story_check_failed(books):
    books.checked("a", False, severity="warning")
    yield None, "", ""
    books.checked("b", False)
    books.ran("check", "failed", "1 critical", None, None, run="b")
    yield ("check_failed", "", "", "raw.x: keys_unique"), "3 of 9 rows", "run b"
    books.checked("c", True)
    books.ran("check", "success", None, None, None, run="c")


def story_refresh_difference(books):
    from ledgerhouse.transform import rebuild

    wrong = SimpleNamespace(table="curated.daily_flows")
    books.ran("rebuild", "failed", "not equal", None, None, run="a")
    for run, differences in (("a", [wrong]), ("b", [])):
        rebuild.record(
            books.con,
            run,
            SimpleNamespace(differences=differences, rows={"curated.daily_flows": 8}),
        )
        if differences:
            yield (
                (
                    "refresh_difference",
                    "",
                    "",
                    "rebuild: curated.daily_flows equals its rebuild from raw",
                ),
                "run a",
                "",
            )
    books.ran("rebuild", "success", None, None, None, run="b")


def story_budget(books):
    books.do("INSERT INTO ops.budgets VALUES ('debank', 'units', 'day', 1000)")
    books.called(9, 80, NOW - timedelta(days=1))
    books.called(9, 80)
    yield None, "", ""
    books.called(1, 80)
    yield ("budget", "debank", "", "units a day"), "800 of 1,000 units", "80 %"


def story_budget_reached(books):
    books.do("INSERT INTO ops.budgets VALUES ('debank', 'calls', 'month', 3)")
    books.called(2, 0)
    yield None, "", ""
    books.called(1, 0)
    yield ("budget_reached", "debank", "", "calls a month"), "3 of 3 calls", ""
    books.do("UPDATE ops.budgets SET allowed = 9")


def story_budget_reached_before_the_call_that_would_pass_it(books):
    """The error of the run log says which of several limits it was, whatever its text."""
    books.do("INSERT INTO ops.budgets VALUES ('debank', 'units', 'day', 30)")
    books.do("INSERT INTO ops.budgets VALUES ('debank', 'units', 'month', 30)")
    books.do("INSERT INTO ops.budgets VALUES ('debank', 'calls', 'day', 30)")
    limit = {"measure": "units", "period": "day", "allowed": 30}
    books.called(1, 20)
    for other in ({"measure": "calls", "allowed": 31}, {"period": "month", "allowed": 29}):
        fields = json.dumps(limit | other)
        run = books.ran(state="failed", error_type="BudgetReached", error_fields=fields)
        books.ran(run=run, number=2)
    run = books.ran(state="failed", error_type="Fatal", error_fields=json.dumps(limit))
    books.ran(run=run, number=2)
    yield None, "", ""
    run = books.ran(
        state="failed",
        error="no text that anybody reads",
        error_type="BudgetReached",
        error_fields=json.dumps(limit),
    )
    books.ran(run=run, number=2)
    yield ("budget_reached", "debank", "", "units a day"), "20 of 30 units", ""
    books.do("UPDATE ops.budgets SET allowed = 60")


def story_budget_reached_in_a_row_of_the_version_before(books):
    from ledgerhouse.config import Limit
    from ledgerhouse.plan.budget import Ledger

    ledger = Ledger.__new__(Ledger)
    ledger.source = "debank"
    error = ledger._reached(Limit("debank", "units", "day", 30), 20, 20, NOW)
    books.do("INSERT INTO ops.budgets VALUES ('debank', 'units', 'day', 30)")
    run = books.ran(state="failed", error=f"BudgetReached: {error}"[:500])
    books.ran(run=run, number=2)
    books.called(1, 20)
    yield ("budget_reached", "debank", "", "units a day"), "20 of 30 units", ""
    books.do("UPDATE ops.budgets SET allowed = 60")


def story_unknown_type(books):
    books.entry("deposit")
    yield None, "", ""
    books.entry("unknown")
    yield ("unknown_type", "coinbase", "main", "mystery"), "1 row of a type", "2026-03-01"
    books.do("UPDATE raw.exchanges_ledger SET kind = 'fee'")


def story_late_rows(books):
    books.refreshed("a", 2, 0)
    yield ("late_rows", "debank", "0xa", ""), "2 rows in settled time", "a"
    books.refreshed("b", 0, 0)


def story_vanished_rows(books):
    books.refreshed("a", 0, 4)
    yield ("vanished_rows", "debank", "0xa", ""), "4 rows vanished", "a"
    books.refreshed("b", 0, 0)


STORIES = {name[6:]: tell for name, tell in list(globals().items()) if name.startswith("story_")}
