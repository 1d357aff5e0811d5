"""A damaged ledger is put aside and counted again: it blocks nobody, and nothing is spent twice."""

import random
import sqlite3

import pytest

from extract.core.errors import BudgetReached, Fatal
from extract.core.quarantine import quarantined
from extract.fetch.call_log import call_log, logged
from ledgerhouse.config import Limit
from ledgerhouse.plan import ledger_file
from ledgerhouse.plan.budget import Ledger, from_logs
from tests.ledgerhouse.plan.budget.scene import Days

TEN_CALLS = [Limit("debank", "calls", "month", 10)]
DAMAGED = {
    "foreign": lambda data: b"no database at all, by any means" * 200,
    "cut": lambda data: data[: len(data) // 2],
    "a page": lambda data: data[:4096] + bytes(4096) + data[8192:],
}


def spending(root, calls: int) -> Ledger:
    """A ledger that counts again from the call log, of so many calls that are written down."""
    days = Days()
    with call_log(root / "calls", {}) as record:
        for n in range(calls):
            called = {"called_at": days.now.isoformat(), "endpoint": "/x", "status": 200}
            record({"call_id": f"c{n}", "source": "debank", "account": "0x", "units": 1,
                    "duration_ms": 1, **called})  # fmt: skip
    count = from_logs(lambda first: logged(root / "calls", first))
    ledger = Ledger(root, "debank", TEN_CALLS, now=days, count=count)
    ledger.recount(count)
    return ledger


def remaining(ledger: Ledger) -> int:
    return ledger.remaining()["calls", "month"]


@pytest.mark.parametrize(
    "when, harm",
    [("between two tasks", harm) for harm in DAMAGED]
    + [("in a fetch", "foreign"), ("in a fetch", "cut")],
)
def test_a_damaged_ledger_is_put_aside_and_counted_again(tmp_path, harm, when):
    ledger, file = spending(tmp_path, 7), tmp_path / "budget.sqlite"
    waiting, _ = ledger.reserve(1)
    assert remaining(ledger) == 2
    if when == "between two tasks":
        ledger.close()
    file.write_bytes(DAMAGED[harm](file.read_bytes()))
    ledger.reserve(1)
    assert remaining(ledger) in (1, 2), "the open reservation counts where it can still be read"
    assert [f.name for f, _, _ in quarantined(tmp_path)] == ["budget.sqlite"]
    while remaining(ledger):
        ledger.reserve(1)
    with pytest.raises(BudgetReached):
        ledger.reserve(1)
    ledger.settle(waiting, 1)
    assert len(list(quarantined(tmp_path))) == 1


def test_others_that_have_a_damaged_ledger_open_go_on_with_the_new_one(tmp_path):
    first, file = spending(tmp_path, 6), tmp_path / "budget.sqlite"
    count = from_logs(lambda day: logged(tmp_path / "calls", day))
    second = Ledger(tmp_path, "debank", TEN_CALLS, now=Days(), count=count)
    third = Ledger(tmp_path, "debank", TEN_CALLS, now=Days())  # knows no call logs
    assert [remaining(each) for each in (first, second, third)] == [4, 4, 4]
    file.write_bytes(DAMAGED["foreign"](b""))
    first.reserve(1)
    assert remaining(second) == remaining(first) == 3
    with pytest.raises(Fatal, match="was damaged, and is begun again: the next try"):
        third.reserve(1)
    assert remaining(third) == 3
    second.reserve(1)
    assert remaining(first) == remaining(third) == 2


def test_where_nothing_tells_what_was_spent_the_next_try_does(tmp_path):
    (tmp_path / "budget.sqlite").write_bytes(DAMAGED["foreign"](b""))
    with pytest.raises(Fatal, match="next try counts from the call logs"):
        Ledger(tmp_path, "debank", TEN_CALLS).reserve(1)
    assert not Ledger(tmp_path, "debank", TEN_CALLS).is_counted


def test_any_flipped_bit_blocks_nobody_and_the_next_plan_counts_right(tmp_path):
    ledger, file, rng = spending(tmp_path, 6), tmp_path / "budget.sqlite", random.Random(4)
    count = from_logs(lambda day: logged(tmp_path / "calls", day))
    ledger.close()
    whole, put_aside = file.read_bytes(), 0
    written = [n for n, byte in enumerate(whole) if byte]  # most of the file is zeros
    for place in [*rng.sample(written, 100), *range(0, 100, 3)]:
        data = bytearray(whole)
        data[place] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        opened = Ledger(tmp_path, "debank", TEN_CALLS, now=Days(), count=count)
        opened.recount(count)
        assert remaining(opened) == 4, place
        call_id, _ = opened.reserve(1)
        opened.settle(call_id, 1)
        opened.close()
        put_aside = len(list(quarantined(tmp_path)))
    assert put_aside > 20
    with sqlite3.connect(file) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_busy_ledger_is_not_a_damaged_one(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_file, "WAIT_S", 0.1)
    ledger = spending(tmp_path, 1)
    with sqlite3.connect(tmp_path / "budget.sqlite", isolation_level=None) as con:
        con.execute("BEGIN IMMEDIATE")
        with pytest.raises(Fatal, match="cannot be used: database is locked"):
            ledger.close() or ledger.reserve(1)
        con.execute("ROLLBACK")
    ledger.reserve(1)
    assert not list(quarantined(tmp_path))
