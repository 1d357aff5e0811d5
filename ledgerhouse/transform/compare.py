"""Comparison of curated in production (`production.*`) with its rebuild in the same file.

Days are compared by the sum of their rows' hashes; days that differ by SQLMesh's `table_diff`,
which names the rows. Amounts are compared as text: table_diff rounds decimals to
three places, and pandas would make floats of them.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledgerhouse.process import quiet
from ledgerhouse.transform.sqlmesh_context import context
from ledgerhouse.warehouse.connection import connected, hold

if TYPE_CHECKING:
    import duckdb
    from sqlmesh.core.context import Context

DAYS_BY_ROW = 5  # differing days of a table that are compared row by row
SAMPLE_ROWS = 5
STATEMENT_LOGGER = "sqlmesh.core.engine_adapter.base"  # table_diff logs each statement, pages long


@dataclass(frozen=True)
class ComparedTable:
    """A curated table: the column of its days, and its key."""

    name: str
    time: str
    key: tuple[str, ...]
    running: bool = False  # a day depends on all days before it

    @property
    def short(self) -> str:
        return self.name.split(".")[1]


_LEG = ("domain", "source", "account", "chain", "txid", "leg")
_DAY = ("date", "domain", "source", "account", "token")
TABLES = (
    ComparedTable("curated.staged_exchanges", "ts", ("source", "account", "txid")),
    ComparedTable("curated.staged_onchain", "ts", _LEG[1:]),
    ComparedTable("curated.tx_unified", "ts", _LEG),
    ComparedTable("curated.daily_flows", "date", _DAY),
    ComparedTable("curated.daily_balances", "date", _DAY, running=True),
)


@dataclass(frozen=True)
class Difference:
    """Days on which a table differs, and the first differing row: its key and a column's values.

    Without `column` the row is on one side only: `production` or `rebuilt` is None."""

    table: str
    days: tuple[date, ...]
    key: str
    column: str
    production: str | None
    rebuilt: str | None

    def __str__(self) -> str:
        more = len(self.days) - 1
        others = f" (and {more} more days, to {self.days[-1]})" if more else ""
        what = (
            f"{self.column} is {self.production} in production, {self.rebuilt} rebuilt"
            if self.column
            else "the row is in production only"
            if self.rebuilt is None
            else "the row is rebuilt only"
        )
        return f"{self.table} differs on {self.days[0]}{others}: {self.key}: {what}"


def physical(con: duckdb.DuckDBPyConnection, name: str) -> tuple[str, str]:
    """Schema and name of the physical table that a model's view reads."""
    view = con.execute(
        "SELECT sql FROM duckdb_views() WHERE schema_name || '.' || view_name = ?", [name]
    ).fetchall()
    match = re.search(r'"?(sqlmesh__\w+)"?\."?(\w+)"?\s*;?\s*$', view[0][0]) if view else None
    if match is None:
        raise FileNotFoundError(f"{name} is not in the warehouse: a sync creates it")
    return match[1], match[2]


def compare(
    draft: Path, left_out: set[date], versions: dict[str, str]
) -> tuple[dict[str, int], list[Difference], tuple[str, ...]]:
    """Rows compared by table, the differences, and the models whose version in the project is not
    that of production (`versions`)."""
    rows, differing, differences = {}, {}, []
    with connected(draft) as con:
        con.execute("CREATE SCHEMA rebuilt")
        stale = tuple(t.name for t in TABLES if physical(con, t.name)[1] != versions[t.name])
        for table in TABLES:
            con.execute(f"CREATE VIEW rebuilt.{table.short} AS FROM {table.name}")
            rows[table.name], differing[table] = _days(con, table, left_out)
            if differing[table]:
                for side in ("production", "rebuilt"):
                    _as_text(con, table, side, differing[table][:DAYS_BY_ROW])
    if any(differing.values()):
        with (
            hold(draft, "rebuild"),
            context(draft) as (ctx, _),
            quiet(STATEMENT_LOGGER, level=logging.CRITICAL),
        ):
            for table, days in differing.items():
                if days:
                    differences.append(_first_difference(ctx, table, days))
    return rows, differences, stale


