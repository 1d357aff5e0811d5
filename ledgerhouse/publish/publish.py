"""Publishing: the warehouse's tables as monthly Parquet files and a `books.duckdb` of views.

    published/books.duckdb                           views curated.*, raw.*, ops.* and what they read
    published/books.duckdb.sha256                    its digest; those of the others are in it
    published/<table>/month=YYYY-MM/g<N>.<id>.parquet     the rows of a month; zstd, in time order
    published/<table>/month=YYYY-MM/g<N>-DD.<id>.parquet  of a busy month: from day DD on, 8 days
    published/<table>/g<N>.<id>.parquet                   a small table, whole

No file is ever changed: what changed gets a new file of generation N, whose random <id> keeps books
that were copied, and go on apart, from reading each other's files. `books.duckdb` is built under
another name and renamed over the old one, and that rename is the only switch: its views name their
files, so a reader has one generation whole or another. Never glob the folders: files stay there
for GRACE after the books have dropped them, for the readers that opened them before.

The views hold the folder's absolute path, so they work from any directory, by connect or ATTACH;
moved or copied, see ledgerhouse.publish.books. With a key all of it is encrypted, `books.duckdb`
too: see ledgerhouse.warehouse.encrypted.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from extract.core import durable
from extract.core.durable import digest, place, sync, write
from extract.core.interval import UTC
from extract.core.quarantine import quarantine
from extract.fetch import encryption
from ledgerhouse.publish.books import BOOKS, DIGEST, File, TableDefinition, build, read_content
from ledgerhouse.publish.held import Account
from ledgerhouse.publish.kept_files import damaged
from ledgerhouse.publish.parquet_files import Table, write_files
from ledgerhouse.warehouse import encrypted

if TYPE_CHECKING:
    import duckdb

WRITERS = 2  # tables written at once; a third made it slower on two cores
GRACE = timedelta(hours=1)  # longer than the longest reader keeps one connection
INEXACT = ("FLOAT", "DOUBLE", "HUGEINT", "UHUGEINT")  # Parquet gets a float of each of them
FILE_NAME = re.compile(r"g(\d+)(-\d\d)?(\.[0-9a-f]{8})?\.parquet")

TABLES = (
    Table("curated.tx_unified", "ts"),
    Table("curated.daily_flows", "date"),
    Table("curated.daily_balances", "date", since="balances_since"),
    Table("curated.assets"),
    Table("curated.reconciliation"),
    Table("raw.exchanges_ledger", "ts"),
    Table("raw.exchanges_trades", "ts"),
    Table("raw.onchain_transactions", "ts"),
    Table("raw.onchain_transfers", "ts"),
    Table("raw.onchain_chains"),
    Table("raw.onchain_tokens"),
    Table("raw.balances", "ts", hashed="row_hash, changed_at"),
    Table("raw.positions", "ts", hashed="row_hash, changed_at"),
    Table("raw.adjustments"),
    Table("raw.rejected"),
    Table("raw.history", "valid_to", hashed="row_hash, key, batch_id"),
    Table("ops.batches"),
    Table("ops.coverage"),
    Table("ops.sources"),
    Table("ops.unread_parts"),
    Table("ops.part_states"),
    Table("ops.breaks"),
    Table("ops.running_balances"),
    Table("ops.held_accounts"),
    Table("ops.quarantined_files"),
    Table("ops.refreshes"),
    Table("ops.incidents"),
    Table("ops.gaps"),
    Table("ops.sync_log"),
    Table("ops.sync_runs"),
    Table("ops.checkpoints", "checked_at", hashed="run_id, checkpoint, expectation, checked_at"),
    Table("ops.api_calls", "called_at", hashed="call_id"),
    Table("ops.spending"),
    Table("ops.budgets"),
    Table("ops.account_units", "reading_at", hashed="reading_at, connection, moment"),
)

NEWS = (
    "ops.breaks",
    "ops.held_accounts",
    "ops.incidents",
    "ops.quarantined_files",
    "ops.sync_log",
    "ops.sync_runs",
)


@dataclass(frozen=True)
class Published:
    """What one publish did: the files it wrote, and how many old ones it removed."""

    generation: int
    files: tuple[File, ...]
    removed: int
    seconds: float
    held: tuple[Any, ...] = ()  # gate.HeldAccount: whose rows are those published before
    damaged: tuple[str, ...] = ()  # files of the books before that were not as they were written

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(sorted({f.table_name for f in self.files}))

    @property
    def months(self) -> tuple[date, ...]:
        return tuple(sorted({f.month for f in self.files if f.month}))

    @property
    def rows(self) -> int:
        return sum(f.rows for f in self.files)

    @property
    def bytes(self) -> int:
        return sum(f.bytes for f in self.files)


def publish(
    con: duckdb.DuckDBPyConnection,
    root: Path,
    days: Iterable[date] | Mapping[str, Iterable[date]],
    *,
    run_id: str = "",
    full: bool = False,
    only: Collection[str] = (),
    held: Collection[Account] = (),
    now: datetime | None = None,
) -> Published:
    """Publish the files of `days` from the warehouse `con`, whose lock the caller holds.

    Where `days` are given by table, a table that is not named has not changed.
    Kept files are compared with the list (see kept_files): the rows of a damaged one are published
    again. `full` publishes every month, as do a first publish, damaged books, a rebuilt warehouse, and
    (its own months) a table whose model changed: needed only after days were changed by hand,
    without marks. `only` these tables are written: the others stay as the books have them, and so
    do the time and the run of the books. The rows of the accounts that are `held` are taken from
    the books, not from the warehouse; a table without accounts is published as it is. `now` is naive UTC. Killed anywhere, the books are those
    from before or those from after; run again, it starts over.
    """
    began, root = time.monotonic(), Path(root).resolve()
    durable.folder(root)
    if set("*?[\n") & set(str(root)):
        raise ValueError(
            f"{root} cannot hold the books: DuckDB takes * ? [ for patterns, and the "
            "list of files has a line each. Choose another LEDGERHOUSE_VAR"
        )
    now = now or datetime.now(UTC).replace(tzinfo=None)
    for partial in root.rglob(".*.part*"):  # of a publish that was killed: there is no other now
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    definitions, before = _definitions(con), read_content(root)
    key_id = encrypted.key_id(encryption.current())
    encrypted.require_parquet_keys({f.key_id or "" for f in before.files}, f"a file of {root}")
    encrypted.add_parquet_keys(con)
    ((database,),) = con.execute("SELECT current_database()").fetchall()
    wrong = {} if only else damaged(root, before.files)
    on_disk = generations_on_disk(root)
    generation = 1 + max([before.generation, *on_disk.values()])  # a name is never used twice

    by_table = (
        cast("Mapping[str, Iterable[date]]", days)
        if isinstance(days, Mapping)
        else dict.fromkeys((table.name for table in TABLES), set(cast("Iterable[date]", days)))
    )

    def files_of(table: Table) -> list[File]:
        of_table = [f for f in before.files if f.table_name == table.name]
        known = sorted(
            (f for f in of_table if f.path not in wrong), key=lambda file: str(file.start)
        )
        touched = set(by_table.get(table.name, ()))
        touched |= {f.start for f in of_table if f.path in wrong and f.start}
        if only and table.name not in only:
            return known
        with encrypted.cursor(con, database) as cursor:
            cursor.execute("SET TimeZone = 'UTC'")
            return write_files(
                cursor,
                root,
                table,
                definitions[table.name],
                known,
                touched,
                generation,
                full=full,
                accounts=held,
                key_id=key_id,
            )

    # A month is one row group, which DuckDB writes on one core.
    with ThreadPoolExecutor(WRITERS) as pool:
        live = [file for files in pool.map(files_of, TABLES) for file in files]
    written = [f for f in live if f.generation == generation]
    for folder in {(root / f.path).parent for f in written}:
        for path in (folder, folder.parent):
            sync(path)
    live_paths = {f.path for f in live}
    retired = {path: before.retired.get(path, now) for path in on_disk if path not in live_paths}
    expired = [path for path, since in retired.items() if now - since >= GRACE]
    in_grace = {path: since for path, since in retired.items() if path not in expired}
    ((through,),) = con.execute("SELECT max(end_ts) FROM ops.coverage").fetchall()
    published = before.published if only else (now, through, run_id)
    partial = build(root, definitions, live, in_grace, (generation, *published))
    put_in_place(root, partial)
    for path in expired:
        (root / path).unlink(missing_ok=True)
        if not any((root / path).parent.iterdir()):
            (root / path).parent.rmdir()
    for path, why in wrong.items():
        quarantine(root.parent, root / path, f"{path}: {why}")
    return Published(
        generation,
        tuple(written),
        len(expired),
        time.monotonic() - began,
        damaged=tuple(sorted(wrong)),
    )


def put_in_place(root: Path, partial: Path) -> None:
    """Make the new books those of `root`, and note their digest."""
    # A kill between these leaves the digests of both, and the books are one of them.
    line = f"{digest(partial)}  {BOOKS}\n"
    file = root / DIGEST
    write(file, (file.read_bytes() if file.exists() else b"") + line.encode())
    place(partial, root / BOOKS)
    write(file, line)


def publish_news(con: duckdb.DuckDBPyConnection, root: Path) -> Published | None:
    """Publish the tables that say how the last run went; the others stay as the books have them.

    That is known only after the books of that run are out, or were refused. None where there are
    no books, or books of other tables and models.
    """
    before = read_content(Path(root).resolve())
    definitions, in_books = _definitions(con), {f.table_name for f in before.files}
    if (
        not in_books >= {t.name for t in TABLES if not t.time}
        or not in_books <= definitions.keys()
        or not all(f.made_from.startswith(definitions[f.table_name].digest) for f in before.files)
    ):
        return None
    held = con.execute("SELECT source, account FROM ops.held_accounts").fetchall()
    return publish(con, root, {}, only=NEWS, held=held)


def generations_on_disk(root: Path) -> dict[str, int]:
    """Every data file under `root`, live or not, and its generation."""
    paths = [*root.glob("*/g*.parquet"), *root.glob("*/month=*/g*.parquet")]
    return {
        str(path.relative_to(root)): int(match[1])
        for path in paths
        if (match := FILE_NAME.fullmatch(path.name))
    }


def _definitions(con: duckdb.DuckDBPyConnection) -> dict[str, TableDefinition]:
    """The definition of each published table; the SQL of a model's view names its version.

    The first load is part of every definition: a warehouse that was rebuilt is another one.
    """
    ((origin,),) = con.execute(
        "SELECT arg_min(batch_id, (loaded_at, batch_id)) FROM ops.batches"
    ).fetchall()
    columns = con.execute(
        "SELECT schema_name || '.' || table_name, column_name, data_type, comment "
        "FROM duckdb_columns() WHERE database_name = current_database() ORDER BY column_index"
    ).fetchall()
    tables = {
        name: (comment, sql)
        for name, comment, sql in con.execute(
            " UNION ALL ".join(
                f"SELECT schema_name || '.' || {kind}_name, comment, sql FROM duckdb_{kind}s() "
                "WHERE database_name = current_database()"
                for kind in ("table", "view")
            )
        ).fetchall()
    }
    definitions = {}
    for name in (table.name for table in TABLES):
        if name not in tables:
            raise ValueError(f"{name} is not in the warehouse: a sync makes it; publish after one")
        of_table, (comment, sql) = [row[1:] for row in columns if row[0] == name], tables[name]
        for column, kind, _ in of_table:
            if kind in INEXACT:
                raise ValueError(
                    f"{name}.{column} is a {kind}, which Parquet would hold as a "
                    "float: cast it to DECIMAL(38,18) or BIGINT in its model"
                )
        definition = repr(([column[:2] for column in of_table], sql, origin))
        digest = hashlib.md5(definition.encode()).hexdigest()
        definitions[name] = TableDefinition(of_table, comment, digest)
    return definitions
