"""The curated tables again from raw, aside, and compared with production row by row.

    rebuild(var, batches=…, who=…) -> Rebuilt       raises NotEqual where a table differs

Incremental models are right only if no day was ever missed; this is how one finds out. Nothing
here writes to production: its file is copied while nobody else has it (the only time it is held),
and everything happens in `var/rebuild/`, a SQLMesh environment with physical tables and a state
of its own. (A dev environment of the warehouse itself would point its views at production's
tables, and restating it would write them.) The folder is removed at the end, and by the next
rebuild where this one was killed.

In the copy, production's tables are put aside under other names; then the models run as a first
transform does, over every day there is. Each day of both is told by the sum of its rows' hashes;
days that differ are compared by SQLMesh's `table_diff`, which names the rows. Amounts are
compared as text: table_diff rounds decimals to three places, and pandas would make floats of them.

Needs room for another warehouse and another curated; memory stays within what DuckDB may take.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from extract.schema import create_all
from extract.transform import FILE, Mark, context, touched, transform
from extract.warehouse import MEMORY_LIMIT, WAIT_S, hold

log = logging.getLogger(__name__)

FOLDER = "rebuild"
ROOM = 2.2           # of the warehouse's size: the copy, and what is built in it
STATE_URI = "LEDGERHOUSE_STATE_URI"
DAYS_TOLD = 5        # differing days of a table that are compared row by row
ROWS_TOLD = 5
RAW_MARKS = ("exchanges_ledger", "exchanges_trades", "onchain_transactions", "onchain_transfers")


@dataclass(frozen=True)
class Compared:
    """A curated table: the column of its days, its key; `running`: a day depends on all before."""

    name: str
    time: str
    key: tuple[str, ...]
    running: bool = False

    @property
    def short(self) -> str:
        return self.name.split(".")[1]


_LEG = ("domain", "source", "account", "chain", "txid", "leg")
_DAY = ("date", "domain", "source", "account", "token")
TABLES = (
    Compared("curated.staged_exchanges", "ts", ("source", "account", "txid")),
    Compared("curated.staged_onchain", "ts", _LEG[1:]),
    Compared("curated.tx_unified", "ts", _LEG),
    Compared("curated.daily_flows", "date", _DAY),
    Compared("curated.daily_balances", "date", _DAY, running=True),
)


class NoRoom(RuntimeError):
    """The disk has no room for the rebuild; production is as it was."""


@dataclass(frozen=True)
class Difference:
    """Days on which a table differs, and the first rows; `production` or `rebuilt` None: no row."""

    table: str
    days: tuple[date, ...]
    key: str
    column: str
    production: str | None
    rebuilt: str | None

    def __str__(self) -> str:
        more = f" (and {len(self.days) - 1} more days, to {self.days[-1]})" \
            if len(self.days) > 1 else ""
        what = (f"{self.column} is {self.production} in production, {self.rebuilt} rebuilt"
                if self.column else "the row is in production only" if self.rebuilt is None
                else "the row is rebuilt only")
        return f"{self.table} differs on {self.days[0]}{more}: {self.key}: {what}"


class NotEqual(RuntimeError):
    """Production's curated is not what its raw rows give."""

    def __init__(self, rebuilt: Rebuilt):
        self.rebuilt = rebuilt
        stale = (" The models in the project are not those that production runs ("
                 + ", ".join(rebuilt.stale) + "): run `make plan` first."
                 if rebuilt.stale else "")
        super().__init__("; ".join(map(str, rebuilt.differences)) + "." + stale)


@dataclass(frozen=True)
class Rebuilt:
    """What one rebuild did. `rows`: compared, by table; `left_out`: days loaded meanwhile."""

    rows: dict[str, int]
    differences: tuple[Difference, ...]
    left_out: tuple[date, ...]
    stale: tuple[str, ...]
    held_s: float
    seconds: float
    bytes: int


