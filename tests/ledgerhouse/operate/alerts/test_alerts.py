"""Alerts: what is wrong is sent once, and once more when it is over, by whatever way."""

from __future__ import annotations

import json
import logging
import socket
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email import message_from_bytes
from types import SimpleNamespace

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extract.core import sealed
from extract.core.interval import Interval, iso
from ledgerhouse.check.checkpoints import CheckResult, record
from ledgerhouse.config import Account, AccountsFile, Rules
from ledgerhouse.operate.airflow.operators import alert as alert_operators
from ledgerhouse.operate.airflow.operators.alert import AlertOperator
from ledgerhouse.operate.alerts import channels, conditions, incidents
from ledgerhouse.operate.alerts.channels import NotDelivered
from ledgerhouse.operate.alerts.conditions import KINDS, Incident, present_incidents
from ledgerhouse.operate.commands.tables import rows
from ledgerhouse.operate.commands.warehouse import STATUS
from ledgerhouse.operate.ui import calendar, figures
from ledgerhouse.warehouse import schema
from ledgerhouse.warehouse.connection import hold, open_warehouse
from tests.helpers.receiver import receiver

UTC = UTC
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MINE = [Account("debank", "0xa", "debank"), Account("coinbase", "main", "coinbase_main")]
TOKEN = "T0001/B0002/very-secret-token-42"
HOOK = "/hooks/another-secret-in-the-path"


# --- what is wrong: each kind by the tables that tell it ------------------------------------------


RULES = Rules()


class Books:
    """A warehouse in which all is well, and ways to spoil it."""

    def __init__(self):
        self.con = duckdb.connect()
        self.con.execute("SET TimeZone = 'UTC'")
        schema.create_all(self.con)
        self.con.execute(
            "CREATE SCHEMA curated; CREATE TABLE curated.assets (token VARCHAR, "
            "symbol VARCHAR); CREATE TABLE curated.reconciliation (source VARCHAR, "
            "account VARCHAR, token VARCHAR, status VARCHAR, computed_text VARCHAR, "
            "reported_text VARCHAR, difference_text VARCHAR, snapshot_ts TIMESTAMP)"
        )
        self.number = 0
        for account in MINE:
            self.cover(account, "2026-01-01", NOW)

    def do(self, sql: str, *values) -> None:
        self.con.execute(sql, list(values))

    def cover(self, account: Account, start, end) -> None:
        dataset = "onchain_transactions" if account.source == "debank" else "exchanges_ledger"
        self.do(
            "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
            "reason, run_id, batch_id, recorded_at) "
            "VALUES (?, ?, ?, ?::TIMESTAMPTZ, ?::TIMESTAMPTZ, now(), "
            "'end', 'r', 'b', now())",
            account.source,
            account.account,
            dataset,
            start,
            end,
        )

    def ran(
        self,
        task="fetch_debank",
        state="success",
        error=None,
        source="debank",
        account="0xa",
        dag="sync",
        run=None,
        number=1,
        error_type=None,
        error_fields=None,
    ) -> str:
        self.number += 1
        run = run or f"run {self.number}"
        started = NOW - timedelta(hours=1) + timedelta(seconds=self.number)
        self.do(
            "INSERT INTO ops.sync_runs BY NAME SELECT ? AS dag_id, ? AS run_id, ? AS task_id, "
            "? AS map_index, ? AS try_number, ? AS source, ? AS account, ? AS state, "
            "?::TIMESTAMPTZ AS started, ? AS error, ? AS error_type, ? AS error_fields, "
            "now() AS mirrored_at",
            dag,
            run,
            task,
            0,
            number,
            source,
            account,
            state,
            started,
            error,
            error_type,
            error_fields,
        )
        return run

    def checked(self, run: str, success: bool, severity="critical", checkpoint="raw.x") -> None:
        record(
            self.con,
            [CheckResult(checkpoint, "keys_unique", severity, success, "3 of 9 rows")],
            run,
            Interval("2026-03-01", "2026-03-02"),
        )

    def called(self, calls: int, units: int, at=NOW) -> None:
        self.do(
            "INSERT INTO ops.api_calls BY NAME SELECT 'c' AS call_id, ?::TIMESTAMPTZ AS "
            "called_at, 'debank' AS source, '0xa' AS account, '/x' AS endpoint, 1 AS "
            "duration_ms, ? AS units FROM range(?)",
            at,
            units,
            calls,
        )

    def entry(self, kind: str, **more) -> None:
        columns = {
            "entry_id": f"e{self.number}",
            "source": "coinbase",
            "account": "main",
            "ts": datetime(2026, 3, 1),
            "type": "mystery",
            "kind": kind,
        } | more
        known = dict(
            self.con.execute(
                "SELECT column_name, is_nullable FROM duckdb_columns() WHERE schema_name = 'raw' AND "
                "table_name = 'exchanges_ledger'"
            ).fetchall()
        )
        for name, nullable in known.items():
            if not nullable:
                columns.setdefault(name, "x")
        self.do(
            f"INSERT INTO raw.exchanges_ledger ({', '.join(columns)}) VALUES "
            f"({', '.join('?' * len(columns))})",
            *columns.values(),
        )

    def refreshed(self, run: str, new: int, vanished: int) -> None:
        self.number += 1
        self.do(
            "INSERT INTO ops.refreshes VALUES (?, 'quarter', 'debank', '0xa', 'd', NULL, NULL, "
            "?, 0, ?, 0, 5, 1, 1, 1, 1, ?::TIMESTAMPTZ)",
            run,
            new,
            vanished,
            NOW + timedelta(seconds=self.number),
        )

    def incidents(self, now=NOW, rules=RULES) -> dict[tuple, Incident]:
        found = present_incidents(self.con, MINE, rules, now)
        assert set(found) == set(KINDS) - set(conditions.UNRECORDED), "every kind was checked"
        return {incident.key: incident for kind in found.values() for incident in kind}


