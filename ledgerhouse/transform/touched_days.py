"""From raw to curated: reprocess exactly the days the loader touched, and survive any kill.

The order is what makes it crash-safe: read the marks (ops.touched_days, written in the transaction
that wrote the raw rows), invalidate those days in SQLMesh's state, run, require success; the
caller checks and publishes, and only then `clear_touched_days` deletes the marks that were read.
Whatever dies in between, the next call reads the same marks and invalidates the same days. A plain
run would not do: a kill between two calls of `invalidate_intervals` leaves stale days marked done.

    transform(owner="sync") -> Transformed   marks read, days reprocessed, models run
    touched(con, batches)                    marks of these batches, and the days they change by table
    clear_touched_days(con, marks)           after the checks have passed and the books are out

No clock is read: the days themselves say how far to run, so a sandbox may live in any year.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core.interval import Interval, closed, joined
from ledgerhouse.config import warehouse_path
from ledgerhouse.transform.adjustments import settle
from ledgerhouse.transform.scattered_days import evaluate_scattered_days
from ledgerhouse.transform.sqlmesh_context import (
    DAY,
    FIRST_DAY,
    LAST_DAY,
    Span,
    TransformFailed,
    context,
    ensure_production,
    has_views,
    invalidate_intervals,
    is_current,
    midnight,
    newest_day,
    run_models,
    tables_of,
)
from ledgerhouse.warehouse.connection import WAIT_S, connected, hold
from ledgerhouse.warehouse.schema import create_all

if TYPE_CHECKING:
    import duckdb

MAX_SPANS = 64  # past them the smallest gaps are reprocessed with their neighbours
# In a model whose days are evaluated one by one a span costs 0.15 s whatever its size, as much as
# 40,000 rows: so past EXACT_SPANS any gap that holds fewer is reprocessed too.
ROWS_A_SPAN = 40_000
EXACT_SPANS = 8
ROWS_A_RUN = 3_000_000  # 10M rows in one run exceeded the 4 GB that DuckDB may take

Mark = tuple[str, date, str]  # dataset, day, batch_id: a row of ops.touched_days

# By model and dataset: days around a marked day whose rows may change with it, for an entry looks
# for its fills a day around.
AFFECTED_DAYS = {
    "curated.staged_exchanges": {"exchanges_ledger": 0, "exchanges_trades": 1},
    "curated.tx_unified": {
        "exchanges_ledger": 0,
        "exchanges_trades": 1,
        "onchain_transactions": 0,
        "onchain_transfers": 0,
        "token_rescaled": 0,
        "adjustments": 0,
    },
    "curated.assets": {"exchanges_ledger": 0, "onchain_tokens": 0},
}
AFFECTED_DAYS["curated.daily_flows"] = AFFECTED_DAYS["curated.tx_unified"]

# Days of the legs of tokens whose row these batches wrote: a token's decimals and symbol are part
# of every leg in it, also of legs loaded long before. So is the token that a chain's gas is paid
# in; a chain first met that has a token of its own id, as was taken for granted, changes none.
RESCALED = """
    WITH written AS (
        SELECT DISTINCT source, chain, token FROM raw.onchain_tokens
        WHERE batch_id IN (SELECT unnest($batches))
    ), chains AS (
        SELECT source, chain FROM raw.onchain_chains
        WHERE batch_id IN (SELECT unnest($batches))
          AND (coalesce(native_token, chain) <> chain OR changed_at > first_seen_at)
        UNION
        SELECT w.source, w.chain FROM written w
        LEFT JOIN raw.onchain_chains n ON n.source = w.source AND n.chain = w.chain
        WHERE w.token = coalesce(n.native_token, w.chain)
    )
    SELECT DISTINCT CAST(ts AS DATE) FROM raw.onchain_transfers
    WHERE (source, chain, token) IN (FROM written)
    UNION
    SELECT DISTINCT CAST(ts AS DATE) FROM raw.onchain_transactions
    WHERE pays_gas AND (source, chain) IN (FROM chains)
