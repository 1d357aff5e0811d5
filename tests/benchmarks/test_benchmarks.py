"""The benchmarks run, have a row with a bound for every promise, and keep each other's rows."""

from __future__ import annotations

import ast
import re
from datetime import timedelta
from importlib import import_module

import pytest

from ledgerhouse.config import Maintenance
from tests.benchmarks import bench_load, bench_soak, run

# What was promised, as a pattern of the code that names the row.
PROMISED = {
    "dlt": "against dlt's default merge",
    "pandas": "INSERT OR REPLACE with a primary key, {into}",
    "CREATE TABLE AS": "audited upsert against CREATE TABLE AS",
    "growth of load and transform": r"at {large:,} of history against {small:,}: {step}",
    "cycle": r"one sync cycle \(.*at {large:,}",
    "late days": "{LATE_DAYS} scattered late days at {large:,}",
    "memory": "peak memory loading {many:,} records against {few:,}",
    "publishing": "publishing a sync of",
    "fetch": "limiter",
    "wallet": "DeBank wallet",
    "calls": "minimum",
    "CPU": "CPU a page",
    "five years": "a cycle of load, mirror and checks after",
    "logs in five years": "logs and call logs that",
    "growth in five years": "what a year of syncs adds that stays",
    "encrypted loading": "from an encrypted landing into an encrypted warehouse",
    "encrypted cycle": "{history:,} of history, encrypted against plain text",
    "Airflow": "warm sync run through Airflow",
}


def rows_in_code() -> list[tuple[str, str]]:
    """The name and the bound of each row(…) of the benchmarks, as they are written in the code."""
    found = []
    for name in run.names():
        tree = ast.parse((run.HERE / f"bench_{name}.py").read_text())
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            written = {  # what a variable that is given to row() holds
                target.id: ast.unparse(node.value)
                for node in ast.walk(function)
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            found += [
                tuple(written.get(text := ast.unparse(call.args[at]), text) for at in (0, 2))
                for call in ast.walk(function)
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "row"
            ]
    return found


@pytest.mark.parametrize("name", run.names())
def test_every_benchmark_imports_and_has_rows(name):
    assert callable(import_module(f"tests.benchmarks.bench_{name}").rows)


@pytest.mark.parametrize("promise", PROMISED)
def test_every_promise_has_its_row_with_a_bound(promise):
    bounds = [bound for what, bound in rows_in_code() if re.search(PROMISED[promise], what)]
    assert bounds, f"no benchmark has a row on {promise}"
    assert all(re.search(r"\d|BOUNDS|text", bound) for bound in bounds), bounds


def measured(bench: str, day: str = "2026-01-01", **more) -> dict:
    new = run.row(f"{bench} | its row", "**2 s**", "≤ 3 s", "", True, f"how {bench} is measured")
    return {**new, "bench": bench, "day": day, "load": "0.5", "machine": "an old one", **more}


def test_what_is_written_is_read_again(tmp_path):
    rows = [
        measured("load", how="line 1\nline 2"),
        measured("scale", holds=None, how="", machine="a new one; 2 CPUs, 24 GB"),
        measured("scale", holds=False, machine="a new one; 2 CPUs, 24 GB"),
    ]
    run.write(rows, tmp_path / "R.md")
    rows[0]["how"] = "line 1 line 2"
    assert run.read(tmp_path / "R.md") == rows
    assert run.read(tmp_path / "none.md") == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_partial_run_keeps_all_other_rows_and_a_failed_one_keeps_its_own(
    tmp_path, monkeypatch, fails
):
    file, before = tmp_path / "R.md", [measured(name) for name in run.names()]
    run.write(before, file)
    new = [measured("load", day="2026-02-02"), measured("load", what="another row")]
    monkeypatch.setattr(run, "measure", lambda name: None if fails else new)
    assert run.main(["load"], file) == (1 if fails else 0)
    others = [each for each in before if each["bench"] != "load"]
    after = run.read(file)
    assert [each for each in after if each["bench"] != "load"] == others
    assert [each for each in after if each["bench"] == "load"] == (
        [measured("load")] if fails else new
    )


def test_a_bound_that_does_not_hold_and_a_name_that_is_unknown_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "measure", lambda name: [measured(name, holds=name != "load")])
    assert run.main(["scale"], tmp_path / "R.md") == 0
    assert run.main(["load"], tmp_path / "R.md") == 1
    assert run.main(["lload"], tmp_path / "R.md") == 2


@pytest.mark.slow
def test_the_bookkeeping_of_a_few_syncs_is_all_there_and_what_is_old_goes(tmp_path):
    lived = bench_soak.soak(tmp_path, 4)
    assert lived.rows() == {
        "raw.exchanges_ledger": 4 * 2 * bench_soak.RECORDS,
        "ops.api_calls": 4 * 2 * bench_soak.CALLS,
        "ops.sync_runs": 4 * len(bench_soak.TASKS),
        "ops.checkpoints": 4 * bench_soak.EXPECTATIONS,
    }
    before = {name: count for name, (count, _) in lived.files().items()}
    assert before == {
        "landing": 4 * 2 + 1,  # and the order of loads
        "calls": 4 * 2,
        "attempts": 0,
        "airflow": 4 * len(bench_soak.TASKS),
        "warehouse.duckdb": 1,
    }
    assert all(each["ours"].startswith("**") for each in bench_soak.report(lived, edge=2))
    lived.now += timedelta(days=40)
    lived.maintain(Maintenance(call_log_days=32))
    after = {name: count for name, (count, _) in lived.files().items()}
    assert after == before | {"calls": 0, "airflow": 0}, "a landed file is never removed"
    assert lived.rows()["ops.api_calls"] == 4 * 2 * bench_soak.CALLS


def test_the_smallest_benchmark_gives_numbers_and_a_table(tmp_path):
    landing = bench_load.landed(tmp_path / "source", records=200, files=2)
    smallest = bench_load.against_create_table_as(tmp_path, landing, records=200, repeats=1)
    assert re.match(r"\*\*\d+ %\*\*: \d+\.\d\d s .* against \d+\.\d\d s", smallest["ours"])
    assert smallest["holds"] in (True, False)
    where = {"bench": "load", "day": "today", "load": "0", "machine": "this one"}
    run.write([{**smallest, **where}], tmp_path / "R.md")
    written = (tmp_path / "R.md").read_text()
    assert smallest["ours"] in written and smallest["how"] in written
