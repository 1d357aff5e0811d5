"""The books as one file."""

from __future__ import annotations

import shutil

import duckdb
import pytest

from ledgerhouse.publish.books import open_books
from ledgerhouse.publish.export import export
from ledgerhouse.publish.publish import TABLES, publish
from tests.ledgerhouse.publish.scene import contents

COMMENTS = (
    "SELECT schema_name, table_name, column_name, data_type, comment FROM duckdb_columns() "
    "WHERE schema_name IN ('curated', 'raw', 'ops') AND database_name = current_database() ORDER BY ALL"
)


def test_the_file_holds_the_books_and_needs_nothing_else(con, tmp_path):
    publish(con, tmp_path / "published", [])
    with open_books(tmp_path / "published") as books:
        wanted, comments = contents(books), books.execute(COMMENTS).fetchall()
    seen = []
    done = export(tmp_path / "one.duckdb", tmp_path / "published", on_table=seen.append)
    shutil.rmtree(tmp_path / "published")
    assert [p.name for p in tmp_path.iterdir()] == ["one.duckdb"]
    with duckdb.connect(str(tmp_path / "one.duckdb"), read_only=True) as one:
        assert contents(one) == wanted
        assert one.execute(COMMENTS).fetchall() == comments
        assert one.execute("SELECT count(*) FROM published").fetchone() == (1,)
        assert one.execute("SELECT count(*) FROM ops.reached").fetchone()
    assert set(seen) == {table.name for table in TABLES} and done.tables == len(TABLES)
    assert done.rows == sum(map(len, wanted.values()))


def test_a_file_that_is_there_is_only_replaced_when_asked_and_then_whole(con, tmp_path):
    publish(con, tmp_path / "published", [])
    (file := tmp_path / "one.duckdb").write_text("mine")
    with pytest.raises(FileExistsError, match="name another file, or use --force"):
        export(file, tmp_path / "published")
    shutil.move(tmp_path / "published", tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        export(file, tmp_path / "published", overwrite=True)
    assert file.read_text() == "mine"
    export(file, tmp_path / "away", overwrite=True)
    with duckdb.connect(str(file), read_only=True) as one:
        assert one.execute("SELECT count(*) FROM curated.tx_unified").fetchone()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        export(tmp_path / "nowhere" / "x.duckdb", tmp_path / "away")