@pytest.fixture
def books():
    books = Books()
    assert books.incidents() == {}, "all is well"
    yield books
    books.con.close()


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


@pytest.mark.parametrize("name", STORIES)
def test_each_kind_opens_once_and_is_resolved_once(books, name):
    """A story spoils the books step by step; after the last step all is well again."""
    steps, opened = 0, 0
    for key, *said in STORIES[name](books):
        for _ in range(2):  # a pass that finds nothing new sends nothing
            found = books.incidents()
            assert {incident.key for incident in found.values() if incident.certain} <= {key}, name
            assert key is None or key in found
            opened += incidents.reconcile(
                books.con,
                present_incidents(books.con, MINE, Rules(), NOW),
                ["log"],
                run_id="r",
                now=NOW,
            )[0]
        for part in said if key and found[key].certain else ():
            assert part in found[key].text
        steps += key is not None
    later = NOW + timedelta(days=1) if name == "budget" else NOW
    if name == "budget":  # a new day, in which the coverage is older
        books.cover(MINE[0], NOW, later), books.cover(MINE[1], NOW, later)
    assert books.incidents(later) == {}
    done = incidents.reconcile(
        books.con,
        present_incidents(books.con, MINE, Rules(), later),
        ["log"],
        run_id="s",
        now=later,
    )
    assert (opened, done) == ((1, (0, 1)) if steps else (0, (0, 0)))
    assert [n.event for n in incidents.waiting(books.con, "log")] == (
        ["opened", "resolved"] if steps else []
    )


def test_every_kind_has_a_story():
    assert {kind for kind in KINDS if not any(name.startswith(kind) for name in STORIES)} == set(
        conditions.UNRECORDED
    )


def test_accounts_that_are_not_listed_any_more_are_nobodys_incident(books):
    books.ran(state="failed")
    found = present_incidents(books.con, MINE[1:], Rules(), NOW + timedelta(hours=1))
    assert not any(found.values())


NEW = Account("debank", "0xnew", "debank_new")


def stale(books, *accounts) -> list[tuple[str, bool]]:
    found = present_incidents(books.con, accounts, Rules(), NOW)["stale_coverage"]
    return [(incident.account, incident.certain) for incident in found]


def test_an_account_whose_first_load_is_under_way_is_no_incident(books):
    """Another run's alert saw a history of years, which is loaded at its end, as never read."""
    assert stale(books, NEW) == [("0xnew", True)], "nobody is about to read it"
    run = books.ran("plan_debank_new", source=None, account=None)
    assert stale(books, NEW) == [("0xnew", False)], "between the plan and its fetches"
    books.ran("fetch_debank_new", "running", account="0xnew", run=run)
    assert stale(books, NEW) == [("0xnew", False)]
    books.ran("fetch_debank_new", "success", account="0xnew", run=run, number=2)
    books.ran("load", "running", source=None, account=None, run=run)
    assert stale(books, NEW) == [("0xnew", False)]
    books.ran("mirror", "success", source=None, account=None, run=run)
    assert stale(books, NEW) == [("0xnew", True)], "the run is over and it is still not there"


