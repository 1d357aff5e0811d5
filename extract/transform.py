"""From raw to curated: reprocess exactly the days the loader touched, and survive any kill.

The order is what makes it crash-safe: read the marks (ops.touched_days, written in the transaction
that wrote the raw rows), make SQLMesh forget those days, run, require success; the caller checks
and publishes, and only then `consume` deletes the marks that were read. Whatever dies in between,
the same marks are met again and the same days are forgotten again. A plain run would not do: a
kill between two "forgets" leaves days marked done and stale.

    transform(who="sync") -> Transformed     marks read, days reprocessed, models run
    touched(con, batches)                    their marks again, and the days that changed by table
    consume(con, marks)                      after the checks have passed and the books are out
    plan_production(), sqlmesh(args)         the versions of the models that production runs

`state_sync.remove_intervals` is semi-internal (sqlmesh 0.236.4); tests/test_transform.py holds
what is used of it. No clock is read: the days themselves say how far to run, so a sandbox may
live in any year.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from extract.at_once import evaluate_at_once, plain
from extract.schema import create_all
from extract.source import Interval
from extract.spans import closed, joined
from extract.uncollected import uncollected
from extract.warehouse import WAIT_S, connected, hold, warehouse_path

log = logging.getLogger(__name__)

PROJECT = Path(__file__).parents[1] / "sqlmesh_project"
DAY = timedelta(days=1)
FIRST_DAY = date(2009, 1, 1)  # start of the models, as in sqlmesh_project/config.py
LAST_DAY = date(2200, 1, 1)  # a row dated later is a broken date: 65,000 more intervals a model
# A span costs 0.15 s a model whatever its size, as much as 40,000 rows. So past EXACT spans a gap
# that holds fewer is reprocessed with its neighbours, and past MOST the smallest gaps are.
ROWS_A_SPAN = 40_000
EXACT, MOST = 8, 64
ROWS_A_RUN = 3_000_000  # 10M rows at once ran out of the 4 GB that DuckDB may take
FILE = "warehouse.duckdb"  # config.py names the file itself, and so the catalog of the views

Mark = tuple[str, date, str]  # dataset, day, batch_id: a row of ops.touched_days
Span = tuple[date, date]  # [first day, day after the last)

# Days around a marked day whose rows may change with it: an entry looks for its fills a day around.
REACH = {
    "curated.staged_exchanges": {"exchanges_ledger": 0, "exchanges_trades": 1},
    "curated.tx_unified": {
        "exchanges_ledger": 0, "exchanges_trades": 1,
        "onchain_transactions": 0, "onchain_transfers": 0, "token_rescaled": 0,
    },
    "curated.assets": {"exchanges_ledger": 0, "onchain_tokens": 0},
}
REACH["curated.daily_flows"] = REACH["curated.tx_unified"]

# A token's decimals and symbol are part of every leg in it, also of legs loaded long before.
RESCALED = """
    WITH written AS (
        SELECT DISTINCT source, chain, token FROM raw.onchain_tokens
        WHERE batch_id IN (SELECT unnest($batches))
    )
    SELECT DISTINCT CAST(ts AS DATE) FROM raw.onchain_transfers
    WHERE (source, chain, token) IN (FROM written)
    UNION
    SELECT DISTINCT CAST(ts AS DATE) FROM raw.onchain_transactions
    WHERE pays_gas AND (source, chain, chain) IN (FROM written)
"""
MOVEMENTS = ("raw.exchanges_ledger", "raw.onchain_transactions", "raw.onchain_transfers")
TABLE_SIZES = " UNION ALL ".join(
    f"SELECT count(*) AS rows, min(ts) AS first, max(ts) AS last FROM {name}" for name in MOVEMENTS)
NEWEST = """
    SELECT GREATEST((SELECT MAX(ts) FROM raw.exchanges_ledger),
                    (SELECT MAX(ts) FROM raw.onchain_transactions),
                    (SELECT MAX(ts) FROM raw.onchain_transfers))
