"""Compaction of the warehouse file: smaller, the same rows, and never without one of the two."""

from __future__ import annotations

import os

import duckdb
import pytest

from ledgerhouse.warehouse import compaction
from ledgerhouse.warehouse.compaction import compact
from ledgerhouse.warehouse.connection import open_warehouse

LOADS = 40


@pytest.fixture
def warehouse(tmp_path):
    """A warehouse after many small loads, most of whose rows were replaced since."""
    path = tmp_path / "warehouse.duckdb"
    for number in range(LOADS):
        with open_warehouse(path, owner="test") as con:
            con.execute("CREATE SCHEMA IF NOT EXISTS own")
            con.execute("CREATE TABLE IF NOT EXISTS own.t (id BIGINT, text VARCHAR)")
            con.execute(
                "INSERT INTO own.t SELECT range + ? * 3000, md5(range::VARCHAR) FROM range(3000)",
                [number],
            )
            con.execute("DELETE FROM own.t WHERE id < ?", [(number - 5) * 3000])
    with open_warehouse(path, owner="test") as con:
        con.execute("COMMENT ON TABLE own.t IS 'what it holds'")
        con.execute("CREATE VIEW own.v AS SELECT id FROM warehouse.own.t")
        con.execute("CREATE MACRO own.m(a) AS a + 1")
    return path


def content(path) -> tuple:
    with open_warehouse(path, owner="test", read_only=True) as con:
        return (
            con.execute("SELECT count(*), sum(id), min(text), max(text) FROM own.t").fetchall(),
            con.execute("SELECT own.m(count(*)) FROM own.v").fetchall(),
            con.execute(
                "SELECT schema_name, table_name, comment FROM duckdb_tables() WHERE NOT internal "
                "ORDER BY ALL"
            ).fetchall(),
        )


def groups(path) -> int:
    with open_warehouse(path, owner="test", read_only=True) as con:
        return con.execute(
            "SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('own.t')"
        ).fetchall()[0][0]


def test_many_small_row_groups_become_one_and_the_rows_stay(warehouse):
    before, many = content(warehouse), groups(warehouse)
    done = compact(warehouse, owner="test")
    assert groups(warehouse) < many / 3 and content(warehouse) == before
    assert not done.rewritten, "a small file is not worth a copy"


def test_a_file_that_is_mostly_free_is_copied_and_smaller(warehouse):
    before, size = content(warehouse), warehouse.stat().st_size
    done = compact(warehouse, owner="test", least_free=1)
    assert done.rewritten and done.before == size and done.after == warehouse.stat().st_size
    assert done.after < size / 2 and content(warehouse) == before
    assert not (warehouse.parent / compaction.FOLDER).exists()
    assert not compact(warehouse, owner="test", least_free=1).rewritten, "nothing is free any more"


def test_a_loader_goes_on_in_the_copy(warehouse):
    compact(warehouse, owner="test", least_free=1)
    with open_warehouse(warehouse, owner="test") as con:
        con.execute("INSERT INTO own.t VALUES (1, 'x')")
    assert content(warehouse)[0][0][0] == 5 * 3000 + 3000 + 1


@pytest.mark.parametrize("where", ["copy", "replace"])
def test_killed_anywhere_the_warehouse_is_as_it_was(warehouse, monkeypatch, where):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    before = content(warehouse)
    target, name = {"copy": (compaction, "_rows"), "replace": (os, "replace")}[where]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(target, name, die)
        compact(warehouse, owner="test", least_free=1)
    assert content(warehouse) == before
    assert compact(warehouse, owner="test", least_free=1).rewritten


def test_a_copy_that_is_not_the_same_is_not_taken(warehouse, monkeypatch):
    before, rows = content(warehouse), compaction._rows
    monkeypatch.setattr(
        compaction,
        "_rows",
        lambda con, name: rows(con, name) | ({"own.t": 7} if name == "draft" else {}),
    )
    with pytest.raises(RuntimeError, match=r"differs in own\.t; the file is as it was"):
        compact(warehouse, owner="test", least_free=1)
    assert content(warehouse) == before


def test_without_room_for_the_copy_the_file_stays(warehouse, monkeypatch):
    usage = compaction.shutil.disk_usage(warehouse.parent)
    monkeypatch.setattr(compaction.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert not compact(warehouse, owner="test", least_free=1).rewritten


def test_the_copy_has_the_format_of_a_new_warehouse(warehouse):
    compact(warehouse, owner="test", least_free=1)
    with duckdb.connect(str(warehouse), read_only=True) as con:
        ((tags,),) = con.execute(
            "SELECT tags FROM duckdb_databases() WHERE NOT internal"
        ).fetchall()
    assert "1.2.0" in str(tags)