def rebuild(var: Path, *, batches: Iterable[str] = (), who: str = "rebuild",
            wait_s: float = WAIT_S) -> Rebuilt:
    """Build curated anew from a copy of the warehouse in `var`, and compare.

    `batches` are those transformed: days that others have marked since may lag behind their raw
    rows and are left out. Raises NotEqual, NoRoom, WarehouseBusy or TransformFailed; the folder
    is gone afterwards in any case.
    """
    began, root = time.monotonic(), Path(var).resolve() / FOLDER
    with hold(root, who, wait_s):  # two rebuilds at once would take each other's folder away
        shutil.rmtree(root, ignore_errors=True)
        try:
            held_s = _copy(root.parent / FILE, root / FILE, who, wait_s)
            with _own_state():
                left_out, versions = _put_aside(root / FILE, set(batches))
                transform(root / FILE, who=who, wait_s=wait_s)
                rows, found, stale = _compare(root / FILE, left_out, versions)
            size = sum(f.stat().st_size for f in root.rglob("*") if f.is_file())
        finally:
            shutil.rmtree(root, ignore_errors=True)
    rebuilt = Rebuilt(rows, tuple(found), tuple(sorted(left_out)), stale, held_s,
                      time.monotonic() - began, size)
    log.info("%s rows of curated compared with their rebuild in %.0f s, of which the warehouse "
             "was held %.1f s; %.1f GB of disk", f"{sum(rows.values()):,}", rebuilt.seconds,
             held_s, size / 1e9)
    if found:
        raise NotEqual(rebuilt)
    return rebuilt


def record(con, run_id: str, rebuilt: Rebuilt) -> None:
    """The comparison as critical expectations of the run in ops.checkpoints: none may fail."""
    wrong = {one.table: str(one) for one in rebuilt.differences}
    con.execute("BEGIN")
    con.execute("DELETE FROM ops.checkpoints WHERE run_id = ? AND checkpoint = ?", [run_id, FOLDER])
    for table, rows in rebuilt.rows.items():
        con.execute("INSERT INTO ops.checkpoints BY NAME SELECT ? AS run_id, ? AS checkpoint, "
                    "? AS expectation, 'critical' AS severity, ? AS success, ? AS observed, "
                    "(now() AT TIME ZONE 'UTC')::TIMESTAMP AS checked_at",
                    [run_id, FOLDER, f"{table} equals its rebuild from raw", table not in wrong,
                     wrong.get(table, f"{rows:,} rows")])
    con.execute("COMMIT")


def _copy(warehouse: Path, draft: Path, who: str, wait_s: float) -> float:
    """The warehouse's file as it stands between two writers; the seconds it was held."""
    draft.parent.mkdir(parents=True)
    with hold(warehouse, who, wait_s) as held:
        began = time.monotonic()
        if not held.exists():
            raise FileNotFoundError(f"{held} is not there: a sync makes it")
        log_file = held.with_name(held.name + ".wal")  # left by a writer that was killed
        parts = [part for part in (held, log_file) if part.exists()]
        needed, free = ROOM * sum(p.stat().st_size for p in parts), shutil.disk_usage(draft.parent)
        if free.free < needed:
            raise NoRoom(f"comparing curated with its rebuild needs {needed / 1e9:.1f} GB of disk "
                         f"in {draft.parent}, and {free.free / 1e9:.1f} GB are free. Make room and "
                         "clear this task; production was not touched")
        for part in parts:
            shutil.copyfile(part, draft.with_name(part.name))
        return time.monotonic() - began


@contextmanager
def _own_state() -> Iterator[None]:
    """Nobody here may reach production's state of the models: theirs is in the copy's own file."""
    uri = os.environ.pop(STATE_URI, None)
    try:
        yield
    finally:
        if uri is not None:
            os.environ[STATE_URI] = uri