"""


class TransformFailed(RuntimeError):
    """A model or audit failed: curated keeps its published days, and the marks stay."""


@dataclass(frozen=True)
class Transformed:
    """What one transform did. `marks` goes to `consume` once the checks have passed."""

    marks: tuple[Mark, ...] = ()
    days: tuple[Span, ...] = ()  # reprocessed in curated.tx_unified, [start, end), oldest first
    models: tuple[str, ...] = ()  # models evaluated, in order
    planned: bool = False  # the prod environment was made by this call
    seconds: float = 0.0

    @property
    def spans(self) -> list[Interval]:
        """The marked days, neighbours together, oldest first: what is to be checked."""
        return [Interval(str(first), str(after)) for first, after in
                coalesce((day for _, day, _ in self.marks), limit=MOST)]

    @property
    def batches(self) -> list[str]:
        """The loads that marked them: what is to be published."""
        return sorted({batch for _, _, batch in self.marks})


def transform(path: Path | None = None, *, who: str, wait_s: float = WAIT_S) -> Transformed:
    """Bring curated up to date with every touched day; without marks SQLMesh is not even loaded.

    Holds the warehouse from reading the marks to the end of the run. Raises TransformFailed in
    plain words; the marks are never deleted here, so the next call repairs.
    """
    began = time.monotonic()
    with hold(Path(path or warehouse_path()), who, wait_s) as held:
        with connected(held) as con:
            create_all(con)
            marks = marks_of(con)
            days, newest, published = _days(con, marks), _newest(con), _has_views(con)
            rows_a_day = _rows_a_day(con)
            most = max(len(touched) for touched in days.values())
            pauses = _pauses(con) if most * rows_a_day > ROWS_A_RUN else []
        if published and not any(days.values()):
            return Transformed(marks=marks, seconds=time.monotonic() - began)
        apart = int(ROWS_A_SPAN / rows_a_day)
        spans = {model: coalesce(touched, apart=apart) for model, touched in days.items()}
        spans["curated.assets"] = coalesce(days["curated.assets"], limit=1)  # small in any case
        # To the newest row, not only the last marked day: heals what a plan by hand has left out.
        end = max([newest + DAY, *(span[-1][1] for span in spans.values() if span)])
        with context(held) as (ctx, story):
            planned = _ensure_production(ctx, story, published)
            tables = _tables(ctx)
            for model in tables - set(REACH):  # yours, downstream of ours: every day that moved
                spans[model] = spans["curated.tx_unified"]
            forget(ctx, spans)
            evaluate_at_once(ctx, REACH.keys() - {"curated.assets"})
            for stop in [*(day for day in pauses if day < end), end]:
                _run(ctx, story, tables, stop)
    return Transformed(
        marks=marks, days=tuple(spans["curated.tx_unified"]), models=tuple(story.evaluated),
        planned=planned, seconds=time.monotonic() - began,
    )


def touched(con, batches: Iterable[str]) -> tuple[tuple[Mark, ...], dict[str, set[date]]]:
    """The marks of these batches, and by table the days whose rows their load and transform may
    have changed."""
    wanted = set(batches)
    marks = tuple(mark for mark in marks_of(con) if mark[2] in wanted)
    days = _days(con, marks)
    days["curated.daily_balances"] = days["curated.daily_flows"]
    for dataset, day, _ in marks:
        days.setdefault(f"raw.{dataset}", set()).add(day)
    return marks, days


def consume(con, marks: Iterable[Mark]) -> int:
    """Delete exactly these marks (those written since stay), in one statement; how many went."""
    marks = list(marks)
    if not marks:
        return 0
    datasets, days, batches = (list(column) for column in zip(*marks))
    return con.execute(
        """
        DELETE FROM ops.touched_days WHERE (dataset, day, batch_id) IN (
            SELECT (unnest($datasets), unnest($days), unnest($batches)))
        """,
        {"datasets": datasets, "days": days, "batches": batches},
    ).fetchone()[0]


def plan_production(path: Path | None = None, *, who: str = "plan", wait_s: float = WAIT_S) -> bool:
    """Make the prod environment (and the curated views) when there is none; True when made.

    It backfills the models' first day only: the first transform does the rest.
    """
    with hold(Path(path or warehouse_path()), who, wait_s) as held:
        with connected(held) as con:
            create_all(con)
            published = _has_views(con)
        with context(held) as (ctx, story):
            return _ensure_production(ctx, story, published)


def sqlmesh_plan(args: Sequence[str], path: Path | None = None, *, wait_s: float = WAIT_S) -> int:
    """`sqlmesh plan ARGS` on the warehouse: see `sqlmesh`."""
    return sqlmesh(["plan", *args], path, wait_s=wait_s)


def sqlmesh(args: Sequence[str], path: Path | None = None, *, wait_s: float = WAIT_S) -> int:
    """`sqlmesh ARGS` on the warehouse, holding it meanwhile; the command's exit code.

    Unless told otherwise it plans up to the newest raw row, not up to the wall clock.
    """
    with hold(Path(path or warehouse_path()), f"sqlmesh {' '.join(args[:1])}", wait_s) as held:
        with connected(held) as con:
            create_all(con)
            newest = _newest(con)
        if args[:1] == ["plan"] and not any(a.startswith("--execution-time") for a in args):
            args = [*args, "--execution-time", str(newest + DAY)]
        command = Path(sys.executable).with_name("sqlmesh")
        return subprocess.run(
            [str(command), "--paths", str(PROJECT), "--log-file-dir", str(held.parent / "logs"),
             *args],
            env={**os.environ, "LEDGERHOUSE_VAR": str(held.parent)}, check=False,
        ).returncode


def coalesce(days: Iterable[date], limit: int = EXACT, apart: int | None = None) -> list[Span]:
    """Neighbouring days as spans, oldest first; past `limit` spans the smallest gaps are closed,
    but not those of `apart` days and more, unless there are MOST spans."""
    spans = joined((day, day + DAY) for day in set(days))
    gaps = max(0, len(spans) - limit)
    if apart is not None:
        near = sum((after[0] - before[1]).days < apart for before, after in zip(spans, spans[1:]))
        gaps = max(min(gaps, near), len(spans) - MOST)
    return closed(spans, gaps)


def forget(ctx, spans: dict[str, list[Span]]) -> None:
    """Mark the spans of each model as not done: one interval per model per call.

    In every version of it that is kept, not only production's: a version gone back to, or one
    that waits in a dev environment, would else keep those days as they were when it was left.
    `remove_intervals` keeps only the last of several intervals of one version, silently.
    """
    names = {s.name for s in ctx.state_sync.get_environment("prod").snapshots}
    versions: dict[str, dict[str, Any]] = {}
    for s in ctx.state_sync.get_snapshots_by_names(names, exclude_expired=False):
        versions.setdefault(plain(s.name), {})[s.version] = s
    for turn in range(max((len(each) for each in spans.values()), default=0)):
        ctx.state_sync.remove_intervals(
            [
                (version, tuple(_milliseconds(day) for day in each[turn]))
                for model, each in spans.items() if turn < len(each)
                for version in versions[model].values()
            ],
            remove_shared_versions=True,
        )


def _milliseconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp() * 1000)


def marks_of(con) -> tuple[Mark, ...]:
    """Every mark there is."""
    return tuple(con.execute(
        "SELECT DISTINCT dataset, day, batch_id FROM ops.touched_days ORDER BY ALL"
    ).fetchall())


def _rows_a_day(con) -> float:
    """Raw rows that move a balance, per day of the history; at least one."""
    rows, days = con.execute(
        f"SELECT sum(rows), date_diff('day', min(first), max(last)) + 1 FROM ({TABLE_SIZES})"
    ).fetchone()
    return max(1.0, float(rows) / days) if rows else 1.0


def _pauses(con) -> list[date]:
    """Where a run over all of the history pauses, oldest first: after each ROWS_A_RUN rows."""
    return [day for (day,) in con.execute(f"""
        SELECT max(day) + 1 FROM (
            SELECT day, sum(count(*)) OVER (ORDER BY day) // {ROWS_A_RUN} AS run FROM (
                {" UNION ALL ".join(f"SELECT ts::DATE AS day FROM {name}" for name in MOVEMENTS)})
            GROUP BY day) GROUP BY run ORDER BY 1""").fetchall()]


def _newest(con) -> date:
    """Day of the newest raw row that moves a balance; the models' first day when there is none."""
    (newest,) = con.execute(NEWEST).fetchone()
    return newest.date() if newest and newest.date() <= LAST_DAY else FIRST_DAY


