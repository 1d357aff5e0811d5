"""The published books written again under the key that is set, or none: the same rows, no other.

    reencrypt(root) -> int       files written; 0 where all are as they should be, or nothing is there

Files are read and written one by one, and the new books take the place of the old by one rename,
as in a publish. What they have dropped is removed at once: a reader that opened the old ones opens
the new.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core.durable import sync
from extract.fetch import encryption
from ledgerhouse.publish.books import (
    BOOKS,
    TableDefinition,
    build,
    open_books,
    quoted,
    read_content,
)
from ledgerhouse.publish.parquet_files import PARQUET, Table, Target, placed
from ledgerhouse.publish.publish import generations_on_disk, put_in_place
from ledgerhouse.warehouse import encrypted
from ledgerhouse.warehouse.views import IN_BOOKS

if TYPE_CHECKING:
    import duckdb

COLUMNS = """
    SELECT schema_name || '.' || table_name, column_name, data_type, comment FROM duckdb_columns()
    WHERE database_name = 'books' AND schema_name IN ('curated', 'raw', 'ops') ORDER BY column_index
"""
COMMENTS = """
    SELECT schema_name || '.' || view_name, comment FROM duckdb_views()
    WHERE database_name = 'books' AND schema_name IN ('curated', 'raw', 'ops')
"""


class BooksDamaged(RuntimeError):
    """The books cannot be read whole, and so not be written again."""


def reencrypt(root: Path, tell: Callable[[str], None] = lambda words: None) -> int:
    """Write all files of the books in `root` again; the caller holds the warehouse.

    Raises EncryptionError where a key is missing, BooksDamaged where a file is; nothing is changed.
    """
    import duckdb

    root = Path(root).resolve()
    if not (root / BOOKS).exists():
        return 0
    before, key_id = read_content(root), encrypted.key_id(encryption.current())
    if not before.files:
        raise BooksDamaged(
            f"the books in {root} cannot be read whole: remove {BOOKS}, then make replay publishes "
            "every file again"
        )
    there = generations_on_disk(root)
    if (
        encrypted.is_encrypted(root / BOOKS) == bool(key_id)
        and all((file.key_id or "") == key_id for file in before.files)
        and there.keys() == {file.path for file in before.files}
    ):
        return 0
    encrypted.require_parquet_keys({f.key_id or "" for f in before.files}, f"a file of {root}")
    for partial in root.rglob(".*.part*"):  # of a publish that was killed: there is no other now
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    to = Target(root, 1 + max([before.generation, *there.values()]), key_id)
    live, part = [], root / ".reencrypt.part"
    try:
        with open_books(root) as con:
            definitions = _definitions(con)
            for number, file in enumerate(before.files, 1):
                tell(f"{number} of {len(before.files)} published files")
                rows = encrypted.scan(
                    quoted(root / file.path), file.key_id or "", "hive_partitioning = false"
                )
                con.execute(
                    f"COPY (FROM {rows}) TO {quoted(part)} "
                    f"({PARQUET}{encrypted.parquet_options(key_id)})"
                )
                live.append(
                    placed(
                        to,
                        part,
                        Table(file.table_name),
                        file.start,
                        file.end,
                        file.rows,
                        file.made_from,
                    )
                )
    except duckdb.Error as error:
        raise BooksDamaged(f"the books in {root}: {' '.join(str(error).split())[:300]}") from None
    finally:
        part.unlink(missing_ok=True)
    for folder in {(root / file.path).parent for file in live}:
        for path in (folder, folder.parent):
            sync(path)
    put_in_place(root, build(root, definitions, live, {}, (to.generation, *before.published)))
    for path in there:
        (root / path).unlink(missing_ok=True)
        if not any((root / path).parent.iterdir()):
            shutil.rmtree((root / path).parent)
    return len(live)


def _definitions(con: duckdb.DuckDBPyConnection) -> dict[str, TableDefinition]:
    """The tables of open books, without those that every books have over them."""
    comments, ours = dict(con.execute(COMMENTS).fetchall()), {view.name for view in IN_BOOKS}
    columns = con.execute(COLUMNS).fetchall()
    return {
        name: TableDefinition([row[1:] for row in columns if row[0] == name], comment, "")
        for name, comment in comments.items()
        if name not in ours
    }
