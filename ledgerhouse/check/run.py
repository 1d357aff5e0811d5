"""One run of the checks: every checkpoint over an interval, with Data Docs and the record."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from extract.core.interval import Interval
from extract.sources import all_sources
from ledgerhouse.check.breaks import find_breaks
from ledgerhouse.check.checkpoints import CheckResult, record, run_checkpoints
from ledgerhouse.config import maintenance, var_dir, warehouse_path
from ledgerhouse.transform.touched_days import refuse_later_loads
from ledgerhouse.warehouse.connection import connected, hold
from ledgerhouse.warehouse.schema import create_all


def check(
    interval: Interval,
    *,
    run_id: str,
    owner: str,
    spans: Sequence[Interval] = (),
    batches: Collection[str] | None = None,
) -> list[CheckResult]:
    """Check the warehouse over `interval` and record it in ops.checkpoints; one result an
    expectation.

    Several `spans`, disjoint parts of the interval, are all that is checked. `owner` waits for the
    warehouse, and holds it. What the results mean for publishing, `ledgerhouse.publish.gate` says.
    Raises Superseded, with nothing recorded, where there are marks of batches not among `batches`,
    those that were transformed: rows that another run has loaded since are in raw and not in
    curated yet, which is no fault of either.
    """
    path = warehouse_path()
    with hold(path, owner):  # from the question to the record: nobody loads in between
        with connected(path) as con:
            create_all(con)
            if batches is not None:
                refuse_later_loads(con, batches)
            find_breaks(con, all_sources())
        results = run_checkpoints(
            path,
            interval,
            run_id=run_id,
            docs_dir=var_dir() / "data_docs",
            keep=maintenance().data_docs_runs,
            spans=spans,
        )
        with connected(path) as con:
            record(con, results, run_id, interval)
    return results