def _has_views(con) -> bool:
    return bool(con.execute(
        "SELECT 1 FROM duckdb_views() WHERE schema_name = 'curated' AND view_name = 'tx_unified'"
    ).fetchall())


def _days(con, marks: Sequence[Mark]) -> dict[str, set[date]]:
    """Days to reprocess, per model. Raises TransformFailed for a day no model can hold."""
    marked: dict[str, set[date]] = {}
    for dataset, day, _ in marks:
        marked.setdefault(dataset, set()).add(day)
    batches = sorted({batch for dataset, _, batch in marks if dataset == "onchain_tokens"})
    if batches:
        moved = con.execute(RESCALED, {"batches": batches}).fetchall()
        marked["token_rescaled"] = {day for (day,) in moved}
    days = {
        model: {
            day + around * DAY
            for dataset, reach in datasets.items() for day in marked.get(dataset, ())
            for around in range(-reach, reach + 1)
        }
        for model, datasets in REACH.items()
    }
    for day in set().union(*days.values()):
        if not FIRST_DAY - DAY <= day <= LAST_DAY:
            raise TransformFailed(
                f"rows dated {day} are marked in ops.touched_days, but the models cover "
                f"{FIRST_DAY} to {LAST_DAY}. Mend the date where the source maps it; if it is "
                "true, move FIRST_DAY here and in sqlmesh_project/config.py and run `make plan`."
            )
    return days