@pytest.mark.parametrize("task, state", [("load", "failed"), ("mirror", "skipped")])
def test_a_load_that_failed_or_was_stopped_is_no_longer_under_way(books, task, state):
    run = books.ran("fetch_debank_new", account="0xnew")
    books.ran(task, state, source=None, account=None, run=run)
    assert stale(books, NEW) == [("0xnew", True)]


def test_a_load_that_began_a_day_ago_hides_nothing(books):
    books.ran("fetch_debank_new", "running", account="0xnew")
    books.do("UPDATE ops.sync_runs SET started = started - INTERVAL 25 HOUR")
    assert stale(books, NEW) == [("0xnew", True)]


def test_another_connections_run_hides_nothing(books):
    books.ran("fetch_debank", "running")
    assert stale(books, NEW) == [("0xnew", True)]


def test_covered_through_is_as_far_as_the_dataset_that_lags_whoever_tells_it(books, tmp_path):
    books.do(
        "INSERT INTO ops.coverage SELECT * REPLACE ('onchain_transfers' AS dataset, "
        "end_ts - INTERVAL 13 HOUR AS end_ts) FROM ops.coverage WHERE source = 'debank'"
    )
    books.do(
        "CREATE TABLE published AS SELECT 1 AS generation, now() AS published_at, 'r' AS run_id"
    )
    reached = "2026-03-09T23:00:00Z"
    alert = books.incidents()["stale_coverage", "debank", "0xa", ""]
    assert alert.text.startswith(f"covered through {reached};")
    (status,) = [row for row in rows(books.con, STATUS) if row["source"] == "debank"]
    assert iso(status["covered_through"]) == reached
    assert figures.overview(books.con, tmp_path)["through"] == reached
    assert {a["account"]: a["until"] for a in calendar.coverage(books.con)["accounts"]}[
        "0xa"
    ] == reached


def test_a_kind_that_cannot_be_judged_stays_as_it_is(books, caplog):
    next(story := STORIES["check_failed"](books)), next(story)

    def reconcile():
        return incidents.reconcile(
            books.con,
            present_incidents(books.con, MINE, Rules(), NOW),
            ["log"],
            run_id="r",
            now=NOW,
        )

    assert reconcile() == (1, 0)
    books.do("DROP TABLE ops.checkpoints")
    assert reconcile() == (0, 0)
    assert "check_failed and refresh_difference cannot be checked at present" in caplog.text
    assert books.con.execute(
        "SELECT kind FROM ops.incidents WHERE resolved_at IS NULL"
    ).fetchall() == [("check_failed",)]


# --- once, whatever happens -----------------------------------------------------------------------


KEYS = [
    ("stale_coverage", "debank", "0xa", ""),
    ("budget", "debank", "", "units a day"),
    ("balance_off", "debank", "0xa", "eth"),
    ("balance_off", "debank", "0xa", "pol"),
]
STATE = st.fixed_dictionaries(
    {key: st.sampled_from([True, True, False, False, None]) for key in KEYS}
)  # None: nobody can tell
STEP = st.tuples(
    STATE,
    st.sets(st.sampled_from(["balance_off"])),
    st.sets(st.sampled_from(["a", "b"])),
    st.sampled_from(["", "", "before", "after"]),
)


@pytest.fixture(scope="module")
def con():
    con = duckdb.connect()
    schema.create_all(con)
    yield con
    con.close()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEP, max_size=9))
def test_any_sequence_of_states_is_sent_once_each_to_each_channel(con, steps):
    """A step: what is wrong, kinds that cannot be checked, channels that are down, and a kill
    before the delivery or between it and its mark."""
    con.execute("DELETE FROM ops.incidents; DELETE FROM ops.notices")
    truth = dict.fromkeys(KEYS, False)
    wanted: list[tuple] = []
    got: dict[str, list[tuple]] = {"a": [], "b": []}
    ids: dict[str, set] = {"a": set(), "b": set()}

    def run(number: int, state, blind=(), down=(), kill="") -> None:
        now = NOW + timedelta(hours=number)
        judged = {
            kind: [
                Incident(*key, f"text {number}", value is True)
                for key, value in state.items()
                if key[0] == kind and value is not False
            ]
            for kind in KINDS
            if kind not in blind
        }
        incidents.reconcile(con, judged, got, run_id=f"r{number}", now=now)
        if kill == "before":
            return
        tried = {name: incidents.waiting(con, name) for name in got}
        for name, notices in tried.items():
            if name not in down:
                fresh = [n for n in notices if n.as_dict()["id"] not in ids[name]]
                assert kills or fresh == list(notices), "sent twice without any kill"
                ids[name] |= {n.as_dict()["id"] for n in fresh}
                got[name] += [(n.event, n.kind, n.source, n.account, n.subject) for n in fresh]
        if kill != "after":
            incidents.note_sent(con, tried, set(got) - set(down), now)

    kills = False
    for number, (state, blind, down, kill) in enumerate(steps):
        for key, value in state.items():
            if key[0] not in blind and value is not None and value != truth[key]:
                truth[key] = value
                wanted.append(("opened" if value else "resolved", *key))
        kills = kills or kill == "after"
        run(number, state, blind, down, kill)
    run(len(steps), truth)  # in the end nobody is down
    for name in got:
        for key in KEYS:
            assert [notice for notice in got[name] if notice[1:] == key] == [
                notice for notice in wanted if notice[1:] == key
            ]
    assert con.execute(
        "SELECT count(*) FROM ops.incidents WHERE resolved_at IS NULL"
    ).fetchone() == (sum(truth.values()),)


