"""How Airflow finds our commands, and those that write: replay and export."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys

import pytest

from ledgerhouse.operate.airflow.provider import get_provider_info
from ledgerhouse.publish.books import open_books
from ledgerhouse.transform.sqlmesh_context import FILE
from stack.commands import attached
from stack.lock import lock

pytestmark = pytest.mark.slow


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
