"""The benchmarks run, have a row with a bound for every promise, and keep each other's rows."""

from __future__ import annotations

import ast
import re
import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest

from ledgerhouse.config import Maintenance
from tests.benchmarks import bench_against, bench_load, bench_soak, run

# What was promised, as a pattern of the code that names the row.
PROMISED = {
    "dlt": "against dlt's default merge",
    "pandas": "INSERT OR REPLACE with a primary key, {into}",
    "CREATE TABLE AS": "audited upsert against CREATE TABLE AS",
    "an earlier revision": "{what} against the code of {revision}",
    "growth of cycles": "sync cycle at {large:,} against {small:,}",
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
    monkeypatch.setattr(
        run, "measure", lambda name, *more: [measured(name, holds=name != "load", how=str(more))]
    )
    assert run.main(["scale"], tmp_path / "R.md") == 0
    assert run.main(["--against", "v1"], tmp_path / "R.md") == 0
    assert [(r["bench"], r["how"]) for r in run.read(tmp_path / "R.md")] == [
        ("against", "('v1',)"),
        ("scale", "()"),
    ]
    assert run.main(["against"], tmp_path / "R.md") == 2, "it needs a revision"
    assert run.main(["load"], tmp_path / "R.md") == 1
    assert run.main(["lload"], tmp_path / "R.md") == 2


@pytest.mark.slow
def test_the_bookkeeping_of_a_few_syncs_is_all_there_and_what_is_old_goes(tmp_path):
    var, work = tmp_path / "var", tmp_path / "work"
    var.mkdir(), work.mkdir()
    lived = bench_soak.soak(var, 4)
    assert lived.rows() == {
        "raw.exchanges_ledger": 4 * 2 * bench_soak.RECORDS,
        "ops.api_calls": 4 * 2 * bench_soak.CALLS,
        "ops.sync_runs": 4 * len(bench_soak.TASKS),
        "ops.checkpoints": 4 * bench_soak.EXPECTATIONS,
    }
    before = {name: each.files for name, each in lived.files().items()}
    assert before == {
        "landing": 4 * 2 + 1,  # and the order of loads
        "calls": 4 * 2,
        "attempts": 0,
        "airflow": 4 * len(bench_soak.TASKS),
        "warehouse.duckdb": 1,
        "others": 1,  # the lock
    }
    assert all(each["ours"].startswith("**") for each in bench_soak.report(lived, edge=2))
    lived.now += timedelta(days=40)
    lived.maintain(Maintenance(call_log_days=32))
    after = {name: each.files for name, each in lived.files().items()}
    assert after == before | {"calls": 0, "airflow": 0}, "a landed file is never removed"
    lived.now += timedelta(days=60)
    lived.maintain()
    assert lived.files()["landing"].files == 1 + 1, "but packed: an archive, and the order of loads"
    assert "× the CPU" in bench_soak.replayed(lived, work, loads=2, repeats=1)["ours"].replace(
        "*", ""
    )
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


CODE = """
class Cycles:
    def __init__(self, history):
        self.size, self.turn = history
    def sync(self):
        self.turn += 1
        print("what the code prints is not an answer")
        return {{"load": {seconds} * self.turn, "check": self.size / 1000, "cpu": 1.0}}
    def late(self):
        raise RuntimeError("late days fail")
"""
HISTORY = """
from contextlib import nullcontext
def postgres():
    return nullcontext("uri")
def warehouse(size, uri):
    return size, {turn}
"""


def side(folder: Path, name: str, turn: int, seconds: float) -> bench_against.Side:
    """A side of the benchmark that runs code of ours, not that of a revision."""
    package = folder / name / "tests" / "benchmarks"
    package.mkdir(parents=True)
    for each in (package.parent, package):
        (each / "__init__.py").touch()
    (package / "bench_scale.py").write_text(CODE.format(seconds=seconds))
    (package / "history.py").write_text(HISTORY.format(turn=turn))
    return bench_against.Side(name, folder / name, Path(sys.executable), folder, [1000, 2000])


def test_both_sides_run_their_own_code_in_turn_over_as_many_cycles(tmp_path, capfd):
    with side(tmp_path, "now", 3, 1.0) as now, side(tmp_path, "then", 5, 2.0) as then:
        sides = {"now": now, "then": then}
        bench_against._catch_up(sides)
        cycles = bench_against._measure(sides, "sync", [1000, 2000], repeats=2)
        with pytest.raises(RuntimeError, match="the side of then ended with 1"):
            then.cycle("late", 1000)
    # Five cycles there were, a sixth warms up: these are the seventh and the eighth.
    assert [t["load"] for t in cycles["now", 1000]] == [7.0, 8.0]
    assert [t["load"] for t in cycles["then", 2000]] == [14.0, 16.0]
    made = bench_against._row("a cycle", "v1", cycles["now", 1000], cycles["then", 1000])
    assert (
        made["ours"].startswith("**0.53×**: 8.50 s (8.00–9.00) against 16.00 s") and made["holds"]
    )
    slower = bench_against._row("a cycle", "v1", cycles["then", 1000], cycles["now", 1000])
    assert slower["ours"].startswith("**1.88×**") and not slower["holds"]
    assert "late days fail" in capfd.readouterr().err


def test_an_earlier_revision_gets_the_packages_that_only_it_asks_for():
    hashed = (
        "pytest==0.1 \\\n    --hash=sha256:ab\nno-such_package[all]==2.0 ; python_version >= '3' \\"
    )
    other = "# by uv\n-e .\nanother==1 ; sys_platform == 'win31'\n"
    assert bench_against.missing(f"{hashed}\n{other}") == ["no-such_package==2.0"]
