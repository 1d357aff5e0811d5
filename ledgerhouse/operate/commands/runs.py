"""`airflow warehouse runs`: what each run brought, what it cost, and what its checks found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ledgerhouse.operate.commands.books import opened
from ledgerhouse.operate.commands.tables import Answer, rows
from ledgerhouse.publish.books import has

if TYPE_CHECKING:
    import duckdb

RUNS = """
WITH calls AS (
    SELECT run_id, source, count(*) AS calls, sum(units)::BIGINT AS units, min(called_at) AS began
    FROM ops.api_calls GROUP BY ALL
), loads AS (
    SELECT run_id, source, sum(new)::BIGINT AS new, sum(changed)::BIGINT AS changed,
        min(loaded_at) AS loaded
    FROM ops.batches GROUP BY ALL
), parts AS (
    SELECT run_id, source, least(began, loaded) AS began, coalesce(new, 0) AS new,
        coalesce(changed, 0) AS changed, coalesce(calls, 0) AS calls, coalesce(units, 0) AS units
    FROM calls FULL JOIN loads USING (run_id, source)
), newest AS (
    SELECT run_id, min(began) AS first FROM parts WHERE run_id IS NOT NULL  -- a Test button's call
    GROUP BY ALL ORDER BY first DESC, run_id LIMIT $last
)
SELECT parts.* FROM parts JOIN newest USING (run_id) ORDER BY first, run_id, source"""
CHECKS = """
SELECT run_id, checkpoint, count(*) FILTER (success) AS passed,
    count(*) FILTER (NOT success AND severity = 'critical') AS critical,
    count(*) FILTER (NOT success AND severity = 'warning') AS warning,
    count(*) FILTER (NOT success AND severity NOT IN ('critical', 'warning')) AS info
FROM ops.checkpoints WHERE run_id IN (SELECT unnest($runs)) GROUP BY ALL ORDER BY checkpoint"""
MOST = 4  # runs whose checks are shown, each in a column


def runs(args: Any) -> int:
    """The newest runs."""
    with opened(args.output) as (con, answer):
        show_runs(con, answer, args.last)
    return 0


def show_runs(con: duckdb.DuckDBPyConnection, answer: Answer, last: int) -> None:
    """Print the `last` runs; of a warehouse, which knows it, also what full refreshes would have cost
    in the place of its syncs."""
    lines = rows(con, RUNS, {"last": last})
    columns = {"run_id": "run", "source": "source", "new": "new", "changed": "changed"}
    measures = {"calls": "calls", "units": "units"}
    if has(con, "ops.full_refreshes"):
        asked = rows(con, "SELECT run_id, source, calls, units FROM ops.full_refreshes")
        full = {(row["run_id"], row["source"]): row for row in asked}
        for row in lines:
            other = full.get((row["run_id"], row["source"]), {})
            row |= {f"full_{measure}": other.get(measure) for measure in measures}
            row |= {f"saved_{m}": _saved(row[m], row[f"full_{m}"]) for m in measures}
        measures = {"calls": "calls", "full_calls": "full calls", "saved_calls": "saved"}
        measures |= {"units": "units", "full_units": "full units", "saved_units": "saved"}
    title = "Runs: rows new and changed, calls and units"
    answer.table("runs", title, lines, columns | measures, right=("saved_calls", "saved_units"))
    answer.say(_savings(lines))
    ids = list(dict.fromkeys(row["run_id"] for row in lines))
    found = rows(con, CHECKS, {"runs": ids})
    answer.document["checks"] = found
    shown = {run: run for run in ids[-MOST:] if any(row["run_id"] == run for row in found)}
    by_name: dict[str, dict[str, Any]] = {}
    for row in found:
        line = by_name.setdefault(row["checkpoint"], {"checkpoint": row["checkpoint"]})
        line[row["run_id"]] = _counts(row)
    answer.table(
        "checkpoints",
        "Checkpoints: expectations that passed, and that failed by severity",
        list(by_name.values()),
        {"checkpoint": "checkpoint", **shown},
        marked=lambda line: any("critical" in str(line.get(run)) for run in shown),
    )


def _saved(ours: int, full: int | None) -> str | None:
    return f"{100 * (1 - ours / full):.1f} %" if full else None


def _savings(lines: Sequence[Mapping[str, Any]]) -> str:
    """All syncs shown together against their full refreshes, in one sentence; '' where none is known."""
    syncs = [row for row in lines if row.get("full_calls")]
    parts = []
    for measure in ("calls", "units"):
        ours, full = sum(r[measure] for r in syncs), sum(r[f"full_{measure}"] for r in syncs)
        if full:
            parts.append(f"{ours:,} {measure} instead of {full:,} ({_saved(ours, full)} saved)")
    if not parts:
        return ""
    return (
        f"The syncs together: {', '.join(parts)}. A full refresh reads everything again with the same "
        "endpoints and page sizes (ops.full_refreshes)."
    )


def _counts(row: Mapping[str, Any]) -> str:
    failed = [f"{row[name]} {name}" for name in ("critical", "warning", "info") if row[name]]
    return ", ".join([f"{row['passed']} passed", *failed])