def test_a_channel_that_is_added_gets_what_is_open_and_of_nothing_else_that_it_is_over(con):
    con.execute("DELETE FROM ops.incidents; DELETE FROM ops.notices")
    first, second = Incident(*KEYS[0], "x"), Incident(*KEYS[1], "y")
    for names, judged in (
        (["log"], [first, second]),
        (["log", "new"], [first]),
        (["log", "new"], []),
    ):
        incidents.reconcile(
            con,
            {kind: [i for i in judged if i.kind == kind] for kind in KINDS},
            names,
            run_id="r",
            now=NOW,
        )
    assert [(n.event, n.kind) for n in incidents.waiting(con, "new")] == [
        ("opened", "stale_coverage"),
        ("resolved", "stale_coverage"),
    ]
    assert len(incidents.waiting(con, "log")) == 4


# --- by which way: the providers' own notifiers, against servers of this machine ------------------


@pytest.fixture
def logged(capsys, caplog):
    """logged() is all that was logged so far: Airflow's loggers write to stdout."""
    caplog.set_level(logging.INFO)
    seen = []

    def so_far() -> str:
        seen.append("".join(capsys.readouterr()))
        return "".join(seen) + caplog.text

    return so_far


@pytest.fixture
def web():
    with receiver() as server:
        yield server


@pytest.fixture
def mail():
    """A mail server with a user; `box` keeps the messages, `refuses` makes it turn all away."""
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult

    class Box:
        refuses = False

        def __init__(self):
            self.box = []

        async def handle_DATA(self, server, session, envelope):
            if self.refuses:
                return f"554 not today, {PASSWORD}"
            self.box.append(
                (envelope.mail_from, envelope.rcpt_tos, message_from_bytes(envelope.content))
            )
            return "250 OK"

    def login(server, session, envelope, mechanism, data):
        return AuthResult(success=data.password == PASSWORD.encode())

    box = Box()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        box.port = probe.getsockname()[1]
    controller = Controller(
        box, hostname="127.0.0.1", port=box.port, authenticator=login, auth_require_tls=False
    )
    controller.start()
    yield box
    controller.stop()


PASSWORD = "mail-pass-77"


@pytest.fixture
def alert(tmp_path, monkeypatch):
    """alert(wrong=True, …) runs the task over books in which coverage is stale, or not."""
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    accounts = tmp_path / "accounts.toml"
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(accounts))
    listed = '[[account]]\nsource = "debank"\naccount = "0x000000000000000000000000000000000000000a"\nconnection = "debank"\n'
    accounts.write_text(listed)
    operator, runs = AlertOperator(task_id="alert"), iter(range(1, 99))

    def run(wrong: bool = True, rules: str = "", number: int = 1, kinds=None):
        accounts.write_text(listed + rules)
        text = "said <b>&</b> {{ 7 * 7 }} <!channel>"
        monkeypatch.setattr(
            conditions,
            "present_incidents",
            lambda *_: {
                kind: [
                    Incident("stale_coverage", "debank", "0xa", str(i), text) for i in range(wrong)
                ]
                if kind == "stale_coverage"
                else []
                for kind in KINDS
            },
        )
        ti = SimpleNamespace(
            dag_id="sync",
            run_id=f"manual__{next(runs)}",
            task_id="alert",
            map_index=-1,
            try_number=number,
            max_tries=2,
        )
        return operator.execute({"ti": ti})

    return run


@contextmanager
def connection(monkeypatch, name: str, **fields):
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))
    yield
    monkeypatch.delenv(f"AIRFLOW_CONN_{name.upper()}")


