"""One run of the checks beside others."""

from __future__ import annotations

import pytest

from extract.core.interval import Interval
from ledgerhouse.check import run
from ledgerhouse.transform.touched_days import Superseded
from ledgerhouse.warehouse.connection import open_warehouse


def test_days_that_another_run_has_loaded_since_are_not_judged(tmp_path, monkeypatch):
    """They are in raw and not in curated yet: every comparison of the two would call it a loss."""
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    asked = []
    monkeypatch.setattr(run, "find_breaks", lambda *_: None)
    monkeypatch.setattr(run, "run_checkpoints", lambda *args, **more: asked.append(args) or [])
    with open_warehouse(owner="test") as con:
        for batch in ("mine", "theirs"):
            con.execute(
                f"INSERT INTO ops.touched_days VALUES ('exchanges_ledger', '2031-02-28', '{batch}')"
            )
    days = Interval("2031-02-28", "2031-03-01")
    with pytest.raises(Superseded, match="1 batch.*loaded since by another run"):
        run.check(days, run_id="r1", owner="test", batches=["mine"])
    assert asked == []
    run.check(days, run_id="r1", owner="test", batches=["mine", "theirs"])
    run.check(days, run_id="r1", owner="test")  # asked for by hand: of any day
    assert len(asked) == 2
