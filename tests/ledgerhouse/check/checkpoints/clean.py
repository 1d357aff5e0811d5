"""A warehouse in which every law holds, and running the checkpoints over it."""

from __future__ import annotations

from extract.core.interval import Interval
from ledgerhouse.check.checkpoints import (
    run_checkpoints,
)

INTERVAL = Interval("2026-01-02T06:00:00Z", "2026-01-02T12:00:00Z")
SWAP, RECEIVED, SCAM, FAILED = ("0x" + c * 64 for c in "abcd")

IN = "entry_id = 'e2'"  # an entry within the interval


def run(path, interval=INTERVAL, docs_dir=None, run_id="r1", **more):
    return run_checkpoints(path, interval, run_id=run_id, docs_dir=docs_dir, **more)


def failures(results):
    return {(r.checkpoint, r.expectation, r.severity) for r in results if not r.success}
