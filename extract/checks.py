"""Check, record, and consume: what follows a transform, in the order that survives a crash.

The marks of touched days are dropped only after the checks have passed; until then the next
run transforms and checks the same days again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extract.source import Interval
from extract.warehouse import hold, open_warehouse, var_dir, warehouse_path

DOCS_TO_KEEP = 20


def check(interval: Interval, *, run_id: str, who: str, batches: Sequence[str]) -> list[Any]:
    """Run every checkpoint over `interval`, record it, and drop the marks of `batches` if it holds.

    Returns the results, one an expectation; those with severity "critical" and not `success`
    keep the marks.
    """
    from extract.checkpoints import failed_critical, record, run_checkpoints

    path = warehouse_path()
    with hold(path, who):
        results = run_checkpoints(path, interval, run_id=run_id,
                                  docs_dir=var_dir() / "data_docs", keep=DOCS_TO_KEEP)
    with open_warehouse(path, who=who) as con:
        record(con, results, run_id, interval)
        if not failed_critical(results) and batches:
            con.execute("DELETE FROM ops.touched_days WHERE batch_id IN "
                        "(SELECT unnest(?))", [list(batches)])
    return results