@dataclass
class _Story:
    """What SQLMesh told while it ran: models evaluated, and why others failed."""

    evaluated: dict[str, int]  # model: number of intervals
    failures: list[str]


@contextmanager
def context(path: Path) -> Iterator:
    """A SQLMesh context on this warehouse, nothing parsed yet, and its story; closed at the end.

    Models come from the state, so the project's files are read only when there is a plan to make.
    """
    from sqlmesh.core import constants
    from sqlmesh.core.console import NoopConsole, get_console, set_console
    from sqlmesh.core.context import Context

    if path.name != FILE:
        raise ValueError(f"{path} cannot be transformed: the views name their file, {FILE}")
    story = _Story({}, [])

    class Listener(NoopConsole):  # here, because importing SQLMesh takes seconds
        def update_snapshot_evaluation_progress(self, snapshot, interval, *args, **kwargs):
            name = plain(snapshot.name)
            story.evaluated[name] = story.evaluated.get(name, 0) + 1

        def log_failed_models(self, errors):
            story.failures += [_reason(error) for error in errors]

    previous, var = get_console(), os.environ.get("LEDGERHOUSE_VAR")
    set_console(Listener())
    os.environ["LEDGERHOUSE_VAR"] = str(path.parent)
    # It would read eight small files with forked workers, which outlive a killed task and wait.
    constants.MAX_FORK_WORKERS = 1
    ctx = None
    try:
        with uncollected():
            ctx = Context(paths=str(PROJECT), load=False)
            yield ctx, story
    finally:
        if ctx is not None:
            ctx.close()
            ctx.engine_adapter.close()  # a context that never evaluated has not closed it
        set_console(previous)
        if var is None:
            del os.environ["LEDGERHOUSE_VAR"]
        else:
            os.environ["LEDGERHOUSE_VAR"] = var


def _ensure_production(ctx, story: _Story, published: bool) -> bool:
    """Make the prod environment where there is none, or where making it was cut short.

    A state that knows prod while the warehouse has no views (`published`) is that of a file since
    deleted: the state is in PostgreSQL, and the warehouse is being rebuilt from landing.
    """
    from sqlmesh.utils.errors import SQLMeshError

    environment = ctx.state_sync.get_environment("prod")
    if environment and environment.finalized_ts:
        if published:
            return False
        log.warning("the models' state belongs to a warehouse that is gone: starting it anew")
        ctx.state_sync.remove_state()
        ctx.migrate()
    log.info("making the prod environment of the models")
    try:
        ctx.load()
        ctx.plan(
            "prod", execution_time=str(FIRST_DAY + DAY), auto_apply=True, no_prompts=True,
            skip_tests=True, no_diff=True,
        )
    except SQLMeshError as error:
        raise TransformFailed(
            f"the prod environment could not be made: {'; '.join(story.failures) or error}"
        ) from error
    return True


def _tables(ctx) -> set[str]:
    """Models of prod that keep rows. Views are made by plans: a run would only make them again."""
    snapshots = ctx.state_sync.get_environment("prod").snapshots
    return {plain(s.name) for s in snapshots if not (s.is_view or s.is_symbolic or s.is_seed)}


def _run(ctx, story: _Story, models: set[str], end: date) -> None:
    """Run `models` over what they lack before `end`; TransformFailed unless all succeed."""
    from sqlmesh.core.scheduler import CompletionStatus

    try:
        status = ctx.run(
            "prod", end=str(end), execution_time=str(end), ignore_cron=True, skip_janitor=True,
            select_models=sorted(models), no_auto_upstream=True,
        )
    except Exception as error:
        raise TransformFailed(f"SQLMesh could not run the models: {error}") from error
    if status not in (CompletionStatus.SUCCESS, CompletionStatus.NOTHING_TO_DO) or story.failures:
        raise TransformFailed(
            "; ".join(story.failures or ["SQLMesh named no model"])
            + ". Days already published stay as they were; mend the cause and run again: the "
            "touched days are still marked."
        )


def _reason(error) -> str:
    """One failed model in words: which, over which days, and why."""
    node, cause = error.node, error.__cause__ or error
    log.error("%s", cause)  # whole, with DuckDB's pointer into the query
    days = ""
    if hasattr(node, "interval"):
        first, last = (datetime.fromtimestamp(ms / 1000, timezone.utc) for ms in node.interval)
        days = f" over [{first:%Y-%m-%d}, {last:%Y-%m-%d})"
    audits = getattr(cause, "errors", None)
    told = "; ".join(str(audit) for audit in audits) if audits else str(cause).strip()
    why = (told or repr(cause)).splitlines()[0]
    return f"{plain(node.snapshot_name)} failed{days}: {why}"
