"""Check, publish, consume: what follows a transform, in the order that survives a crash.

The marks of touched days are dropped only after the checks have passed and the books are out;
until then the next run transforms, checks and publishes the same days again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from extract.core.interval import Interval
from ledgerhouse.config import var_dir, warehouse_path
from ledgerhouse.warehouse.connection import hold, open_warehouse

if TYPE_CHECKING:
    from ledgerhouse.publish.publish import Published

DOCS_TO_KEEP = 20


class NotChecked(RuntimeError):
    """These days must not be published: no check of this run passed over them."""


class Superseded(Exception):
    """Another run has loaded days since, whose check is not done: that run publishes them all."""


def check(
    interval: Interval, *, run_id: str, owner: str, spans: Sequence[Interval] = ()
) -> list[Any]:
    """Run every checkpoint over `interval` (of that over `spans`, where there are several) and
    record it; the results, one an expectation.

    Those with severity "critical" and not `success` forbid publishing.
    """
    from ledgerhouse.check.checkpoints import record, run_checkpoints

    path = warehouse_path()
    with hold(path, owner):
        results = run_checkpoints(
            path,
            interval,
            run_id=run_id,
            docs_dir=var_dir() / "data_docs",
            keep=DOCS_TO_KEEP,
            spans=spans,
        )
    with open_warehouse(path, owner=owner) as con:
        record(con, results, run_id, interval)
    return results


def publish_checked(batches: Sequence[str], *, run_id: str, owner: str) -> Published:
    """Publish the days that `batches` touched and `run_id` has checked, then drop their marks.

    Publishes nothing and keeps every mark when it raises: NotChecked where the checks of this
    run failed or are missing, Superseded where there are marks of batches not among these.
    """
    from ledgerhouse.publish.books import published_dir
    from ledgerhouse.publish.publish import publish
    from ledgerhouse.transform.touched_days import clear_touched_days, touched

    with open_warehouse(owner=owner) as con:
        passed, failed = con.execute(
            "SELECT count(*), count(*) FILTER (NOT success AND severity = 'critical') "
            "FROM ops.checkpoints WHERE run_id = ?",
            [run_id],
        ).fetchone()
        if failed or not passed:
            told = f"{failed} critical expectation(s) failed" if failed else "no check is recorded"
            raise NotChecked(
                f"nothing is published: {told} for run {run_id}. See the Data Docs, "
                "mend the cause and clear the task check"
            )
        (others,) = con.execute(
            "SELECT count(DISTINCT batch_id) FROM ops.touched_days WHERE batch_id NOT IN "
            "(SELECT unnest($batches::VARCHAR[]))",
            {"batches": list(batches)},
        ).fetchone()
        if others:
            raise Superseded(
                f"{others} batch(es) loaded since by another run are not checked yet; "
                "that run publishes these days too, once its checks have passed"
            )
        marks, days = touched(con, batches)
        published = publish(con, published_dir(), days, run_id=run_id)
        clear_touched_days(con, marks)
    return published