@pytest.fixture
def webhook(monkeypatch, web):
    with connection(
        monkeypatch,
        "alerts_webhook",
        conn_type="http",
        host=web.url + HOOK,
        password=TOKEN,
        extra={"headers": {"X-Team": "books"}},
    ):
        yield web


def test_a_webhook_is_posted_json_once_an_incident_and_again_when_it_is_over(alert, webhook):
    for wrong in (True, True, False, False):
        alert(wrong)
    opened, resolved = webhook.took()
    path, headers, *_ = webhook.asked[0]
    assert (path, headers["Authorization"], headers["X-Team"]) == (HOOK, f"Bearer {TOKEN}", "books")
    assert opened["subject"] == "Ledgerhouse: stale coverage: debank 0xa 0"
    (opening,), (closing,) = opened["incidents"], resolved["incidents"]
    assert (
        opening["event"] == "opened" and opening["todo"] and opening["text"].endswith("<!channel>")
    )
    assert (closing["event"], closing["incident_id"]) == ("resolved", opening["incident_id"])
    assert closing["id"] != opening["id"] and closing["resolved_at"] >= opening["opened_at"]


@pytest.mark.parametrize("fault", [500, 302, 0])
def test_what_a_webhook_did_not_take_is_sent_by_the_next_run_and_then_no_more(
    alert, webhook, fault, logged
):
    webhook.answers += [fault, fault]
    for number in (1, 2):
        with pytest.raises(NotDelivered, match="alerts_webhook did not take"):
            alert(number=number)
    assert webhook.took() == []
    alert(), alert()
    assert [i["event"] for body in webhook.took() for i in body["incidents"]] == ["opened"]
    assert len(webhook.asked) == 3
    assert "CRITICAL" not in logged() and logged().count("WARNING stale coverage") == 1
    assert TOKEN not in logged() and HOOK not in logged() and "another" not in logged()


def test_who_is_down_costs_no_other_and_a_slow_one_is_given_up(
    alert, webhook, mail, monkeypatch, logged
):
    monkeypatch.setattr(channels, "TIMEOUT_S", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        connection(
            monkeypatch,
            "alerts_slack",
            conn_type="slackwebhook",
            password=TOKEN,
            host=f"http://127.0.0.1:{silent.getsockname()[1]}/services",
        ),
    ):
        with pytest.raises(NotDelivered, match="^alerts_slack did not take"):
            alert()
    assert len(webhook.took()) == 1
    assert "alerts_slack did not take 1 alert(s)" in logged() and "T0001" not in logged()


# --- the heartbeat: what says that nothing runs, where nothing runs -------------------------------


def read_through(hours_ago: float) -> None:
    """The warehouse has one account, read until then, and another whose key was refused long ago."""
    with open_warehouse(owner="test") as con:
        con.execute("DELETE FROM ops.coverage")
        for account, hours in (("0xa", hours_ago), ("0xb", 900)):
            con.execute(
                "INSERT INTO ops.coverage BY NAME SELECT 'debank' AS source, ? AS account, "
                "'onchain_transactions' AS dataset, TIMESTAMP '2020-01-01' AS start_ts, "
                "?::TIMESTAMPTZ::TIMESTAMP AS end_ts, end_ts AS read_at, 'end' AS reason, "
                "'r' AS run_id, 'b' AS batch_id, end_ts AS recorded_at",
                [account, datetime.now(UTC) - timedelta(hours=hours)],
            )


@pytest.fixture
def watcher(monkeypatch, web):
    with connection(monkeypatch, "alerts_heartbeat", conn_type="http", host=web.url + HOOK):
        yield web


def test_while_syncs_come_every_run_says_so_and_then_no_more(alert, watcher, logged):
    alert(False)
    assert watcher.got == [], "nothing was ever read"
    read_through(11)
    alert(False), alert(True)
    assert watcher.got == [HOOK, HOOK], "an account that fails is an alert, and no sign of silence"
    read_through(13)
    alert(False)
    assert len(watcher.got) == 2
    alert(False, "[alerts]\nstale_after_hours = 14\n")
    assert len(watcher.got) == 3
    assert HOOK not in logged()


@pytest.mark.parametrize("fault", [500, 302])
def test_a_heartbeat_that_was_not_heard_is_tried_again_and_no_alert_is_sent_twice(
    alert, watcher, fault, logged
):
    read_through(1)
    watcher.get_answers += [fault]
    with pytest.raises(NotDelivered, match="alerts_heartbeat did not hear"):
        alert()
    alert(number=2)
    assert watcher.got == [HOOK, HOOK]
    assert logged().count("WARNING stale coverage") == 1 and HOOK not in logged()