def _put_aside(draft: Path, batches: set[str]) -> tuple[set[date], dict[str, str]]:
    """Production's tables as `production.<table>`, no models any more, and every day marked.

    Returns the days whose marks are of batches not among `batches`, and the physical name of
    each table in production.
    """
    with _opened(draft) as con:
        create_all(con)
        others = {batch for _, _, batch in _marks(con)} - batches
        left_out = set().union(*touched(con, others)[1].values())
        con.execute("CREATE SCHEMA production")
        # A view over daily_flows: computed while that still has its name.
        running = [t for t in TABLES if t.running]
        for table in running:
            con.execute(f"CREATE TABLE production.{table.short} AS FROM {table.name}")
        versions = {}
        for table in TABLES:
            schema, versions[table.name] = _physical(con, table.name)
            if table not in running:
                kind = "TABLE" if con.execute(
                    "SELECT 1 FROM duckdb_tables() WHERE schema_name = ? AND table_name = ?",
                    [schema, versions[table.name]]).fetchone() else "VIEW"
                con.execute(f'ALTER {kind} {schema}."{versions[table.name]}" '
                            f"RENAME TO production__{table.short}")
                con.execute(f"CREATE VIEW production.{table.short} AS "
                            f"FROM {schema}.production__{table.short}")
        _drop_models(con)
        con.execute("DELETE FROM ops.touched_days")
        for name in RAW_MARKS:
            con.execute(f"INSERT INTO ops.touched_days (dataset, day, batch_id) "
                        f"SELECT DISTINCT '{name}', ts::DATE, "
                        f"'{FOLDER}' FROM raw.{name}")
    return left_out, versions


def _marks(con) -> list[Mark]:
    return con.execute("SELECT DISTINCT dataset, day, batch_id FROM ops.touched_days").fetchall()


def _physical(con, name: str) -> tuple[str, str]:
    """Schema and name of what a model's view reads."""
    found = con.execute("SELECT sql FROM duckdb_views() WHERE schema_name || '.' || view_name = ?",
                        [name]).fetchone()
    match = found and re.search(r'"?(sqlmesh__\w+)"?\."?(\w+)"?\s*;?\s*$', found[0])
    if not match:
        raise FileNotFoundError(f"{name} is not in the warehouse: a sync makes it")
    return match[1], match[2]


def _drop_models(con) -> None:
    """Everything of SQLMesh's but what was put aside."""
    ours = ("raw", "ops", "production", "main", "information_schema", "pg_catalog")
    for kind in ("view", "table"):
        for schema, name in con.execute(
                f"SELECT schema_name, {kind}_name FROM duckdb_{kind}s() WHERE NOT internal "
                "AND database_name = current_database()").fetchall():
            if schema not in ours and not name.startswith("production__"):
                con.execute(f'DROP {kind.upper()} IF EXISTS "{schema}"."{name}"')


@contextmanager
def _opened(path: Path) -> Iterator:
    import duckdb

    con = duckdb.connect(str(path), config={"memory_limit": MEMORY_LIMIT})
    try:
        con.execute("SET TimeZone = 'UTC'")
        yield con
    finally:
        con.close()


def _compare(draft: Path, left_out: set[date], versions: dict[str, str]
             ) -> tuple[dict[str, int], list[Difference], tuple[str, ...]]:
    """Rows compared by table, the differences, and the models whose version is another one."""
    rows, differing, found = {}, {}, []
    with _opened(draft) as con:
        con.execute("CREATE SCHEMA rebuilt")
        stale = tuple(t.name for t in TABLES if _physical(con, t.name)[1] != versions[t.name])
        for table in TABLES:
            con.execute(f"CREATE VIEW rebuilt.{table.short} AS FROM {table.name}")
            rows[table.name], differing[table] = _days(con, table, left_out)
            if differing[table]:
                for side in ("production", "rebuilt"):
                    _as_text(con, table, side, differing[table][:DAYS_TOLD])
    if any(differing.values()):
        with hold(draft, "rebuild"), context(draft) as (ctx, _), _quiet():
            for table, days in differing.items():
                if days:
                    found.append(_first(ctx, table, days))
    return rows, found, stale


