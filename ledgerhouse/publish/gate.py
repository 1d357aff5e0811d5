"""The gate before the books: only what has passed its checks is published.

    require_passed(results, run_id)    the decision, for tasks and commands alike
    publish_checked(batches, changed)  publish what a run has transformed and checked
    check_and_publish(transformed)     check, decide and publish, in one process

The order survives a crash: the marks of touched days are dropped only after the checks have passed
and the books are out; until then the next run transforms, checks and publishes the same days again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from extract.core.interval import Interval
from ledgerhouse.check.checkpoints import CheckResult, failed_critical, recorded
from ledgerhouse.warehouse.connection import open_warehouse

if TYPE_CHECKING:
    from ledgerhouse.publish.publish import Published
    from ledgerhouse.transform.sqlmesh_context import Span
    from ledgerhouse.transform.touched_days import Transformed

NAMED = 5  # failed expectations that an error names


class NotChecked(RuntimeError):
    """These days must not be published: no check of this run passed over them.

    `failed` are the critical expectations that failed, none where no check is recorded.
    """

    def __init__(self, run_id: str, failed: Sequence[CheckResult]):
        names = "; ".join(f"{r.checkpoint} {r.expectation}" for r in failed[:NAMED])
        reason = (
            f"{len(failed)} critical expectation(s) failed for run {run_id}: {names}"
            if failed
            else f"no check is recorded for run {run_id}"
        )
        super().__init__(
            f"nothing is published: {reason}. See the Data Docs, fix the cause and clear the "
            "task check"
        )
        self.failed = tuple(failed)


class Superseded(Exception):
    """Another run has loaded days since, whose check is not done: that run publishes them all."""


def require_passed(results: Sequence[CheckResult], run_id: str) -> None:
    """Raise NotChecked unless `run_id` has results and no critical expectation among them failed."""
    failed = failed_critical(results)
    if failed or not results:
        raise NotChecked(run_id, failed)


def publish_checked(
    batches: Sequence[str],
    changed: Mapping[str, Iterable[Span]] | None = None,
    *,
    run_id: str,
    owner: str,
) -> Published:
    """Publish the days that `batches` touched and `run_id` has checked, then drop their marks.

    `changed` are the days by table as the transform has computed them; None computes them from the
    marks again. Publishes nothing and keeps every mark when it raises: NotChecked where the checks
    of this run failed or are missing, Superseded where there are marks of batches not among these.
    """
    from ledgerhouse.publish.books import published_dir
    from ledgerhouse.publish.publish import publish
    from ledgerhouse.transform.touched_days import clear_touched_days, marks_of, touched

    with open_warehouse(owner=owner) as con:
        require_passed(recorded(con, run_id), run_id)
        marks = marks_of(con)
        others = {batch for _, _, batch in marks} - set(batches)
        if others:
            raise Superseded(
                f"{len(others)} batch(es) loaded since by another run are not checked yet; "
                "that run publishes these days too, once its checks have passed"
            )
        days = touched(con, batches)[1] if changed is None else _days(changed)
        published = publish(con, published_dir(), days, run_id=run_id)
        clear_touched_days(con, marks)
    return published


def check_and_publish(transformed: Transformed, *, run_id: str, owner: str) -> Published:
    """Check what was transformed, and publish it where the checks pass; raises NotChecked."""
    from ledgerhouse.check.run import check

    spans = transformed.spans
    interval = Interval(spans[0].start, spans[-1].end)
    require_passed(check(interval, run_id=run_id, owner=owner, spans=spans), run_id)
    return publish_checked(transformed.batches, transformed.changed, run_id=run_id, owner=owner)


def _days(changed: Mapping[str, Iterable[Span]]) -> dict[str, set[date]]:
    """Spans [first, after) as their days."""
    return {
        table: {
            first + timedelta(days=n) for first, after in spans for n in range((after - first).days)
        }
        for table, spans in changed.items()
    }