def test_a_watcher_that_is_named_and_not_there_is_said(alert, logged):
    read_through(1)
    alert(False)
    assert "heartbeat" not in logged(), "nobody asked for one"
    alert(False, '[alerts]\nheartbeat = "my_watcher"\n')
    assert "names my_watcher for the heartbeat" in logged()


def test_slack_is_notified_by_its_providers_notifier(alert, web, monkeypatch, logged):
    with connection(
        monkeypatch,
        "alerts_slack",
        conn_type="slackwebhook",
        password=TOKEN,
        host=web.url + "/services",
    ):
        web.answers.append(403)
        with pytest.raises(NotDelivered):
            alert()
        alert(), alert(False)
    opened, resolved = web.took()
    assert web.asked[0][0] == f"/services/{TOKEN}"
    assert opened["text"].startswith("*Ledgerhouse: stale coverage: debank 0xa 0*\nWARNING stale")
    assert "said &lt;b&gt;&amp;&lt;/b&gt; {{ 7 * 7 }} &lt;!channel&gt;" in opened["text"], (
        "nobody is woken, and no template is rendered"
    )
    assert "RESOLVED stale coverage" in resolved["text"]
    assert "T0001" not in logged() and "very-secret" not in logged()


def test_mail_goes_by_its_providers_notifier_and_connection(alert, mail, monkeypatch, logged):
    smtp = dict(
        conn_type="smtp",
        host="127.0.0.1",
        port=mail.port,
        login="me",
        password=PASSWORD,
        extra={
            "disable_ssl": True,
            "disable_tls": True,
            "from_email": "books@x.example",
            "retry_limit": 0,
            "timeout": 5,
        },
    )
    to = '[alerts]\nemail_to = ["one@x.example", "two@x.example"]\n'
    with connection(monkeypatch, "alerts_smtp", **smtp):
        alert()
        assert "no email_to in [alerts]" in logged() and mail.box == []
        mail.refuses = True
        with pytest.raises(NotDelivered, match="alerts_smtp"):
            alert(rules=to)
        mail.refuses = False
        alert(rules=to), alert(rules=to), alert(False, rules=to)
    (sender, receivers, opened), (*_, resolved) = mail.box
    assert (sender, receivers) == ("books@x.example", ["one@x.example", "two@x.example"])
    assert opened["Subject"] == "Ledgerhouse: stale coverage: debank 0xa 0"
    assert resolved["Subject"] == "Ledgerhouse: resolved: stale coverage: debank 0xa 0"
    body = "".join(
        part.get_payload(decode=True).decode() for part in opened.walk() if not part.is_multipart()
    )
    assert "said &lt;b&gt;&amp;&lt;/b&gt; {{ 7 * 7 }} &lt;!channel&gt;" in body
    assert PASSWORD not in logged() and "***" in logged()


def test_no_name_of_a_strangers_adds_a_header_to_the_mail(mail, monkeypatch):
    """A token's symbol, an account or a file may hold line ends."""
    evil = "x\r\nBcc: thief@x.example\r\n\r\nPay here\u2028\x1b[2J"
    notice = incidents.Notice(
        "1", "opened", "balance_off", "debank", evil, evil, "warning", evil, NOW
    )
    host = {"host": "127.0.0.1", "port": mail.port, "login": "me", "password": PASSWORD}
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "b@x.example", "timeout": 5}
    with connection(monkeypatch, "alerts_smtp", conn_type="smtp", extra=extra, **host):
        senders = channels.channels(Rules(email_to=("one@x.example",)), logging.getLogger())
        message = channels.message_of((notice,), "sync", "r1")
        assert channels.send_message(senders, logging.getLogger(), "alerts_smtp", message)
    ((_, receivers, sent),) = mail.box
    assert receivers == ["one@x.example"] and sent["Bcc"] is None
    assert not set("\r\n\x1b\u2028") & set(message.subject)
    assert message.subject.startswith("Ledgerhouse: balance off: debank x")


def test_many_at_once_are_one_message_which_a_chat_can_hold(alert, webhook, web, monkeypatch):
    with connection(
        monkeypatch, "alerts_slack", conn_type="slackwebhook", password=TOKEN, host=web.url
    ):
        alert(300)
    bodies = web.took()
    slack = next(body["text"] for body in bodies if "text" in body)
    message = next(body for body in bodies if "incidents" in body)
    assert len(message["incidents"]) == 300
    assert message["subject"] == "Ledgerhouse: incidents: 300 opened"
    assert slack.count("WARNING") == incidents.LINES and "and 280 more, in ops.incidents" in slack
    assert len(slack) < 40_000, "Slack cuts longer ones"


