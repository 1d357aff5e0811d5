"""Evaluation of several scattered days of a model together, instead of one evaluation a day.

SQLMesh evaluates one contiguous interval at a time, and rendering a model and its audits costs it
0.25 s whatever the interval's size: twenty late days cost twenty times that in each model. Here
the days of a model are one batch: SQLMesh evaluates it from the first day to the last, and each of
its three steps is bounded to the days themselves:

    query            the macros @touched and @touched_rows (sqlmesh_project/macros/touched.py)
    delete, insert   `TxDuckDBAdapter.touched_spans` (sqlmesh_project/config.py)
    audits           `@this_model` is a temporary view of those days, and the same macros

Only a model that asks for its days by these macros is evaluated so (`bounded_by_touched`): it
promises that no row depends on which other days are evaluated with its own, held for ours by
tests/ledgerhouse/transform/test_scattered_days.py. Any other model is evaluated day by day, also
one of ours that production still runs in a version from before the macros. So are all when a batch
fails: SQLMesh then names the day, and the days before it are done. An audit that sums over its
interval sums over all the days; the checkpoints compare each day and token.

Semi-internal to SQLMesh (0.236.4): `Context.create_scheduler`, `Scheduler.batch_intervals` and
`evaluate`, `SnapshotEvaluator.evaluate`, held by the same tests.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlmesh.core.context import Context
    from sqlmesh.core.engine_adapter.base import EngineAdapter
    from sqlmesh.core.snapshot import Snapshot

log = logging.getLogger(__name__)

Span = tuple[int, int]  # [start, end) in milliseconds, as SQLMesh has them
MACROS = {"touched", "touched_rows"}
AUDITED_VIEW = "touched_rows_of_this_model"  # temporary: of the connection


def bounded_by_touched(snapshot: Snapshot) -> bool:
    """Whether a model's days can be evaluated together: everything of it that is bounded to an
    interval is bounded by @touched or @touched_rows."""
    from sqlmesh.core.dialect import MacroFunc, MacroVar

    model: Any = snapshot.model
    if (
        not snapshot.is_incremental_by_time_range
        or not model.is_sql
        or model.depends_on_self
        or model.batch_size
        or model.pre_statements
        or model.post_statements
    ):
        return False
    queries = [model.query, *(audit.query for audit, _ in model.audits_with_args)]
    if any(
        variable.name.lower().startswith(("start_", "end_"))
        for query in queries
        for variable in query.find_all(MacroVar)
    ):
        return False
    return any(macro.name.lower() in MACROS for macro in model.query.find_all(MacroFunc))


def evaluate_scattered_days(ctx: Context) -> None:
    """Have the runs of this SQLMesh context evaluate all days of a model together where they can.

    Where they are evaluated by themselves, an exception carries its day as `interval`.
    """
    from sqlmesh.core.scheduler import Scheduler
    from sqlmesh.core.snapshot import SnapshotIntervals
    from sqlmesh.core.snapshot.definition import parent_snapshots_by_name
    from sqlmesh.utils.date import now_timestamp

    class ScatteredDaysScheduler(Scheduler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.scattered: dict[str, list[Span]] = {}

        def batch_intervals(self, *args, **kwargs):
            batches = super().batch_intervals(*args, **kwargs)
            for snapshot, spans in batches.items():
                if len(spans) > 1 and bounded_by_touched(snapshot):
                    self.scattered[snapshot.name] = spans
                    batches[snapshot] = [(spans[0][0], spans[-1][1])]
            return batches

        def evaluate(self, snapshot, start, end, *args, **kwargs):
            spans = self.scattered.get(snapshot.name)
            if not spans:
                return super().evaluate(snapshot, start, end, *args, **kwargs)
            try:
                return self.evaluate_together(snapshot, spans, *args, **kwargs)
            except Exception as error:
                log.warning(
                    "%s failed over %d spans of days together, so each is evaluated by itself: %s",
                    plain(snapshot.name),
                    len(spans),
                    error,
                )
            results = []
            for span in spans:
                try:
                    results += super().evaluate(snapshot, *span, *args, **kwargs)
                except Exception as error:
                    error.interval = span  # type: ignore[attr-defined]
                    raise
            return results

        def evaluate_together(
            self, snapshot, spans, execution_time, deployability_index, batch_index, **kwargs
        ):
            """`Scheduler.evaluate` over several spans: evaluate, audit, record exactly them."""
            adapter: Any = self.snapshot_evaluator.get_adapter(snapshot.model_gateway)
            common = {
                "start": spans[0][0],
                "end": spans[-1][1],
                "execution_time": execution_time,
                "snapshots": parent_snapshots_by_name(snapshot, self.snapshots),
                "deployability_index": deployability_index,
                "touched_spans": [inclusive(span) for span in spans],
            }
            environment = kwargs.pop("environment_naming_info", None)
            adapter.touched_spans = spans
            try:
                self.snapshot_evaluator.evaluate(
                    snapshot, batch_index=batch_index, **common, **kwargs
                )
            finally:
                adapter.touched_spans = ()
            results = self._audit_snapshot(
                snapshot=snapshot,
                environment_naming_info=environment,
                this_model=audited_view(adapter, snapshot, spans),
                **common,
            )
            self.state_sync.add_snapshots_intervals(
                [
                    SnapshotIntervals(
                        name=snapshot.name,
                        identifier=snapshot.identifier,
                        version=snapshot.version,
                        dev_version=snapshot.dev_version,
                        intervals=spans,
                        dev_intervals=[],
                        last_altered_ts=now_timestamp(),
                    )
                ]
            )
            return results

    def create_scheduler(snapshots, snapshot_evaluator):
        return ScatteredDaysScheduler(
            snapshots,
            snapshot_evaluator,
            ctx.state_sync,
            default_catalog=ctx.default_catalog,
            max_workers=ctx.concurrent_tasks,
            console=ctx.console,
            notification_target_manager=ctx.notification_target_manager,
        )

    ctx.create_scheduler = create_scheduler


def audited_view(adapter: EngineAdapter, snapshot: Snapshot, spans: Sequence[Span]) -> Any:
    """A temporary view of a model's rows of these days, each span read by its range."""
    from sqlglot import exp

    table, model = snapshot.table_name(), snapshot.model
    columns, time_column = adapter.columns(table), model.time_column
    assert time_column is not None, "an incremental model by time range has one"
    bounds = [
        [model.convert_to_time_column(at, columns) for at in inclusive(span)] for span in spans
    ]
    adapter.execute(
        exp.Create(
            this=exp.to_table(AUDITED_VIEW),
            kind="VIEW",
            replace=True,
            properties=exp.Properties(expressions=[exp.TemporaryProperty()]),
            expression=exp.union(
                *(
                    exp.select("*")
                    .from_(exp.to_table(table))
                    .where(time_column.column.between(first, last))
                    for first, last in bounds
                ),
                distinct=False,
            ),
        )
    )
    return exp.to_table(AUDITED_VIEW)


def inclusive(span: Span) -> tuple[str, str]:
    """First and last microsecond of a span, as @start_ts and @end_ts write them."""
    from sqlmesh.utils.date import make_inclusive, to_ts

    first, last = make_inclusive(*span, "duckdb")
    return to_ts(first), to_ts(last)


def day_of(milliseconds: int) -> date:
    """The UTC day of an instant as SQLMesh has it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date()


def plain(name: str) -> str:
    """curated.tx_unified from the quoted name with its catalog."""
    return name.replace('"', "").split(".", 1)[1]
