"""`from ledgerhouse import files, frame`: what analysts import, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ledgerhouse
from ledgerhouse.publish import dataframe

ROOT = Path(__file__).parents[2]
COSTLY = ("airflow", "duckdb", "pandas", "sqlmesh", "great_expectations", "sqlalchemy")


def loaded_by(statement: str) -> list[str]:
    """Which of the costly packages a new interpreter has loaded after `statement`."""
    code = f"import sys\n{statement}\nprint(*sorted({set(COSTLY)} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    "statement", ["import ledgerhouse", "from ledgerhouse import files, frame"]
)
def test_importing_the_package_loads_nothing_costly(statement):
    """DAG files import it every half minute; pandas and duckdb come with the first call."""
    assert loaded_by(statement) == []


def test_the_front_door_opens_on_what_analysts_use():
    assert ledgerhouse.frame is dataframe.frame and ledgerhouse.files is dataframe.files
    assert {"files", "frame"} <= set(ledgerhouse.__all__)
    for name in ledgerhouse.__all__:
        assert getattr(ledgerhouse, name)
    with pytest.raises(AttributeError, match="no attribute 'fraem'"):
        _ = ledgerhouse.fraem


@pytest.mark.parametrize("package", ["extract", "ledgerhouse"])
def test_type_checkers_read_our_annotations(package):
    assert (ROOT / package / "py.typed").exists()
