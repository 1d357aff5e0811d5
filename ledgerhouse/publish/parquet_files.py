"""The files of one published table: which of them a changed day makes stale, and their writing.

A month is a file; where it holds more than MONTH_ROWS rows it is several, of PIECE days, since a
changed day costs all rows of its file. A month that has been divided stays so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from extract.core.interval import first_of_month
from ledgerhouse.publish.books import File, durable, quoted

PARQUET = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1"
MONTH_ROWS = 30_000
PIECE, PIECES = timedelta(days=8), 4
MOST_MONTHS = 10_000  # files open at once; DuckDB's default would write a month in several

Span = tuple[date, date]


@dataclass(frozen=True)
class Table:
    """A table to publish: by month of `time`, or whole where there is none.

    since     a changed day changes all later rows, and passing time adds some; the variable that
              makes the view compute only the rows from a day on
    seen_by   columns whose hash tells a changed month: for tables whose days nobody marks
    """

    name: str
    time: str = ""
    since: str = ""
    seen_by: str = ""


def write_files(con, root, table, shape, known, touched, generation) -> list[File]:
    """The files of one table, those of `known` kept that are still true."""
    if not all(f.made_from.startswith(shape.digest) for f in known):
        known = []
    month, made_from = f"date_trunc('month', {table.time})::DATE", {}
    if not table.time:
        wanted, kept = [(None, None)], []
    elif table.seen_by:
        made_from = dict(
            con.execute(
                f"SELECT {month}, '{shape.digest} ' || count(*) || ' ' || "
                f"bit_xor(hash({table.seen_by})) FROM {table.name} GROUP BY 1"
            ).fetchall()
        )
        kept = [f for f in known if made_from.get(f.start) == f.made_from]
        wanted = map(whole_month, made_from.keys() - {f.start for f in kept})
    elif table.since:  # a view over all history: computed once, not once a month
        since = min([*(first_of_month(day) for day in touched), known[-1].start]) if known else None
        return [
            *(f for f in known if f.start < since),
            *_write_all(con, root, table, since, generation, shape.digest),
        ]
    else:
        if not known:
            touched = [
                found
                for (found,) in con.execute(f"SELECT DISTINCT {month} FROM {table.name}").fetchall()
            ]
        wanted = pieces_to_write(known, touched)
        kept = [f for f in known if (f.start, f.end) not in wanted]
        wanted = _divided(con, table, wanted)
    for start, end in sorted(wanted, key=str):
        kept += _write(con, root, table, start, end, generation, made_from.get(start, shape.digest))
    return kept


def whole_month(day: date) -> Span:
    """The month of a day, [start, end)."""
    start = first_of_month(day)
    return start, first_of_month(start + timedelta(days=31))


def pieces(month: Span) -> list[Span]:
    """A month in pieces of PIECE days; its last days belong to the last."""
    starts = [month[0] + n * PIECE for n in range(PIECES)]
    return list(zip(starts, [*starts[1:], month[1]]))


def pieces_to_write(known: Collection[File], days: Iterable[date]) -> set[Span]:
    """What `days` make stale: the files that hold them, and where there is none the month; or a
    piece of it, where other pieces are files."""
    divided = {f.month for f in known if (f.start, f.end) != whole_month(f.start)}
    found = set()
    for day in days:
        month = whole_month(day)
        parts = pieces(month) if month[0] in divided else [month]
        found |= {part for part in parts if part[0] <= day < part[1]}
    return found


def _divided(con, table: Table, spans: Collection[Span]) -> list[Span]:
    """The spans, a month that holds more than MONTH_ROWS rows as its pieces."""
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


def _write_all(con, root, table: Table, since: date | None, generation, made_from) -> list[File]:
    """The files of a view's months from `since` on (all without it), computed and written in one
    statement: one a month takes four times as long. Where two threads met, the order of a few
    rows is another."""
    aside, where = _aside(root, table), f"WHERE {table.time} >= '{since}'" if since else ""
    con.execute(f"SET partitioned_write_max_open_files = {MOST_MONTHS}")
    if since:
        con.execute(f"SET VARIABLE {table.since} = DATE '{since}'")
    try:
        written = con.execute(
            f"COPY (SELECT *, strftime({table.time}, '%Y-%m') AS month_of_file FROM {table.name} "
            f"{where} ORDER BY {table.time}) "
            f"TO {quoted(aside)} ({PARQUET}, PARTITION_BY (month_of_file), RETURN_STATS)"
        ).fetchall()
    finally:
        con.execute(f"RESET VARIABLE {table.since}")
    files = []
    for partial, rows in (one[:2] for one in written):
        month = date.fromisoformat(Path(partial).parent.name.partition("=")[2] + "-01")
        files.append(
            _placed(root, Path(partial), table, *whole_month(month), rows, generation, made_from)
        )
    shutil.rmtree(aside, ignore_errors=True)
    return files


def _write(con, root, table, start, end, generation, made_from) -> list[File]:
    """One file, or none of days without a row."""
    aside, where = _aside(root, table), ""
    if start:
        where = f"WHERE {table.time} >= '{start}' AND {table.time} < '{end}' ORDER BY {table.time}"
    (rows,) = con.execute(
        f"COPY (SELECT * FROM {table.name} {where}) TO {quoted(aside)} ({PARQUET})"
    ).fetchone()
    if start and not rows:
        aside.unlink()
        return []
    return [_placed(root, aside, table, start, end, rows, generation, made_from)]


def _aside(root: Path, table: Table) -> Path:
    return root / f".{table.name}.part"


def _placed(root, partial: Path, table, start, end, rows, generation, made_from) -> File:
    """A file that was written aside gets its name, when it is durable."""
    folder, name = Path(table.name.split(".")[1]), f"g{generation}"
    if start:
        folder /= f"month={start:%Y-%m}"
        name += "" if (start, end) == whole_month(start) else f"-{start:%d}"
    path, size = folder / f"{name}.parquet", partial.stat().st_size
    (root / folder).mkdir(parents=True, exist_ok=True)
    durable(partial)
    os.rename(partial, root / path)
    return File(table.name, start, end, str(path), rows, size, generation, made_from)
