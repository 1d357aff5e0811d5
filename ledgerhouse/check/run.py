"""One run of the checks: every checkpoint over an interval, with Data Docs and the record."""

from __future__ import annotations

from collections.abc import Sequence

from extract.core.interval import Interval
from extract.sources import all_sources
from ledgerhouse.check.breaks import find_breaks
from ledgerhouse.check.checkpoints import CheckResult, record, run_checkpoints
from ledgerhouse.config import var_dir, warehouse_path
from ledgerhouse.warehouse.connection import hold, open_warehouse


def check(
    interval: Interval, *, run_id: str, owner: str, spans: Sequence[Interval] = ()
) -> list[CheckResult]:
    """Check the warehouse over `interval` and record it in ops.checkpoints; one result an
    expectation.

    Several `spans`, disjoint parts of the interval, are all that is checked. `owner` waits for the
    warehouse, and holds it. What the results mean for publishing, `ledgerhouse.publish.gate` says.
    """
    path = warehouse_path()
    with open_warehouse(path, owner=owner) as con:
        find_breaks(con, all_sources())
    with hold(path, owner):
        results = run_checkpoints(
            path, interval, run_id=run_id, docs_dir=var_dir() / "data_docs", spans=spans
        )
    with open_warehouse(path, owner=owner) as con:
        record(con, results, run_id, interval)
    return results
