"""The tasks of maintenance, executed: they do their work, or say in words why not."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from extract.core.sealed import Damaged
from extract.fetch import archives, landing
from ledgerhouse.load.loader import load
from ledgerhouse.operate import retention
from ledgerhouse.operate.airflow.operators import maintain
from ledgerhouse.warehouse.connection import WarehouseBusy, hold, open_warehouse
from tests.ledgerhouse.load.test_damage import MONTHS, SOURCES, land

TI = SimpleNamespace(
    dag_id="maintenance", run_id="r", task_id="t", map_index=-1, try_number=1, max_tries=2
)
NOW = datetime.now(UTC)


@pytest.fixture
def var(tmp_path, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(tmp_path / "accounts.toml"))
    (tmp_path / "accounts.toml").write_text("[maintenance]\ntask_log_days = 5\n")
    return tmp_path


def execute(kind, name: str):
    return kind(task_id=name).execute({"ti": TI})


def old(path, days: int):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    at = (NOW - timedelta(days=days)).timestamp()
    os.utime(path, (at, at))
    return path


def test_logs_of_tasks_and_of_parsing_have_ages_of_their_own(var, monkeypatch):
    logs = var / "logs"
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(logs))
    parsing = str(logs / "dag_processor")
    monkeypatch.setenv("AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY", parsing)
    gone = [
        old(logs / "dag_id=sync/run_id=1/task_id=a/attempt=1.log", 6),
        old(logs / "executor_callbacks/sync/1/2", 6),
        old(logs / "dag_processor/2026-01-01/dags/sync.py.log", 8),
    ]
    kept = [
        old(logs / "dag_id=sync/run_id=2/task_id=a/attempt=1.log", 4),
        old(logs / "dag_processor/2026-01-02/dags/sync.py.log", 6),
        old(logs / "mine.txt", 900),
    ]
    assert execute(maintain.RemoveLogsOperator, "logs") == {
        "logs of tasks": 2,
        "logs of parsing": 1,
    }
    assert [p.exists() for p in gone] == [False] * 3 and [p.exists() for p in kept] == [True] * 3


def test_files_and_compaction_take_their_turn_at_the_warehouse(var):
    with open_warehouse(var / "warehouse.duckdb", owner="test"):
        pass
    old(var / "landing/inbox/.x.part", 2)
    assert execute(maintain.RemoveFilesOperator, "files") == {
        "call logs": 0,
        "records of attempts": 0,
        "drafts": 1,
    }
    assert execute(maintain.CompactOperator, "compact")["after"] > 0


def landed(var, months):
    root = var / "landing"
    files = [land(root, month) for month in months]
    with open_warehouse(var / "warehouse.duckdb", owner="test") as con:
        load(con, root, SOURCES)
    for file in landing.archived(root).values():
        at = (NOW - timedelta(days=63)).timestamp()
        os.utime(file, (at, at))
    return [file.name for file in files]


def test_old_landed_files_are_packed_while_nobody_else_holds_the_warehouse(var):
    names = landed(var, MONTHS[:2])
    with hold(var / "warehouse.duckdb", "a load"), pytest.raises(WarehouseBusy):
        retention.landed(var / "landing", var / "warehouse.duckdb", NOW, "test", wait_s=0)
    assert set(landing.archived(var / "landing")) == set(names)
    assert execute(maintain.PackLandedFilesOperator, "landed") == {"landed files": 2}
    assert landing.archived(var / "landing") == {} and set(archives.kept(var / "landing")) == {
        *names
    }


def test_a_damaged_landed_file_is_named_and_keeps_no_other_from_its_archive(var):
    names = landed(var, MONTHS[:2])
    file = landing.archived(var / "landing")[names[0]]
    file.write_bytes(file.read_bytes()[:-1])
    at = (NOW - timedelta(days=63)).timestamp()
    os.utime(file, (at, at))
    with pytest.raises(Damaged, match=f"1 of the landed files.*{names[0]}.*warehouse verify"):
        execute(maintain.PackLandedFilesOperator, "landed")
    assert list(landing.archived(var / "landing")) == [names[0]]


def test_before_the_first_sync_there_is_nothing_to_compact(var):
    with pytest.raises(AirflowSkipException, match="no warehouse yet"):
        execute(maintain.CompactOperator, "compact")
    assert not (var / "warehouse.duckdb").exists()


def test_a_wrong_setting_fails_in_words(var):
    (var / "accounts.toml").write_text("[maintenance]\ntask_log_days = 0\n")
    with pytest.raises(AirflowFailException, match="task_log_days is 0; write a whole number"):
        execute(maintain.RemoveLogsOperator, "logs")


def test_without_the_databases_address_the_command_is_said(var):
    with pytest.raises(AirflowSkipException, match="airflow db clean --clean-before-timestamp"):
        execute(maintain.CleanAirflowRowsOperator, "airflow_rows")


@pytest.mark.slow
def test_old_rows_leave_airflows_database_also_where_a_task_may_not_open_it(var, monkeypatch):
    uri = f"sqlite:///{var}/airflow.db"
    env = {**os.environ, "AIRFLOW_HOME": str(var), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": uri}
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(command, env=env, check=True, capture_output=True)
    with sqlite3.connect(var / "airflow.db") as con:
        for event, days in (("old", 91), ("young", 89)):
            at = (NOW - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.%f")
            con.execute("INSERT INTO log (dttm, event) VALUES (?, ?)", [at, event])
    monkeypatch.setenv("AIRFLOW_HOME", str(var))
    monkeypatch.setenv("LEDGERHOUSE_METADATA_URI", uri)
    # As Airflow leaves it to the processes of tasks.
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    execute(maintain.CleanAirflowRowsOperator, "airflow_rows")
    with sqlite3.connect(var / "airflow.db") as con:
        left = {event for (event,) in con.execute("SELECT event FROM log")}
        tables = {name for (name,) in con.execute("SELECT name FROM sqlite_master")}
    assert "old" not in left and "young" in left
    assert not [name for name in tables if name.startswith("_airflow_deleted")]
