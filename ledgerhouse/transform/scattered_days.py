"""Days that lie apart, evaluated by SQLMesh in one go instead of one evaluation a day.

SQLMesh evaluates one contiguous interval at a time, and rendering a model and its audits costs it
0.25 s whatever the interval's size: twenty late days cost twenty times that in each model. Here
the scheduler is given one batch from the first day to the last, and the adapter bounds what
SQLMesh then executes (the delete, the insert, the audits) to the days themselves:

    ts BETWEEN <first> AND <last>
    ts BETWEEN <first> AND <last> AND (ts BETWEEN <day 1> AND <day 1> OR ts BETWEEN …)

It is right for a model whose rows do not depend on how many days are evaluated together, which is
held by tests for ours (tests/ledgerhouse/transform/test_touched_days.py); other models are evaluated day by day as ever. So
are ours when a batch fails: SQLMesh then names the day, and the days before it are done. An audit
that sums over its interval sums over all spans; the checkpoints compare each day and token.

Semi-internal to SQLMesh (0.236.4): `Context.create_scheduler`, `Scheduler.batch_intervals` and
`evaluate`, held by the same tests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

log = logging.getLogger(__name__)

Span = tuple[int, int]  # [start, end) in milliseconds, as SQLMesh has them
DAY = timedelta(days=1)


def bounded(
    expression: Any, spans: Sequence[tuple[date, date]], tables: Collection[str] = ()
) -> list[Any]:
    """A statement over [first day, last day] as those that do the same over `spans`, [start, end)
    in order: a DELETE becomes one of each span, any other stays one.

    Of `tables` (by name, no views) the spans are read range by range, as UNION ALL: zone maps help
    a range and not an OR of ranges. A view is read once: twenty of its plans would take longer.

    Where a condition (of WHERE, HAVING, QUALIFY or ON) speaks of the first or the last day, so do
    its alternatives of each span; the parts of an AND that do are kept together. Raises ValueError
    for a day outside of a condition: it cannot be said for several spans.
    """
    from sqlglot import exp

    first, last = str(spans[0][0]), str(spans[-1][1] - DAY)
    moves = [{first: str(start), last: str(end - DAY)} for start, end in spans]
    whole = expression.copy()
    parts: dict[int, list[Any]] = {}  # by clause: its parts that speak of a bound, in order
    for literal in list(whole.find_all(exp.Literal)):
        if literal.is_string and literal.this[:10] in (first, last):
            clause, part = _part(literal)
            mine = parts.setdefault(id(clause), [])
            if not any(part is other for other in mine):
                mine.append(part)
    if isinstance(whole, exp.Delete) and parts:
        return [_moved(whole, move) for move in moves]
    for mine in parts.values():
        choices = [exp.and_(*(_moved(part, move) for part in mine)) for move in moves]
        column = _ranged(mine)
        table = _table(column) if column is not None else None
        if table and table.name in tables:
            table.replace(
                exp.Subquery(
                    this=exp.union(
                        *(exp.select("*").from_(table.copy()).where(choice) for choice in choices),
                        distinct=False,
                    ),
                    alias=exp.TableAlias(this=exp.to_identifier(table.alias_or_name, quoted=True)),
                )
            )
        else:
            mine[0].replace(exp.and_(mine[0].copy(), exp.or_(*choices)))
    return [whole]


def _ranged(parts: Sequence[Any]) -> Any:
    """The one column whose range these parts say, no wider than from the first to the last day:
    then those of several spans are disjoint, and whole days. None where it is not so."""
    from sqlglot import exp

    for part in parts:
        bounds = ("low", "high") if isinstance(part, exp.Between) else ("expression",)
        if not (
            isinstance(part, (exp.Between, exp.GTE, exp.LTE, exp.GT, exp.LT))
            and isinstance(part.this, exp.Column)
            and part.this == parts[0].this
            and all(_is_constant(part.args[b]) for b in bounds)
        ):
            return None
    return parts[0].this


def _table(column: Any) -> Any:
    """The table that a column of a WHERE is of; None where it is a subquery, and where a join or a
    window comes before the condition."""
    from sqlglot import exp

    select = column.find_ancestor(exp.Select)
    if not isinstance(_part(column)[0], exp.Where):
        return None
    tables = [select.args["from_"].this, *(join.this for join in select.args.get("joins") or ())]
    named = [t for t in tables if t.alias_or_name == column.table] if column.table else tables
    return named[0] if len(named) == 1 and isinstance(named[0], exp.Table) else None


def _is_constant(node: Any) -> bool:
    from sqlglot import exp

    return isinstance(node.this if isinstance(node, exp.Cast) else node, exp.Literal)


def _part(literal: Any) -> tuple[Any, Any]:
    """The clause a literal is in, and that part of its AND."""
    from sqlglot import exp

    path = [literal]
    while path[-1] is not None:
        node, above = path[-1], path[-1].parent
        if isinstance(above, (exp.Where, exp.Having, exp.Qualify)) or (
            isinstance(above, exp.Join) and node.arg_key == "on"
        ):
            return above, next(n for n in reversed(path) if not isinstance(n, (exp.And, exp.Paren)))
        path.append(above)
    raise ValueError(f"{literal.sql('duckdb')} is outside of any condition")


def _moved(part: Any, days: dict[str, str]) -> Any:
    from sqlglot import exp

    def moved(node):
        if isinstance(node, exp.Literal) and node.is_string and node.this[:10] in days:
            return exp.Literal.string(days[node.this[:10]] + node.this[10:])
        return node

    return part.copy().transform(moved)


def evaluate_at_once(ctx: Any, models: Collection[str]) -> None:
    """Have the runs of this SQLMesh context evaluate all spans of these models together.

    `models` by name, as `curated.tx_unified`: INCREMENTAL_BY_TIME_RANGE by day. One with a batch
    size is evaluated as ever. An exception of a single span carries it as `interval`.
    """
    from sqlmesh.core.scheduler import Scheduler
    from sqlmesh.core.snapshot import SnapshotIntervals

    class AtOnce(Scheduler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.scattered: dict[str, list[Span]] = {}
            self.tables = {
                s.table_name().rpartition(".")[2]
                for s in self.snapshots.values()
                if s.is_materialized
            }

        def batch_intervals(self, *args, **kwargs):
            batches = super().batch_intervals(*args, **kwargs)
            for snapshot, spans in batches.items():
                if (
                    len(spans) > 1
                    and plain(snapshot.name) in models
                    and (not snapshot.node.batch_size)
                ):
                    self.scattered[snapshot.name] = spans
                    batches[snapshot] = [(spans[0][0], spans[-1][1])]
            return batches

        def evaluate(self, snapshot, start, end, **kwargs):
            spans = self.scattered.get(snapshot.name)
            if not spans:
                return super().evaluate(snapshot, start, end, **kwargs)
            evaluate, state = super().evaluate, self.state_sync
            adapter = self.snapshot_evaluator.get_adapter(snapshot.model_gateway)
            adapter.rewrite = _bounding(spans, self.tables)
            self.state_sync = Each(state, spans)
            try:
                return evaluate(snapshot, start, end, **kwargs)
            except Exception as error:
                log.warning(
                    "%s failed over %d spans at once, so each is evaluated by itself: %s",
                    plain(snapshot.name),
                    len(spans),
                    error,
                )
            finally:
                adapter.rewrite, self.state_sync = None, state
            results = []
            for span in spans:
                try:
                    results += evaluate(snapshot, *span, **kwargs)
                except Exception as error:
                    error.interval = span
                    raise
            return results

    class Each:
        """The state, told of every span instead of one from the first day to the last."""

        def __init__(self, state, spans):
            self.state, self.spans = state, spans

        def add_interval(self, snapshot, start, end, is_dev=False, last_altered_ts=None):
            self.state.add_snapshots_intervals(
                [
                    SnapshotIntervals(
                        name=snapshot.name,
                        identifier=snapshot.identifier,
                        version=snapshot.version,
                        dev_version=snapshot.dev_version,
                        intervals=self.spans,
                        dev_intervals=[],
                        last_altered_ts=last_altered_ts,
                    )
                ]
            )

    ctx.create_scheduler = lambda snapshots, evaluator: AtOnce(
        snapshots,
        evaluator,
        ctx.state_sync,
        default_catalog=ctx.default_catalog,
        max_workers=ctx.concurrent_tasks,
        console=ctx.console,
        notification_target_manager=ctx.notification_target_manager,
    )


def _bounding(spans: Sequence[Span], tables: Collection[str]) -> Callable[[Any], list[Any]]:
    days = [(day_of(start), day_of(end)) for start, end in spans]
    return lambda expression: bounded(expression, days, tables)


def day_of(milliseconds: int) -> date:
    """The UTC day of an instant as SQLMesh has it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date()


def plain(name: str) -> str:
    """curated.tx_unified from the quoted name with its catalog."""
    return name.replace('"', "").split(".", 1)[1]