def _days(
    con: duckdb.DuckDBPyConnection, table: ComparedTable, left_out: set[date]
) -> tuple[int, tuple[date, ...]]:
    """Rows compared, and the days on which the two sides differ, oldest first."""
    names = {}
    for side in ("production", "rebuilt"):
        names[side] = [
            name
            for name, _ in con.execute(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = ? AND "
                "table_name = ? ORDER BY column_name",
                [side, table.short],
            ).fetchall()
        ]
    columns = ", ".join(f'"{name}"' for name in names["production"])
    if names["production"] != names["rebuilt"]:
        columns = ", ".join(f'"{n}"' for n in names["production"] if n in names["rebuilt"])

    def hashed(side: str) -> str:
        return (
            f"SELECT {table.time}::DATE AS day, count(*) AS rows, "
            f"sum(hash({columns})::HUGEINT) AS hashes FROM {side}.{table.short} GROUP BY day"
        )

    days = con.execute(
        f"SELECT day, coalesce(p.rows, 0), (p.rows, p.hashes) IS DISTINCT FROM "
        f"(r.rows, r.hashes) FROM ({hashed('production')}) p FULL JOIN "
        f"({hashed('rebuilt')}) r USING (day) ORDER BY day"
    ).fetchall()
    since = min(left_out) if left_out and table.running else date.max
    compared = [row for row in days if row[0] not in left_out and row[0] < since]
    differing = tuple(day for day, _, differs in compared if differs)
    return sum(rows for _, rows, _ in compared), differing


def _as_text(
    con: duckdb.DuckDBPyConnection, table: ComparedTable, side: str, days: tuple[date, ...]
) -> None:
    """Creates `<side>.<table>_differing`: those days, every column but the key's as text."""
    columns = ", ".join(
        f'"{name}"'
        if name in table.key and not kind.startswith("DEC")
        else f'"{name}"::VARCHAR AS "{name}"'
        for name, kind in con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = ? AND "
            "table_name = ? ORDER BY column_index",
            [side, table.short],
        ).fetchall()
    )
    listed = ", ".join(f"'{day}'" for day in days)
    con.execute(
        f"CREATE TABLE {side}.{table.short}_differing AS SELECT {columns}, "
        f"{table.time}::DATE AS differing_day FROM {side}.{table.short} "
        f"WHERE {table.time} >= DATE '{days[0]}' AND {table.time} < DATE '{days[-1]}' + 1 "
        f"AND {table.time}::DATE IN ({listed})"
    )


def _first_difference(ctx: Context, table: ComparedTable, days: tuple[date, ...]) -> Difference:
    """The first differing row of the first differing day, by table_diff."""
    (table_diff,) = ctx.table_diff(
        f"production.{table.short}_differing",
        f"rebuilt.{table.short}_differing",
        on=list(table.key),
        where=f"differing_day = '{days[0]}'",
        limit=SAMPLE_ROWS,
        show=False,
    )
    row_diff = table_diff.row_diff(skip_grain_check=True)
    for sample, column, sides in (
        (row_diff.joined_sample, True, (None, None)),
        (row_diff.s_sample, False, ("there", None)),
        (row_diff.t_sample, False, (None, "there")),
    ):
        if len(sample):
            row = sample.iloc[0].to_dict()
            key = ", ".join(f"{k} = {row[k]}" for k in table.key)
            if not column:
                return Difference(table.name, days, key, "", *sides)
            name, production, rebuilt = next(
                (c[3:], _text(row[c]), _text(row["t__" + c[3:]]))
                for c in row
                if c.startswith("s__") and _text(row[c]) != _text(row["t__" + c[3:]])
            )
            return Difference(table.name, days, key, name, production, rebuilt)
    return Difference(table.name, days, "a row that is there twice", "", "there", None)


def _text(value: Any) -> str:
    """A value of a sample; pandas has None or NaN where there is none."""
    return "NULL" if value is None or value != value else str(value)
