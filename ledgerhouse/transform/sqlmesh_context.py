"""SQLMesh on this warehouse: a context, the prod environment of the models, their runs and plans.

    context(path)                      a SQLMesh context, and the record of what it evaluates
    ensure_production(ctx, …)          the prod environment, made where there is none
    invalidate_intervals(ctx, spans)   days marked as not done …
    run_models(ctx, …)                 … and evaluated again
    plan_production(), sqlmesh(args)   the versions of the models that production runs

The caller of the first three holds the warehouse. `state_sync.remove_intervals` is semi-internal
(sqlmesh 0.236.4); tests/ledgerhouse/transform/test_touched_days.py holds what is used of it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledgerhouse.config import warehouse_path
from ledgerhouse.process import gc_paused
from ledgerhouse.transform.optimized_queries import keep_optimized_queries
from ledgerhouse.transform.scattered_days import day_of, plain
from ledgerhouse.warehouse.connection import WAIT_S, connected, hold
from ledgerhouse.warehouse.schema import create_all

if TYPE_CHECKING:
    import duckdb
    from sqlmesh.core.context import Context
    from sqlmesh.core.environment import Environment
    from sqlmesh.utils.concurrency import NodeExecutionFailedError

log = logging.getLogger(__name__)

# As package data of an installed ledgerhouse; in a checkout, beside the packages.
PACKAGED_PROJECT = Path(__file__).parents[1] / "sqlmesh_project"
PROJECT = (
    PACKAGED_PROJECT if PACKAGED_PROJECT.is_dir() else Path(__file__).parents[2] / "sqlmesh_project"
)
FILE = "warehouse.duckdb"  # config.py names the file itself, and so the catalog of the views
DAY = timedelta(days=1)
FIRST_DAY = date(2009, 1, 1)  # start of the models, as in sqlmesh_project/config.py
LAST_DAY = date(2200, 1, 1)  # a row dated later is a broken date: 65,000 more intervals a model

Span = tuple[date, date]  # [first day, day after the last)

NEWEST = """
    SELECT GREATEST((SELECT MAX(ts) FROM raw.exchanges_ledger),
                    (SELECT MAX(ts) FROM raw.onchain_transactions),
                    (SELECT MAX(ts) FROM raw.onchain_transfers),
                    (SELECT MAX(ts) FROM raw.adjustments))
"""


class TransformFailed(RuntimeError):
    """A model or audit failed: curated keeps its published days, and the marks stay."""


@dataclass
class Evaluations:
    """Record of a SQLMesh context: the models it evaluated, and why others failed."""

    intervals: dict[str, int]  # evaluated, by model, in order
    failures: list[str]


@contextmanager
def context(path: Path) -> Iterator[tuple[Context, Evaluations]]:
    """A SQLMesh context on this warehouse, nothing parsed yet, and its record; closed at the end.

    Models come from the state, so the project's files are read only when there is a plan to make.
    """
    from sqlmesh.core import constants
    from sqlmesh.core.console import NoopConsole, get_console, set_console
    from sqlmesh.core.context import Context

    if path.name != FILE:
        raise ValueError(f"{path} cannot be transformed: the views name their file, {FILE}")
    evaluations = Evaluations({}, [])

    class Listener(NoopConsole):  # here, because importing SQLMesh takes seconds
        def update_snapshot_evaluation_progress(self, snapshot, interval, *args, **kwargs):
            name = plain(snapshot.name)
            evaluations.intervals[name] = evaluations.intervals.get(name, 0) + 1

        def log_failed_models(self, errors):
            evaluations.failures += [_reason(error) for error in errors]

    previous, var = get_console(), os.environ.get("LEDGERHOUSE_VAR")
    set_console(Listener())
    os.environ["LEDGERHOUSE_VAR"] = str(path.parent)
    # It would read eight small files with forked workers, which outlive a killed task and wait.
    constants.MAX_FORK_WORKERS = 1
    keep_optimized_queries()
    ctx = None
    try:
        with gc_paused():
            ctx = Context(paths=str(PROJECT), load=False)
            yield ctx, evaluations
    finally:
        if ctx is not None:
            ctx.close()
            ctx.engine_adapter.close()  # a context that never evaluated has not closed it
        set_console(previous)
        if var is None:
            del os.environ["LEDGERHOUSE_VAR"]
        else:
            os.environ["LEDGERHOUSE_VAR"] = var


def ensure_production(
    ctx: Context, evaluations: Evaluations, published: bool, current: bool = True
) -> bool:
    """Make the prod environment where there is none, or where making it was cut short; and again
    where its models are of a version that this one cannot go on with (not `current`).

    A state that knows prod while the warehouse has no views (`published`) is that of a file since
    deleted: the state is in PostgreSQL, and the warehouse is being rebuilt from landing.
    """
    from sqlmesh.utils.errors import SQLMeshError

    environment = ctx.state_sync.get_environment("prod")
    if environment and environment.finalized_ts:
        if published and current:
            return False
    if environment and environment.finalized_ts and not published:
        log.warning("the models' state belongs to a warehouse that is gone: starting a new one")
        ctx.state_sync.remove_state()
        ctx.migrate()
    log.info("making the prod environment of the models")
    try:
        ctx.load()
        ctx.plan(
            "prod",
            execution_time=str(FIRST_DAY + DAY),
            auto_apply=True,
            no_prompts=True,
            skip_tests=True,
            no_diff=True,
        )
    except SQLMeshError as error:
        raise TransformFailed(
            f"the prod environment could not be made: {'; '.join(evaluations.failures) or error}"
        ) from error
    return True


def tables_of(ctx: Context) -> set[str]:
    """Models of prod that keep rows. Views are made by plans: a run would only make them again."""
    snapshots = _production(ctx).snapshots
    return {plain(s.name) for s in snapshots if not (s.is_view or s.is_symbolic or s.is_seed)}


def invalidate_intervals(ctx: Context, spans: dict[str, list[Span]]) -> None:
    """Mark the spans of each model as not done: one interval per model per call.

    In every version of it that is kept, not only production's: otherwise a version gone back to,
    or one of a dev environment, would keep those days as they were when it was last run.
    `remove_intervals` keeps only the last of several intervals of one version, silently.
    """
    names = {s.name for s in _production(ctx).snapshots}
    versions: dict[str, dict[str, Any]] = {}
    for s in ctx.state_sync.get_snapshots_by_names(names, exclude_expired=False):
        versions.setdefault(plain(s.name), {})[s.version] = s
    for turn in range(max((len(each) for each in spans.values()), default=0)):
        ctx.state_sync.remove_intervals(
            [
                (version, (_milliseconds(each[turn][0]), _milliseconds(each[turn][1])))
                for model, each in spans.items()
                if turn < len(each)
                for version in versions[model].values()
            ],
            remove_shared_versions=True,
        )


def _production(ctx: Context) -> Environment:
    environment = ctx.state_sync.get_environment("prod")
    assert environment is not None, "ensure_production comes first"
    return environment


def midnight(day: date) -> datetime:
    """The instant at which a UTC day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _milliseconds(day: date) -> int:
    return int(midnight(day).timestamp() * 1000)