"""
MOVEMENTS = ("raw.exchanges_ledger", "raw.onchain_transactions", "raw.onchain_transfers")
TABLE_SIZES = " UNION ALL ".join(
    f"SELECT count(*) AS rows, min(ts) AS first, max(ts) AS last FROM {name}" for name in MOVEMENTS
)


class Superseded(Exception):
    """Another run has loaded days since, which are not transformed yet: that run checks and
    publishes them all."""


@dataclass(frozen=True)
class Transformed:
    """The result of one transform. `marks` goes to `clear_touched_days` once the checks have passed."""

    marks: tuple[Mark, ...] = ()
    days: tuple[Span, ...] = ()  # reprocessed in curated.tx_unified, [start, end), oldest first
    models: tuple[str, ...] = ()  # models evaluated, in order
    # By table, the days whose rows the loads and this transform may have changed: what is published.
    changed: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    planned: bool = False  # the prod environment was made by this call
    seconds: float = 0.0

    def and_then(self, later: Transformed) -> Transformed:
        """Both in one; `later` came after this."""
        spans = {
            table: tuple(joined([*self.changed.get(table, ()), *later.changed.get(table, ())]))
            for table in self.changed.keys() | later.changed.keys()
        }
        return replace(
            later,
            marks=tuple(sorted({*self.marks, *later.marks})),
            days=tuple(joined([*self.days, *later.days])),
            changed=spans,
            models=(*self.models, *(m for m in later.models if m not in self.models)),
            planned=self.planned or later.planned,
        )

    @property
    def spans(self) -> list[Interval]:
        """The marked days as spans, oldest first: what is to be checked."""
        return [
            Interval(midnight(first), midnight(after))
            for first, after in coalesce(day for _, day, _ in self.marks)
        ]

    @property
    def batches(self) -> list[str]:
        """The loads that marked them: what is to be published."""
        return sorted({batch for _, _, batch in self.marks})


def transform(
    path: Path | None = None, *, owner: str, wait_s: float = WAIT_S, settled: bool = False
) -> Transformed:
    """Bring curated up to date with every touched day; without marks SQLMesh is not even loaded.

    Then with the adjustments that follow from it: the models run once more over the days on which
    those changed. `settled`: raw.adjustments is as it is to be, and is not derived again.

    Holds the warehouse from reading the marks to the end of the run. Raises TransformFailed in
    plain words; the marks are never deleted here, so the next call repairs.
    """
    began = time.monotonic()
    with hold(Path(path or warehouse_path()), owner, wait_s) as held:
        done = _transform(held, began)
        if not settled:
            with connected(held) as con:
                batch = settle(con, held.parent / "landing")
            if batch:
                done = done.and_then(_transform(held, began, batch))
    return done


def _transform(held: Path, began: float, batch: str | None = None) -> Transformed:
    """The models over the days that are marked; of `batch` alone where it is given."""
    with connected(held) as con:
        create_all(con)
        marks = tuple(mark for mark in marks_of(con) if batch in (None, mark[2]))
        days, newest, published = _days(con, marks), newest_day(con), has_views(con)
        current = is_current(con)
        changed = {
            table: tuple(joined((day, day + DAY) for day in touched))
            for table, touched in _changed(days, marks).items()
        }
        rows_a_day = _rows_a_day(con)
        max_days = max(len(affected) for affected in days.values())
        pauses = _pauses(con) if max_days * rows_a_day > ROWS_A_RUN or not current else []
    if published and current and not any(days.values()):
        return Transformed(marks=marks, changed=changed, seconds=time.monotonic() - began)
    spans = {model: coalesce(affected) for model, affected in days.items()}
    spans["curated.assets"] = coalesce(days["curated.assets"], limit=1)  # small in any case
    # To the newest row, not only the last marked day: also what a plan by hand has left out.
    end = max([newest + DAY, *(span[-1][1] for span in spans.values() if span)])
    with context(held) as (ctx, evaluations):
        planned = ensure_production(ctx, evaluations, published, current)
        tables = tables_of(ctx)
        for model in tables - set(AFFECTED_DAYS):  # of users, downstream: every affected day
            spans[model] = coalesce(
                days["curated.tx_unified"],
                limit=EXACT_SPANS,
                wide_gap=int(ROWS_A_SPAN / rows_a_day),
            )
        invalidate_intervals(ctx, spans)
        evaluate_scattered_days(ctx)
        for stop in [*(day for day in pauses if day < end), end]:
            run_models(ctx, evaluations, tables, stop)
    return Transformed(
        marks=marks,
        days=tuple(spans["curated.tx_unified"]),
        changed=changed,
        models=tuple(evaluations.intervals),
        planned=planned,
        seconds=time.monotonic() - began,
    )


def touched(
    con: duckdb.DuckDBPyConnection, batches: Iterable[str]
) -> tuple[tuple[Mark, ...], dict[str, set[date]]]:
    """The marks of these batches, and by table the days whose rows their load and transform may
    have changed."""
    wanted = set(batches)
    marks = tuple(mark for mark in marks_of(con) if mark[2] in wanted)
    return marks, _changed(_days(con, marks), marks)


def _changed(days: Mapping[str, set[date]], marks: Iterable[Mark]) -> dict[str, set[date]]:
    """The days of every table: `days` of the models, the balances that follow the flows, raw."""
    changed = {**days, "curated.daily_balances": days["curated.daily_flows"]}
    for dataset, day, _ in marks:
        changed.setdefault(f"raw.{dataset}", set()).add(day)
    return changed


def clear_touched_days(con: duckdb.DuckDBPyConnection, marks: Iterable[Mark]) -> int:
    """Delete exactly these marks (those written since stay), in one statement; returns how many."""
    marks = list(marks)
    if not marks:
        return 0
    datasets, days, batches = (list(column) for column in zip(*marks))
    ((deleted,),) = con.execute(
        """
        DELETE FROM ops.touched_days WHERE (dataset, day, batch_id) IN (
            SELECT (unnest($datasets), unnest($days), unnest($batches)))
        """,
        {"datasets": datasets, "days": days, "batches": batches},
    ).fetchall()
    return deleted


def coalesce(
    days: Iterable[date], limit: int = MAX_SPANS, wide_gap: int | None = None
) -> list[Span]:
    """Days as spans of neighbours, oldest first. Past `limit` spans the smallest gaps are closed,
    those of `wide_gap` days and more only past MAX_SPANS."""
    spans = joined((day, day + DAY) for day in set(days))
    gaps = max(0, len(spans) - limit)
    if wide_gap is not None:
        narrow = sum((b[0] - a[1]).days < wide_gap for a, b in zip(spans, spans[1:]))
        gaps = max(min(gaps, narrow), len(spans) - MAX_SPANS)
    return closed(spans, gaps)


def marks_of(con: duckdb.DuckDBPyConnection) -> tuple[Mark, ...]:
    """Every mark in ops.touched_days."""
    return tuple(
        con.execute(
            "SELECT DISTINCT dataset, day, batch_id FROM ops.touched_days ORDER BY ALL"
        ).fetchall()
    )


def refuse_later_loads(con: duckdb.DuckDBPyConnection, batches: Collection[str]) -> None:
    """Raise Superseded where there are marks of batches not among `batches`, those transformed."""
    others = {batch for _, _, batch in marks_of(con)} - set(batches)
    if others:
        raise Superseded(
            f"{len(others)} batch(es) loaded since by another run are not transformed and checked "
            "yet; that run publishes these days too, once its checks have passed"
        )


def _rows_a_day(con: duckdb.DuckDBPyConnection) -> float:
    """Raw rows that move a balance, per day of the history; at least one."""
    ((rows, days),) = con.execute(
        f"SELECT sum(rows), date_diff('day', min(first), max(last)) + 1 FROM ({TABLE_SIZES})"
    ).fetchall()
    return max(1.0, float(rows) / days) if rows else 1.0


def _pauses(con: duckdb.DuckDBPyConnection) -> list[date]:
    """Days before which each run over the whole history ends: after each ROWS_A_RUN rows."""
    return [
        day
        for (day,) in con.execute(f"""
        SELECT max(day) + 1 FROM (
            SELECT day, sum(count(*)) OVER (ORDER BY day) // {ROWS_A_RUN} AS run FROM (
                {" UNION ALL ".join(f"SELECT ts::DATE AS day FROM {name}" for name in MOVEMENTS)})
            GROUP BY day) GROUP BY run ORDER BY 1""").fetchall()
    ]


def _days(con: duckdb.DuckDBPyConnection, marks: Sequence[Mark]) -> dict[str, set[date]]:
    """Days to reprocess, per model. Raises TransformFailed for a day no model can hold."""
    marked: dict[str, set[date]] = {}
    for dataset, day, _ in marks:
        marked.setdefault(dataset, set()).add(day)
    named = ("onchain_tokens", "onchain_chains")
    batches = sorted({batch for dataset, _, batch in marks if dataset in named})
    if batches:
        rescaled = con.execute(RESCALED, {"batches": batches}).fetchall()
        marked["token_rescaled"] = {day for (day,) in rescaled}
    days = {
        model: {
            day + offset * DAY
            for dataset, around in datasets.items()
            for day in marked.get(dataset, ())
            for offset in range(-around, around + 1)
        }
        for model, datasets in AFFECTED_DAYS.items()
    }
    for day in set().union(*days.values()):
        if not FIRST_DAY - DAY <= day <= LAST_DAY:
            raise TransformFailed(
                f"rows dated {day} are marked in ops.touched_days, but the models cover "
                f"{FIRST_DAY} to {LAST_DAY}. Fix the date where the source maps it; if it is "
                "true, move FIRST_DAY here and in sqlmesh_project/config.py and run `make plan`."
            )
    return days
