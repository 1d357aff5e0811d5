"""The Parquet files of one published table: which of them a changed day makes stale, and writing.

A month is a file; where it holds more than MONTH_ROWS rows it is several, of PIECE days, since a
changed day costs all rows of its file. A month that has been divided stays divided.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from extract.core.durable import digest, place
from extract.core.interval import first_of_month
from ledgerhouse.publish.books import File, TableDefinition, quoted
from ledgerhouse.publish.held import Account, Held
from ledgerhouse.warehouse.encrypted import parquet_options

if TYPE_CHECKING:
    import duckdb

PARQUET = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1"
MONTH_ROWS = 30_000
PIECE, PIECES = timedelta(days=8), 4
MOST_MONTHS = 10_000  # files open at once; DuckDB's default would write a month in several

Span = tuple[date, date]  # days [start, end)


@dataclass(frozen=True)
class Table:
    """A table to publish: by month of the column `time`, or whole where there is none.

    since     the variable that makes the view compute only the rows from a day on: for a table
              in which a changed day changes all later rows, and passing time adds some
    hashed    the columns whose hash says that a month has changed: for tables whose days are
              not marked
    """

    name: str
    time: str = ""
    since: str = ""
    hashed: str = ""


@dataclass(frozen=True)
class Target:
    """Where new files go, their generation, and the id of the key they are encrypted under."""

    root: Path
    generation: int
    key_id: str


def write_files(
    con: duckdb.DuckDBPyConnection,
    root: Path,
    table: Table,
    definition: TableDefinition,
    known: list[File],
    touched: Iterable[date],
    generation: int,
    *,
    full: bool = False,
    accounts: Collection[Account] = (),
    key_id: str = "",
) -> list[File]:
    """The files of one table: those of `known` that are still true, and new ones for the others.

    `full` writes all of them again. The rows of the held `accounts` are those of `known`. New files
    are encrypted under the key `key_id`; so all are written again where they are of another.
    """
    to = Target(root, generation, key_id)
    full = full or any((f.key_id or "") != key_id for f in known)
    held = Held(con, root, table.name, definition, known, accounts)
    if full or not all(f.made_from.startswith(definition.digest) for f in known):
        known = []
    month = f"date_trunc('month', {table.time})::DATE"
    made_from: dict[Any, str] = {}
    if not table.time:
        stale, files = [(None, None)], []
    elif table.hashed:

        def digests(rows: str) -> dict[Any, str]:
            return dict(
                con.execute(
                    f"SELECT {month}, '{definition.digest} ' || count(*) || ' ' || "
                    f"bit_xor(hash({table.hashed})) FROM ({rows}) GROUP BY 1"
                ).fetchall()
            )

        made_from = digests(f"FROM {table.name}")
        # A month in which nothing of a held account has changed is as in the warehouse.
        files = [f for f in known if made_from.get(f.start) == f.made_from]
        if held:
            same = {f.start for f in files}
            others = digests(f"FROM {table.name} WHERE NOT {held.is_held}")
            old = {f.start for f in held.known}
            made_from = {
                day: others.get(day, definition.digest) + held.mark
                for day in (made_from.keys() | old) - same
            }
            files += [f for f in known if made_from.get(f.start) == f.made_from]
        stale = [whole_month(day) for day in made_from.keys() - {f.start for f in files}]
    elif table.since:  # a view over all history: computed once, not once a month
        first_days = [
            *(first_of_month(day) for day in touched),
            *(f.start for f in known[-1:] if f.start),
        ]
        since = min(first_days) if known else None
        return [
            *(f for f in known if f.start and since and f.start < since),
            *_write_all(con, to, table, held, since, definition.digest),
        ]
    else:
        if not known:
            touched = [
                day
                for (day,) in con.execute(f"SELECT DISTINCT {month} FROM {table.name}").fetchall()
            ] + [f.month for f in held.known if f.month]
        spans = pieces_to_write(known, touched)
        files = [f for f in known if (f.start, f.end) not in spans]
        stale = _divided(con, table, spans)
    for start, end in sorted(stale, key=str):
        digest = made_from.get(start, definition.digest)
        files += _write(con, to, table, held, start, end, digest)
    return files


def whole_month(day: date) -> Span:
    """The month of a day, [start, end)."""
    start = first_of_month(day)
    return start, first_of_month(start + timedelta(days=31))


def pieces(month: Span) -> list[Span]:
    """A month in pieces of PIECE days; its last days belong to the last piece."""
    starts = [month[0] + n * PIECE for n in range(PIECES)]
    return list(zip(starts, [*starts[1:], month[1]]))


def pieces_to_write(known: Collection[File], days: Iterable[date]) -> set[Span]:
    """The spans of the files that `days` make stale.

    The file that holds a day; where there is none its month, or a piece of the month where other
    pieces of it are files.
    """
    divided = {f.month for f in known if (f.start, f.end) != whole_month(cast(date, f.start))}
    stale: set[Span] = set()
    for day in days:
        month = whole_month(day)
        parts = pieces(month) if month[0] in divided else [month]
        stale |= {part for part in parts if part[0] <= day < part[1]}
    return stale


def _divided(con: duckdb.DuckDBPyConnection, table: Table, spans: Collection[Span]) -> list[Span]:
    """The spans to write, a month that holds more than MONTH_ROWS rows as its pieces."""
    months = {span for span in spans if span == whole_month(span[0])}
    if not months:
        return list(spans)
    large = {
        month
        for (month,) in con.execute(
            f"SELECT date_trunc('month', {table.time})::DATE FROM {table.name} WHERE {table.time} >= ? "
            f"AND {table.time} < ? GROUP BY 1 HAVING count(*) > {MONTH_ROWS}",
            [min(months)[0], max(months)[1]],
        ).fetchall()
    }
    return [
        part
        for span in spans
        for part in (pieces(span) if span in months and span[0] in large else [span])
    ]


def _write_all(
    con: duckdb.DuckDBPyConnection,
    to: Target,
    table: Table,
    held: Held,
    since: date | None,
    made_from: str,
) -> list[File]:
    """The files of a view's months from `since` on (all without it), computed and written in one
    statement: one a month takes four times as long. Where two threads met, a few rows may be in
    another order."""
    partial, where = _partial(to.root, table), f"{table.time} >= '{since}'" if since else "true"
    old = [f for f in held.known if f.start and (since is None or f.start >= since)]
    con.execute(f"SET partitioned_write_max_open_files = {MOST_MONTHS}")
    if since:
        con.execute(f"SET VARIABLE {table.since} = DATE '{since}'")
    try:
        written = con.execute(
            f"COPY (SELECT *, strftime({table.time}, '%Y-%m') AS month_of_file FROM "
            f"({held.rows(where, old)}) ORDER BY {table.time}) "
            f"TO {quoted(partial)} ({PARQUET}, PARTITION_BY (month_of_file), RETURN_STATS"
            f"{parquet_options(to.key_id)})"
        ).fetchall()
    finally:
        con.execute(f"RESET VARIABLE {table.since}")
    files = []
    for path, rows, *_ in written:
        month = date.fromisoformat(Path(path).parent.name.partition("=")[2] + "-01")
        files.append(placed(to, Path(path), table, *whole_month(month), rows, made_from))
    shutil.rmtree(partial, ignore_errors=True)
    return files


def _write(
    con: duckdb.DuckDBPyConnection,
    to: Target,
    table: Table,
    held: Held,
    start: date | None,
    end: date | None,
    made_from: str,
) -> list[File]:
    """One file, or none for days without a row."""
    partial, where, order, old = _partial(to.root, table), "true", "", held.known
    if start and end:
        where = f"{table.time} >= '{start}' AND {table.time} < '{end}'"
        order = f"ORDER BY {table.time}"
        old = [f for f in old if f.start and f.end and f.start < end and f.end > start]
    ((rows,),) = con.execute(
        f"COPY (FROM ({held.rows(where, old)}) {order}) TO {quoted(partial)} "
        f"({PARQUET}{parquet_options(to.key_id)})"
    ).fetchall()
    if start and not rows:
        partial.unlink()
        return []
    return [placed(to, partial, table, start, end, rows, made_from)]


def _partial(root: Path, table: Table) -> Path:
    """Where a table is written before its files get their names; removed when met again."""
    return root / f".{table.name}.part"


def placed(
    to: Target,
    partial: Path,
    table: Table,
    start: date | None,
    end: date | None,
    rows: int,
    made_from: str,
) -> File:
    """Give a written file its name; the caller forces the folders to the disk."""
    root, folder, name = to.root, Path(table.name.split(".")[1]), f"g{to.generation}"
    if start:
        folder /= f"month={start:%Y-%m}"
        name += "" if (start, end) == whole_month(start) else f"-{start:%d}"
    # Unique, so that copied books which go on apart never read each other's files.
    path, size = folder / f"{name}.{uuid4().hex[:8]}.parquet", partial.stat().st_size
    (root / folder).mkdir(parents=True, exist_ok=True)
    sha256 = digest(partial)
    place(partial, root / path, sync_folders=False)
    return File(
        table.name,
        start,
        end,
        str(path),
        rows,
        size,
        to.generation,
        made_from,
        sha256,
        to.key_id or None,
    )
