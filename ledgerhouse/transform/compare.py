"""Two editions of the curated tables in one file, `production.*` and the models' own, row by row.

Each day of both is told by the sum of its rows' hashes; days that differ are compared by SQLMesh's
`table_diff`, which names the rows. Amounts are compared as text: table_diff rounds decimals to
three places, and pandas would make floats of them.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ledgerhouse.process import quiet
from ledgerhouse.transform.sqlmesh_context import context
from ledgerhouse.warehouse.connection import connected, hold

DAYS_TOLD = 5  # differing days of a table that are compared row by row
ROWS_TOLD = 5
STATEMENTS = "sqlmesh.core.engine_adapter.base"  # table_diff logs each of its own, pages long


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
        more = (
            f" (and {len(self.days) - 1} more days, to {self.days[-1]})"
            if len(self.days) > 1
            else ""
        )
        what = (
            f"{self.column} is {self.production} in production, {self.rebuilt} rebuilt"
            if self.column
            else "the row is in production only"
            if self.rebuilt is None
            else "the row is rebuilt only"
        )
        return f"{self.table} differs on {self.days[0]}{more}: {self.key}: {what}"


def physical(con, name: str) -> tuple[str, str]:
    """Schema and name of what a model's view reads."""
    found = con.execute(
        "SELECT sql FROM duckdb_views() WHERE schema_name || '.' || view_name = ?", [name]
    ).fetchone()
    match = found and re.search(r'"?(sqlmesh__\w+)"?\."?(\w+)"?\s*;?\s*$', found[0])
    if not match:
        raise FileNotFoundError(f"{name} is not in the warehouse: a sync makes it")
    return match[1], match[2]


def compare(
    draft: Path, left_out: set[date], versions: dict[str, str]
) -> tuple[dict[str, int], list[Difference], tuple[str, ...]]:
    """Rows compared by table, the differences, and the models whose version is another one."""
    rows, differing, found = {}, {}, []
    with connected(draft) as con:
        con.execute("CREATE SCHEMA rebuilt")
        stale = tuple(t.name for t in TABLES if physical(con, t.name)[1] != versions[t.name])
        for table in TABLES:
            con.execute(f"CREATE VIEW rebuilt.{table.short} AS FROM {table.name}")
            rows[table.name], differing[table] = _days(con, table, left_out)
            if differing[table]:
                for side in ("production", "rebuilt"):
                    _as_text(con, table, side, differing[table][:DAYS_TOLD])
    if any(differing.values()):
        with (
            hold(draft, "rebuild"),
            context(draft) as (ctx, _),
            quiet(STATEMENTS, level=logging.CRITICAL),
        ):
            for table, days in differing.items():
                if days:
                    found.append(_first(ctx, table, days))
    return rows, found, stale


def _days(con, table: Compared, left_out: set[date]) -> tuple[int, tuple[date, ...]]:
    """Rows compared, and the days on which the two sides differ, oldest first."""
    both = {}
    for side in ("production", "rebuilt"):
        both[side] = [
            name
            for name, _ in con.execute(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = ? AND "
                "table_name = ? ORDER BY column_name",
                [side, table.short],
            ).fetchall()
        ]
    columns = ", ".join(f'"{name}"' for name in both["production"])
    if both["production"] != both["rebuilt"]:
        columns = ", ".join(f'"{n}"' for n in both["production"] if n in both["rebuilt"])

    def told(side: str) -> str:
        return (
            f"SELECT {table.time}::DATE AS day, count(*) AS rows, "
            f"sum(hash({columns})::HUGEINT) AS told FROM {side}.{table.short} GROUP BY day"
        )

    days = con.execute(
        f"SELECT day, coalesce(p.rows, 0), (p.rows, p.told) IS DISTINCT FROM "
        f"(r.rows, r.told) FROM ({told('production')}) p FULL JOIN "
        f"({told('rebuilt')}) r USING (day) ORDER BY day"
    ).fetchall()
    since = min(left_out) if left_out and table.running else date.max
    kept = [one for one in days if one[0] not in left_out and one[0] < since]
    return sum(rows for _, rows, _ in kept), tuple(day for day, _, differs in kept if differs)


def _as_text(con, table: Compared, side: str, days: tuple[date, ...]) -> None:
    """`<side>.<table>_told`: those days, every column but the key's as text."""
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
        f"CREATE TABLE {side}.{table.short}_told AS SELECT {columns}, "
        f"{table.time}::DATE AS told_day FROM {side}.{table.short} "
        f"WHERE {table.time} >= DATE '{days[0]}' AND {table.time} < DATE '{days[-1]}' + 1 "
        f"AND {table.time}::DATE IN ({listed})"
    )


def _first(ctx, table: Compared, days: tuple[date, ...]) -> Difference:
    """The first differing row of the first differing day, as table_diff tells it."""
    (diff,) = ctx.table_diff(
        f"production.{table.short}_told",
        f"rebuilt.{table.short}_told",
        on=list(table.key),
        where=f"told_day = '{days[0]}'",
        limit=ROWS_TOLD,
        show=False,
    )
    told = diff.row_diff(skip_grain_check=True)
    for sample, column, sides in (
        (told.joined_sample, True, None),
        (told.s_sample, False, ("there", None)),
        (told.t_sample, False, (None, "there")),
    ):
        if len(sample):
            row = sample.iloc[0].to_dict()
            key = ", ".join(f"{k} = {row[k]}" for k in table.key)
            if not column:
                return Difference(table.name, days, key, "", *sides)
            name, one, other = next(
                (c[3:], _text(row[c]), _text(row["t__" + c[3:]]))
                for c in row
                if c.startswith("s__") and _text(row[c]) != _text(row["t__" + c[3:]])
            )
            return Difference(table.name, days, key, name, one, other)
    return Difference(table.name, days, "a row that is there twice", "", "there", None)


def _text(value: Any) -> str:
    """A value of a sample; pandas has None or NaN where there is none."""
    return "NULL" if value is None or value != value else str(value)
