"""The operators of the weekly refresh: plan, report and rebuild; the others are the sync's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException

from extract.core.interval import Interval, iso
from extract.core.source import Job
from ledgerhouse.config import var_dir
from ledgerhouse.operate.airflow.context import lock_owner, resolve_interval
from ledgerhouse.operate.airflow.operators.plan import PlanOperator
from ledgerhouse.operate.airflow.operators.recorded import RecordedOperator
from ledgerhouse.warehouse.connection import open_warehouse

log = logging.getLogger(__name__)
PARAMS = {
    "scope": Param(
        "quarter",
        enum=["quarter", "full"],
        description="quarter: the fourth part of "
        "the history that was read longest ago; full: all of it",
    ),
    "interval_start": Param(
        None, type=["null", "string"], description="read this instead: start, UTC, included"
    ),
    "interval_end": Param(None, type=["null", "string"], description="end, UTC, excluded"),
}


def there_are_books() -> bool:
    """Whether a sync has published: at the first start this DAG is due at once, beside it."""
    from ledgerhouse.publish.books import BOOKS, published_dir

    if (published_dir() / BOOKS).exists():
        return True
    log.warning(
        "there are no books in %s yet: the first sync that succeeds makes them, and there is nothing "
        "to read again before. This run skips itself",
        published_dir(),
    )
    return False


def scope_of(params: dict[str, Any]) -> str | Interval:
    """What the params ask for; AirflowFailException where an interval is half given or wrong."""
    if params.get("interval_start") or params.get("interval_end"):
        try:
            return resolve_interval(params, "", "")
        except ValueError as error:
            raise AirflowFailException(str(error)) from None
    return params.get("scope") or "quarter"


class RefreshPlanOperator(PlanOperator):
    """Plan what of one connection's accounts is read again, and what that will cost.

    All but the choice is as a sync's plan does it.
    """

    template_fields: Sequence[str] = ()
    at_rest = "nothing is due; the DAG's page says when it is"

    def __init__(self, *, connection: str, **kwargs: Any):
        super().__init__(
            connection=connection,
            interval_start="",
            interval_end="",
            history_start="",
            close_gaps=False,
            **kwargs,
        )

    def asked(self, context: Any) -> str | Interval:
        return scope_of(context["params"])

    def jobs(
        self, con: Any, sources: Any, mine: list, asked: str | Interval
    ) -> tuple[list[Job], datetime]:
        from ledgerhouse.plan import refresh

        return refresh.jobs(con, sources, mine, asked), refresh.newest(con, mine)


class RefreshReportOperator(RecordedOperator):
    """Report what the refresh has read: into ops.refreshes, and as a table into the log.

    Returns the interval that was read, for the checks: where none was, the run's own.
    """

    template_fields: Sequence[str] = ("interval_start", "interval_end")

    def __init__(
        self, *, plans: Sequence[str], interval_start: str, interval_end: str, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.plans = list(plans)
        self.interval_start, self.interval_end = interval_start, interval_end

    def work(self, context: Any, outcome: dict[str, Any]) -> dict[str, str]:
        from ledgerhouse.load import refresh_report
        from ledgerhouse.plan import refresh

        ti, scope = context["ti"], scope_of(context["params"])
        estimate = {
            (source, account): (calls, units)
            for plan in self.plans
            for source, account, calls, units in ti.xcom_pull(task_ids=plan, key="estimate") or []
        }
        with open_warehouse(owner=lock_owner(context)) as con:
            report = refresh_report.record(con, ti.run_id, scope, estimate)
            outcome["rows"] = len(report.rows)
            read = report.read
            if read is None:
                ((end,),) = con.execute("SELECT max(end_ts) FROM ops.coverage").fetchall()
                read = (
                    Interval(end - refresh.WEEK, end)
                    if end
                    else resolve_interval({}, self.interval_start, self.interval_end)
                )
        self.log.info("read again (%s):\n%s", scope, table(report.rows))
        if report.late:
            self.log.warning(
                "%d rows are new in settled time: they came later than any lookback reached (first "
                "seen is when they were met). The first:\n%s",
                report.total("rows_new"),
                _listed(report.late, "first seen"),
            )
        if report.vanished:
            self.log.warning(
                "%d rows have vanished at the vendor; they are kept, marked, and out "
                "of the balances. The first:\n%s",
                report.total("rows_vanished"),
                _listed(report.vanished, "gone"),
            )
        return {"interval_start": iso(read.start), "interval_end": iso(read.end)}


class RebuildOperator(RecordedOperator):
    """Build curated a second time from raw, separately, and compare; fails where production differs.

    It takes its turn at the warehouse's lock, and holds it only while the file is copied: no slot
    of the pool, so syncs go on meanwhile.
    """

    def __init__(self, *, transform: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.transform = transform

    def work(self, context: Any, outcome: dict[str, Any]) -> dict[str, Any]:
        from ledgerhouse.transform import rebuild

        done, run_id = context["ti"].xcom_pull(task_ids=self.transform) or {}, context["ti"].run_id
        failure = ""
        try:
            rebuilt = rebuild.rebuild(
                var_dir(), batches=done.get("batches", []), owner=lock_owner(context)
            )
        except rebuild.DiskFull as error:
            raise AirflowFailException(str(error)) from None
        except rebuild.RebuildMismatch as error:
            failure, rebuilt = str(error), error.rebuilt
        with open_warehouse(owner=lock_owner(context), compact=True) as con:
            rebuild.record(con, run_id, rebuilt)
        outcome["rows"] = sum(rebuilt.rows.values())
        if failure:
            raise AirflowFailException(
                f"curated is not what its raw rows give: {failure} Nothing of this run is "
                "published. `make replay` builds everything again; see ledgerhouse/transform/rebuild.py"
            )
        if rebuilt.left_out:
            self.log.info(
                "%d days were loaded by others meanwhile and left out, from %s to %s",
                len(rebuilt.left_out),
                rebuilt.left_out[0],
                rebuilt.left_out[-1],
            )
        return {
            "rows": rebuilt.rows,
            "seconds": round(rebuilt.seconds, 1),
            "held_s": round(rebuilt.held_s, 2),
            "bytes": rebuilt.bytes,
        }


HEADS = {
    "source": "source",
    "account": "account",
    "dataset": "dataset",
    "start": "from",
    "end": "to",
    "rows_new": "new",
    "rows_changed": "changed",
    "rows_vanished": "vanished",
    "rows_removed": "removed",
    "rows_same": "same",
    "calls": "calls",
    "estimated_calls": "of about",
    "units": "units",
    "estimated_units": "of about",
}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of ops.refreshes as a table of text, with a line of sums."""
    from ledgerhouse.operate.commands.tables import as_text

    counts = [*HEADS][5:]
    lines = [
        {
            **row,
            "start": row["start_ts"] and row["start_ts"].date(),
            "end": row["end_ts"] and row["end_ts"].date(),
        }
        for row in rows
    ]
    lines.append({name: sum(row[name] for row in rows) for name in counts})
    return as_text(lines, HEADS)


def _listed(rows: Sequence[tuple], met: str) -> str:
    from ledgerhouse.operate.commands.tables import as_text

    heads = {"dataset": "dataset", "account": "account", "key": "key", "ts": "happened", "met": met}
    return as_text([dict(zip(heads, row)) for row in rows], heads)


__all__ = ["PARAMS", "RebuildOperator", "RefreshPlanOperator", "RefreshReportOperator"]
