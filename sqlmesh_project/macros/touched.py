"""Bounds of a model on the days under evaluation: one interval, or several scattered days.

SQLMesh evaluates a model over one interval. Where a transform has several days of it to evaluate,
ledgerhouse/transform/scattered_days.py evaluates them together and hands their spans to these
macros as `touched_spans`; otherwise they say what `BETWEEN @start_ts AND @end_ts` says.
A model that uses them promises that no row depends on which other days are evaluated with its own.
"""

from datetime import datetime, timedelta

from sqlmesh import macro


def _spans(evaluator, days_around):
    """First and last microsecond of each span, widened; those that then meet are one."""
    given = evaluator.locals.get("touched_spans") or [
        (evaluator.locals["start_ts"], evaluator.locals["end_ts"])
    ]
    around, spans = timedelta(days=days_around), []
    for start, end in given:
        first = datetime.fromisoformat(str(start)) - around
        last = datetime.fromisoformat(str(end)) + around
        if spans and first <= spans[-1][1] + timedelta(microseconds=1):
            spans[-1][1] = last
        else:
            spans.append([first, last])
    return spans


def _between(column, first, last):
    return f"{column} BETWEEN CAST('{first}' AS TIMESTAMP) AND CAST('{last}' AS TIMESTAMP)"


@macro()
def touched(evaluator, column):
    """Condition: the timestamp `column` is of a day under evaluation. For views; read once."""
    spans, name = _spans(evaluator, 0), column.sql("duckdb")
    if len(spans) == 1:
        return _between(name, *spans[0])
    each = " OR ".join(f"({_between(name, *span)})" for span in spans)
    return f"({_between(name, spans[0][0], spans[-1][1])} AND ({each}))"


@macro()
def touched_rows(evaluator, table, column, days_around=0):
    """Rows of `table` of the days under evaluation, and of `days_around` them.

    Several spans are read each by its own SELECT: zone maps help a range and not an OR of ranges
    (20 days of 10M rows: 0.15 s against 0.7 s). They are so in a temporary view, because SQLMesh
    copies and optimizes what a query says in full: 0.3 s of CPU a model.
    """
    spans, on = _spans(evaluator, int(str(days_around))), column.sql("duckdb")
    name = table.sql("duckdb")
    if len(spans) == 1:
        return f"(SELECT * FROM {name} WHERE {_between(on, *spans[0])})"
    view = f"touched_{column.name}_{days_around}_of_" + name.replace(".", "_")
    physical = evaluator.resolve_table(name)
    each = (f"SELECT * FROM {physical} WHERE {_between(on, *span)}" for span in spans)
    evaluator.engine_adapter.execute(
        f"CREATE OR REPLACE TEMPORARY VIEW {view} AS " + " UNION ALL ".join(each)
    )
    return view