def _days(con, table: Compared, left_out: set[date]) -> tuple[int, tuple[date, ...]]:
    """Rows compared, and the days on which the two sides differ, oldest first."""
    both = {}
    for side in ("production", "rebuilt"):
        both[side] = [name for name, _ in con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = ? AND "
            "table_name = ? ORDER BY column_name", [side, table.short]).fetchall()]
    columns = ", ".join(f'"{name}"' for name in both["production"])
    if both["production"] != both["rebuilt"]:
        columns = ", ".join(f'"{n}"' for n in both["production"] if n in both["rebuilt"])

    def told(side: str) -> str:
        return (f"SELECT {table.time}::DATE AS day, count(*) AS rows, "
                f"sum(hash({columns})::HUGEINT) AS told FROM {side}.{table.short} GROUP BY day")

    days = con.execute(f"SELECT day, coalesce(p.rows, 0), (p.rows, p.told) IS DISTINCT FROM "
                       f"(r.rows, r.told) FROM ({told('production')}) p FULL JOIN "
                       f"({told('rebuilt')}) r USING (day) ORDER BY day").fetchall()
    since = min(left_out) if left_out and table.running else date.max
    kept = [one for one in days if one[0] not in left_out and one[0] < since]
    return sum(rows for _, rows, _ in kept), tuple(day for day, _, differs in kept if differs)


def _as_text(con, table: Compared, side: str, days: tuple[date, ...]) -> None:
    """`<side>.<table>_told`: those days, every column but the key's as text."""
    columns = ", ".join(
        f'"{name}"' if name in table.key and not kind.startswith("DEC") else
        f'"{name}"::VARCHAR AS "{name}"'
        for name, kind in con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = ? AND "
            "table_name = ? ORDER BY column_index", [side, table.short]).fetchall())
    listed = ", ".join(f"'{day}'" for day in days)
    con.execute(f"CREATE TABLE {side}.{table.short}_told AS SELECT {columns}, "
                f"{table.time}::DATE AS told_day FROM {side}.{table.short} "
                f"WHERE {table.time} >= DATE '{days[0]}' AND {table.time} < DATE '{days[-1]}' + 1 "
                f"AND {table.time}::DATE IN ({listed})")


def _first(ctx, table: Compared, days: tuple[date, ...]) -> Difference:
    """The first differing row of the first differing day, as table_diff tells it."""
    (diff,) = ctx.table_diff(
        f"production.{table.short}_told", f"rebuilt.{table.short}_told", on=list(table.key),
        where=f"told_day = '{days[0]}'", limit=ROWS_TOLD, show=False)
    told = diff.row_diff(skip_grain_check=True)
    for sample, column, sides in (
            (told.joined_sample, True, None), (told.s_sample, False, ("there", None)),
            (told.t_sample, False, (None, "there"))):
        if len(sample):
            row = sample.iloc[0].to_dict()
            key = ", ".join(f"{k} = {row[k]}" for k in table.key)
            if not column:
                return Difference(table.name, days, key, "", *sides)
            name, one, other = next(
                (c[3:], _text(row[c]), _text(row["t__" + c[3:]])) for c in row
                if c.startswith("s__") and _text(row[c]) != _text(row["t__" + c[3:]]))
            return Difference(table.name, days, key, name, one, other)
    return Difference(table.name, days, "a row that is there twice", "", "there", None)


@contextmanager
def _quiet() -> Iterator[None]:
    """table_diff logs each of its statements, pages long, at whatever level is on."""
    statements = logging.getLogger("sqlmesh.core.engine_adapter.base")
    before = statements.level
    statements.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        statements.setLevel(before)


def _text(value: Any) -> str:
    """A value of a sample; pandas has None or NaN where there is none."""
    return "NULL" if value is None or value != value else str(value)