def run_models(ctx: Context, evaluations: Evaluations, models: set[str], end: date) -> None:
    """Run `models` over what they lack before `end`; TransformFailed unless all succeed."""
    from sqlmesh.utils import CompletionStatus

    try:
        status = ctx.run(
            "prod",
            end=str(end),
            execution_time=str(end),
            ignore_cron=True,
            skip_janitor=True,
            select_models=sorted(models),
            no_auto_upstream=True,
        )
    except Exception as error:
        raise TransformFailed(f"SQLMesh could not run the models: {error}") from error
    if (
        status not in (CompletionStatus.SUCCESS, CompletionStatus.NOTHING_TO_DO)
        or evaluations.failures
    ):
        raise TransformFailed(
            "; ".join(evaluations.failures or ["SQLMesh named no model"])
            + ". Days already published stay as they were; fix the cause and run again: the "
            "touched days are still marked."
        )


def plan_production(
    path: Path | None = None, *, owner: str = "plan", wait_s: float = WAIT_S
) -> bool:
    """Make the prod environment (and the curated views) where there is none; True when made.

    It backfills the models' first day only: the first transform does the rest.
    """
    with hold(Path(path or warehouse_path()), owner, wait_s) as held:
        with connected(held) as con:
            create_all(con)
            published = has_views(con)
        with context(held) as (ctx, evaluations):
            return ensure_production(ctx, evaluations, published)


def sqlmesh_plan(args: Sequence[str], path: Path | None = None, *, wait_s: float = WAIT_S) -> int:
    """`sqlmesh plan ARGS` on the warehouse: see `sqlmesh`."""
    return sqlmesh(["plan", *args], path, wait_s=wait_s)


def sqlmesh(args: Sequence[str], path: Path | None = None, *, wait_s: float = WAIT_S) -> int:
    """`sqlmesh ARGS` on the warehouse, holding it meanwhile; the command's exit code.

    Without --execution-time it plans up to the newest raw row, not up to the wall clock.
    """
    with hold(Path(path or warehouse_path()), f"sqlmesh {' '.join(args[:1])}", wait_s) as held:
        with connected(held) as con:
            create_all(con)
            newest = newest_day(con)
        if args[:1] == ["plan"] and not any(a.startswith("--execution-time") for a in args):
            args = [*args, "--execution-time", str(newest + DAY)]
        command = Path(sys.executable).with_name("sqlmesh")
        return subprocess.run(
            [
                str(command),
                "--paths",
                str(PROJECT),
                "--log-file-dir",
                str(held.parent / "logs"),
                *args,
            ],
            env={**os.environ, "LEDGERHOUSE_VAR": str(held.parent)},
            check=False,
        ).returncode


def newest_day(con: duckdb.DuckDBPyConnection) -> date:
    """Day of the newest raw row that moves a balance; the models' first day when there is none."""
    ((newest,),) = con.execute(NEWEST).fetchall()
    return newest.date() if newest and newest.date() <= LAST_DAY else FIRST_DAY


def has_views(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the curated views are there: a plan has made the prod environment."""
    return bool(
        con.execute(
            "SELECT 1 FROM duckdb_views() WHERE schema_name = 'curated' AND view_name = 'tx_unified'"
        ).fetchall()
    )


def is_current(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the views are of a version that knows adjustments and kinds of differences."""
    return bool(
        con.execute(
            "SELECT 1 FROM duckdb_columns() WHERE schema_name = 'curated' "
            "AND table_name = 'reconciliation' AND column_name = 'residual_value'"
        ).fetchall()
    )


def _reason(error: NodeExecutionFailedError) -> str:
    """A failed model as one sentence: which, over which days, and why."""
    node, cause = error.node, error.__cause__ or error
    log.error("%s", cause)  # whole, with DuckDB's pointer into the query
    days = ""
    interval = getattr(cause, "interval", getattr(node, "interval", None))  # of one span, of all
    if interval:
        days = f" over [{day_of(interval[0])}, {day_of(interval[1])})"
    audits = getattr(cause, "errors", None)
    message = "; ".join(str(audit) for audit in audits) if audits else str(cause).strip()
    why = (message or repr(cause)).splitlines()[0]
    return f"{plain(node.snapshot_name)} failed{days}: {why}"
