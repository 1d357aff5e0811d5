"""The benchmarks run, and RESULTS.md answers for every row that was promised."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from tests.benchmarks import bench_load, run

# What was promised, as words that the row's first cell has.
PROMISED = {
    "dlt": "against dlt's default merge",
    "pandas, empty": "INSERT OR REPLACE with a primary key, empty",
    "pandas, duplicates": "INSERT OR REPLACE with a primary key, all duplicates",
    "CREATE TABLE AS": "audited upsert against CREATE TABLE AS",
    "growth of the load": r"10,000,000 of history against 1,000,000: load",
    "growth of the transform": r"10,000,000 of history against 1,000,000: transform",
    "cycle": r"sync cycle \(load, transform, check, publish\) at 10,000,000",
    "late days": "20 scattered late days at 10,000,000",
    "memory": "peak memory loading 1,000,000 records against 100,000",
    "fetch": "limiter",
    "wallet": "DeBank wallet",
    "calls": "minimum",
    "Airflow": "warm sync run through Airflow",
}


def table() -> list[list[str]]:
    """The rows of RESULTS.md's table, each a list of its cells."""
    lines = [line for line in run.RESULTS.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[1:]]


@pytest.mark.parametrize("name", run.names())
def test_every_benchmark_imports_and_has_rows(name):
    assert callable(import_module(f"tests.benchmarks.bench_{name}").rows)


@pytest.mark.parametrize("row", PROMISED)
def test_every_promise_has_its_row_with_a_figure_and_a_bound(row):
    found = [cells for cells in table() if re.search(PROMISED[row], cells[0])]
    assert found, f"RESULTS.md has no row on {row}: run `make bench`"
    for cells in found:
        assert len(cells) == 5 and re.search(r"\d", cells[1]) and re.search(r"\d", cells[2])
        assert cells[4] in run.HOLDS.values()


def test_the_smallest_benchmark_gives_numbers_and_a_table(tmp_path):
    landing = bench_load.landed(tmp_path / "source", records=200, files=2)
    measured = bench_load.against_create_table_as(tmp_path, landing, records=200, repeats=1)
    assert re.match(r"\*\*\d+ %\*\*: \d+\.\d\d s .* against \d+\.\d\d s", measured["ours"])
    assert measured["holds"] in (True, False)
    run.write([{**measured, "bench": "load", "day": "today", "load": 0}], tmp_path / "R.md")
    written = (tmp_path / "R.md").read_text()
    assert measured["ours"] in written and measured["how"] in written
