"""Model changes as docs/model-changes.md walks them: a dev environment never touches production,
a version gone back to is row for row the old one, and the days loaded meanwhile are not stale."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from ledgerhouse.publish.publish import publish
from ledgerhouse.transform import sqlmesh_context
from ledgerhouse.transform import touched_days as tf
from tests.helpers.recomputed import assert_curated_is_the_truth, load_batch, opened
from tests.ledgerhouse.transform.test_touched_days import settle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
CURATED = ("tx_unified", "daily_flows", "daily_balances", "assets")
ADDED = (
    "  CAST(fills AS INT) AS fills\n",
    "  CAST(fills AS INT) AS fills,\n  CAST(amount > 0 AS BOOLEAN) AS is_in\n",
)
DESCRIBED = (
    "    fills = 'fills of the order'\n",
    "    fills = 'fills of the order',\n    is_in = 'comes in'\n",
)
REMOVED = ("  CAST(fills AS INT) AS fills\n", "")
LAST = ("  CAST(ref AS VARCHAR) AS ref,\n", "  CAST(ref AS VARCHAR) AS ref\n")
RETYPED = ("CAST(price AS DECIMAL(38, 18)) AS price", "CAST(price AS VARCHAR) AS price")
DESCRIBED_NO_MORE = (",\n    fills = 'fills of the order'\n", "\n")


@pytest.fixture
def home(lived_in, tmp_path, monkeypatch):
    """A warehouse, and the project in a copy that may be edited."""
    shutil.copytree(lived_in, tmp_path / "var")
    shutil.copytree(sqlmesh_context.PROJECT, tmp_path / "project")
    monkeypatch.setattr(sqlmesh_context, "PROJECT", tmp_path / "project")
    return tmp_path / "var" / sqlmesh_context.FILE


def edit(*changes: tuple[str, str]) -> None:
    model = sqlmesh_context.PROJECT / "models" / "curated" / "tx_unified.sql"
    text = model.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    model.write_text(text)


def restore() -> None:
    shutil.copytree(
        ROOT / "sqlmesh_project" / "models", sqlmesh_context.PROJECT / "models", dirs_exist_ok=True
    )


def plan(warehouse: Path, *args: str) -> list[str]:
    """`make plan` in this process; the models it evaluated."""
    with opened(warehouse) as con:
        newest = sqlmesh_context.newest_day(con)
    with sqlmesh_context.context(warehouse) as (ctx, evaluations):
        ctx.load()
        ctx.plan(
            args[0] if args else "prod",
            execution_time=str(newest + tf.DAY),
            auto_apply=True,
            no_prompts=True,
            skip_tests=True,
            no_diff=True,
            skip_linter=True,
            include_unmodified="--include-unmodified" in args,
        )
    return list(evaluations.intervals)


def content(warehouse: Path, schema: str = "curated") -> dict[str, tuple]:
    """Columns, types and rows of the views of a schema."""
    with opened(warehouse) as con:
        found = {}
        for name in CURATED:
            cursor = con.execute(f"FROM {schema}.{name}")
            found[name] = ([d[:2] for d in cursor.description], sorted(cursor.fetchall(), key=repr))
        return found


def physical(warehouse: Path) -> dict[str, str]:
    """What the views of production read."""
    with opened(warehouse) as con:
        return dict(
            con.execute(
                "SELECT view_name, sql FROM duckdb_views() WHERE schema_name = 'curated'"
            ).fetchall()
        )


@pytest.mark.parametrize(
    "name, changes",
    {
        "additive": (ADDED, DESCRIBED),
        "destructive": (REMOVED, LAST, DESCRIBED_NO_MORE, RETYPED),
    }.items(),
    ids=("additive", "destructive"),
)
def test_a_change_goes_through_dev_to_prod_and_back(home, tmp_path, name, changes):
    books = tmp_path / "published"
    with opened(home) as con:
        publish(con, books, [])
    old, views = content(home), physical(home)
    edit(*changes)

    assert "curated.tx_unified" in plan(home, "dev", "--include-unmodified")
    assert content(home) == old and physical(home) == views, "dev changed production"
    dev = content(home, "curated__dev")
    columns = [c for c, _ in dev["tx_unified"][0]]
    assert ("is_in" in columns) == (name == "additive")
    assert ("fills" in columns) == (name == "additive")
    assert len(dev["tx_unified"][1]) == len(old["tx_unified"][1])
    assert dev["daily_flows"] == old["daily_flows"]
    with opened(home) as con:
        assert "curated.tx_unified" not in publish(con, books, []).tables, "dev was published"

    assert "curated.tx_unified" not in plan(home), "prod built again what dev had built"
    assert content(home) == content(home, "curated__dev") == dev
    with opened(home) as con:  # the books follow at the next publish, whatever days it is about
        assert "curated.tx_unified" in publish(con, books, []).tables
    with opened(books / "books.duckdb") as con:
        assert [d[0] for d in con.execute("FROM curated.tx_unified").description] == columns

    with opened(home) as con:  # life goes on in the new version
        load_batch(con, random.Random(4), datetime(2077, 2, 21), 1)
    settle(home)
    now = content(home)
    assert now["tx_unified"] != dev["tx_unified"]

    restore()
    plan(home)
    assert physical(home)["tx_unified"] == views["tx_unified"], "the old table is used again"
    assert_curated_is_the_truth(home)  # also the days that were loaded while it was not
    assert content(home)["tx_unified"][0] == old["tx_unified"][0]
    with opened(home) as con:
        publish(con, books, [])
    with opened(books / "books.duckdb") as con:
        assert "fills" in [d[0] for d in con.execute("FROM curated.tx_unified").description]


def test_going_back_immediately_is_row_for_row_and_builds_nothing(home):
    old = content(home)
    edit(ADDED, DESCRIBED)
    plan(home)
    assert content(home) != old
    restore()
    assert "curated.tx_unified" not in plan(home)
    assert content(home) == old


KILLS = {
    "before the new table is filled": "sqlmesh.core.engine_adapter.duckdb.DuckDBEngineAdapter._insert_append_query",
    "before the environment is recorded": "sqlmesh.core.state_sync.db.facade.EngineAdapterStateSync.finalize",
}
KILLER = """
import importlib, os, signal, sys
from pathlib import Path
sys.path.insert(0, ".")
from ledgerhouse.transform import sqlmesh_context
from ledgerhouse.transform import touched_days as tf
sqlmesh_context.PROJECT = Path(sys.argv[2])
owner, name = sys.argv[1].rsplit(".", 1)
module, cls = owner.rsplit(".", 1)
setattr(getattr(importlib.import_module(module), cls), name,
        lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
from tests.ledgerhouse.transform import test_model_changes
test_model_changes.plan(Path(sys.argv[3]))
"""


@pytest.mark.parametrize("point", KILLS)
def test_killed_in_a_plan_production_is_whole_and_the_next_plan_heals(home, point):
    old = content(home)
    edit(ADDED, DESCRIBED)
    done = subprocess.run(
        [sys.executable, "-c", KILLER, KILLS[point], str(sqlmesh_context.PROJECT), str(home)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr[-2000:]
    there = content(home)
    assert {n: rows for n, (_, rows) in there.items() if n != "tx_unified"} == {
        n: rows for n, (_, rows) in old.items() if n != "tx_unified"
    }
    assert len(there["tx_unified"][1]) == len(old["tx_unified"][1])
    plan(home)
    assert "is_in" in [c for c, _ in content(home)["tx_unified"][0]]
    assert_curated_is_the_truth(home)
    with opened(home) as con:
        load_batch(con, random.Random(9), datetime(2077, 2, 21), 1)
    settle(home)
    assert_curated_is_the_truth(home)


def test_a_forward_only_removal_is_refused_and_production_kept(home):
    """Why the walk does not use --forward-only: it alters production's own table."""
    from sqlmesh.utils.errors import PlanError

    old = content(home)
    edit(REMOVED, LAST, DESCRIBED_NO_MORE)
    with (
        sqlmesh_context.context(home) as (ctx, _),
        pytest.raises(PlanError, match="destructive change"),
    ):
        ctx.load()
        ctx.plan(
            "prod",
            forward_only=True,
            auto_apply=True,
            no_prompts=True,
            skip_tests=True,
            no_diff=True,
            skip_linter=True,
        )
    assert content(home) == old


def test_make_models_fails_where_a_unit_test_does(home):
    """That the linter does is the other half, of the same lines; tests/sqlmesh_project/test_models.py runs both."""
    from stack import commands

    edit(("CAST(amount AS DECIMAL", "CAST(-amount AS DECIMAL"))
    assert commands.models() != 0