def test_a_connection_that_makes_no_sense_costs_no_other(alert, webhook, monkeypatch, logged):
    for name in ("alerts_slack", "alerts_smtp"):
        monkeypatch.setenv(
            f"AIRFLOW_CONN_{name.upper()}",
            json.dumps({"conn_type": "generic", "host": "http://[no", "extra": {"headers": 7}}),
        )
    with pytest.raises(NotDelivered, match="^alerts_slack did not take"):
        alert()
    assert len(webhook.took()) == 1 and "alerts_slack did not take" in logged()


def test_the_message_leads_to_the_run_where_airflow_has_an_address(alert, webhook, monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://flow.example/a/")
    alert()
    assert webhook.took()[0]["link"] == "https://flow.example/a/dags/sync/runs/manual__1"


def test_a_killed_task_has_sent_or_sends_at_the_next_try(alert, webhook, monkeypatch):
    """Killed before the delivery, and between it and its mark: the second is sent again, by the
    same id."""

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    for name, target in (("send_message", alert_operators), ("note_sent", incidents)):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(target, name, die)
            alert()
    alert(), alert()
    ids = [i["id"] for body in webhook.took() for i in body["incidents"]]
    assert len(ids) == 2 and len(set(ids)) == 1


def test_that_alerts_do_not_work_is_sent_once_and_when_it_is_over(alert, webhook, tmp_path, logged):
    alert(False)
    good = (tmp_path / "warehouse.duckdb").read_bytes()
    (tmp_path / "warehouse.duckdb").write_bytes(b"x" * len(good))
    for number in (1, 2, 3, 3):
        with pytest.raises(duckdb.Error):
            alert(number=number)
    (tmp_path / "warehouse.duckdb").write_bytes(good)
    alert(False), alert(False)
    sent = [(i["kind"], i["event"]) for body in webhook.took() for i in body["incidents"]]
    assert sent == [("alerts_broken", "opened"), ("alerts_broken", "resolved")]
    assert not (tmp_path / alert_operators.BROKEN).exists()


@pytest.mark.parametrize("still_broken", [True, False])
def test_the_file_that_0_1_0_wrote_is_gone_on_with(alert, webhook, tmp_path, still_broken):
    """Its key was "told": who is named there gets no second message, and the one of the end."""
    alert(False)
    file, warehouse = tmp_path / alert_operators.BROKEN, tmp_path / "warehouse.duckdb"
    old = {"id": "7", "since": NOW.isoformat(), "text": "cannot be looked up"}
    file.write_text(json.dumps(old | {"told": ["alerts_webhook"]}))
    if still_broken:
        good = warehouse.read_bytes()
        warehouse.write_bytes(b"x" * len(good))
        with pytest.raises(duckdb.Error):
            alert(number=3)
        assert sealed.read(file) == old | {"sent_to": ["alerts_webhook", "log"]}
        warehouse.write_bytes(good)
    assert webhook.took() == []
    alert(False), alert(False)
    (body,) = webhook.took()
    (notice,) = body["incidents"]
    assert (notice["incident_id"], notice["event"]) == ("7", "resolved")
    assert not file.exists()


# --- late runs: reported by no task of theirs -----------------------------------------------------


@pytest.fixture
def late(tmp_path, monkeypatch):
    """late() is what Airflow calls when a run's deadline is missed, as its executor calls it."""
    from airflow.sdk.execution_time.callback_supervisor import execute_callback

    from ledgerhouse.operate.airflow.context import REPORT_LATE

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(tmp_path / "accounts.toml"))

    def report(dag="sync", run="scheduled__1", state="running") -> bool:
        run = {"dag_id": dag, "dag_run_id": run, "state": state, "queued_at": iso(NOW)}
        kwargs = {"hours": 3, "context": {"dag_run": run}}
        log = SimpleNamespace(**dict.fromkeys(("debug", "info", "exception"), lambda *_, **__: 0))
        return execute_callback(REPORT_LATE, kwargs, "", None, log)[0]

    return report


def kinds(web) -> list[tuple]:
    return [(i["kind"], i["event"], i["subject"]) for b in web.took() for i in b["incidents"]]


