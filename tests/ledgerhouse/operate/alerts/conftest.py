"""Books to spoil, receivers on this machine, and the task that alerts."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from types import SimpleNamespace

import duckdb
import pytest

from extract.core.interval import Interval
from ledgerhouse.check.checkpoints import CheckResult, record
from ledgerhouse.config import Account, Rules
from ledgerhouse.operate.airflow.operators.alert import AlertOperator
from ledgerhouse.operate.alerts import conditions
from ledgerhouse.operate.alerts.conditions import KINDS, Incident, present_incidents
from ledgerhouse.warehouse import schema
from tests.helpers.receiver import receiver
from tests.ledgerhouse.operate.alerts.scene import HOOK, MINE, NOW, TOKEN, connection

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