def test_a_run_that_hangs_with_the_warehouse_is_reported_and_named(late, webhook, tmp_path):
    with hold(tmp_path / "warehouse.duckdb", "task sync.transform of run scheduled__1"):
        assert late()
    ((_, _, body, _),) = webhook.asked
    (notice,) = body["incidents"]
    assert (notice["kind"], notice["severity"]) == ("late_run", "warning")
    assert "has not succeeded 3 hours after it was queued" in notice["text"]
    assert "held by task sync.transform of run scheduled__1 (process" in notice["text"]
    assert notice["todo"] and not (tmp_path / "warehouse.duckdb").exists(), "it opens nothing"


def test_nobody_is_blamed_for_a_lock_that_is_free(late, webhook, tmp_path):
    with hold(tmp_path / "warehouse.duckdb", "task sync.load"):
        pass
    assert late()
    assert "held by" not in webhook.took()[0]["incidents"][0]["text"]


def test_a_late_run_is_sent_once_and_that_it_is_over_by_the_dags_next_alert(alert, late, webhook):
    assert late() and late()
    alert(False), alert(False)
    assert kinds(webhook) == [
        ("late_run", event, "sync scheduled__1") for event in ("opened", "resolved")
    ]


def test_a_late_run_after_a_late_one_is_another_incident(late, webhook):
    late(), late(run="scheduled__2")
    assert [subject for *_, subject in kinds(webhook)] == ["sync scheduled__1", "sync scheduled__2"]


def test_who_was_down_is_told_by_the_next_alert_of_any_dag(alert, late, webhook, tmp_path):
    webhook.answers.append(500)
    assert not late(dag="history"), "the callback failed, and Airflow shows it so"
    alert(False), alert(False)
    assert kinds(webhook) == [("late_run", "opened", "history scheduled__1")]
    assert (tmp_path / "alerts_late_history.json").exists(), "no alert of a history has come"


def test_a_file_of_a_late_run_that_nobody_can_read_stops_no_alert(alert, webhook, tmp_path):
    for name, text in (("sync", ""), ("history", "[1]"), ("replay", '{"id": "1"}')):
        (tmp_path / f"alerts_late_{name}.json").write_text(text)
    alert()
    assert [kind for kind, *_ in kinds(webhook)] == ["stale_coverage"]


# --- [alerts] of accounts.toml --------------------------------------------------------------------


def test_the_rules_are_read_and_wrong_ones_named(tmp_path):
    file = tmp_path / "accounts.toml"
    file.write_text(
        '[alerts]\nstale_after_hours = 1.5\nbudget_at = 0.55\nslack = "ops"\n'
        'email_to = "a@x.example"\nemail_from = "b@x.example"\n'
    )
    rules = AccountsFile.read(file, "alerts").rules()
    assert rules.stale_after == timedelta(minutes=90) and rules.budget_at == Decimal("0.55")
    assert dict(rules.ways) == {"slack": "ops", "smtp": "alerts_smtp", "webhook": "alerts_webhook"}
    assert (rules.named, rules.email_to, rules.email_from) == (
        ("slack",),
        ("a@x.example",),
        "b@x.example",
    )
    file.write_text("")
    assert AccountsFile.read(file, "alerts").rules() == Rules()


@pytest.mark.parametrize(
    "line, said",
    [
        ("stale_after_hours = 0", "is 0; write hours"),
        ("stale_after_hours = true", "write hours"),
        ("budget_at = 80", "a share of the budget, such as 0.8"),
        ("budget_at = nan", "a share"),
        ('slack = "no id"', "the id of an Airflow Connection"),
        ("webhook = 7", "the id of"),
        ('email_to = ["nobody"]', "an address, or"),
        ("email_from = 1", "an address"),
        ("stale = 1", "unknown 'stale'; there are stale_after_hours, budget_at, slack"),
    ],
)
def test_a_wrong_rule_is_named(tmp_path, line, said):
    file = tmp_path / "rules.toml"
    file.write_text(f"[alerts]\n{line}\n")
    with pytest.raises(ValueError, match=said) as error:
        AccountsFile.read(file, "alerts").rules()
    assert f"{file}, [alerts]: " in str(error.value)


def test_alerts_go_on_where_a_rule_is_wrong(alert, webhook, logged):
    alert(rules="[alerts]\nbudget_at = 80\n")
    assert "budget_at is 80; write a share" in logged() and len(webhook.took()) == 1


def test_a_connection_that_is_named_and_missing_is_reported(alert, logged):
    alert(rules='[alerts]\nslack = "ops_chat"\n')
    assert "names ops_chat for alerts by slack, and Airflow has no such Connection" in logged()
    assert "alerts_smtp" not in logged(), "those that nobody named need not be there"
