"""Random schedules, thousands of them: whatever is read when, in whatever order, the end is one.

Every account is a case of its own: rows that come late, change, move and vanish at a vendor; whole
readings of random intervals at random times (a sync, a backfill, a refetch, a retry that landed
twice). The files of all accounts are loaded in random order and batches, and a load is cut off at
a random statement now and then. What must come out follows from the newest reading of each
instant alone, computed here without any of the product's code.
"""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import duckdb
import pytest

from extract.core.interval import Interval, iso
from extract.core.source import Covered, Fetched, Job
from extract.fetch import landing
from extract.sources import all_sources
from extract.sources.coinbase import TRANSACTIONS
from extract.sources.debank import HISTORY
from ledgerhouse.load.loader import load_files
from ledgerhouse.warehouse import schema
from tests.conftest import page

pytestmark = pytest.mark.slow

CASES = 500  # accounts of one world; four worlds are 2,000 schedules
ZERO = datetime(2025, 6, 1, tzinfo=UTC)
HOURS = 24 * 12
SOURCES = all_sources()


class Cut(BaseException):
    """The process was killed here."""


class Cutting:
    """A connection whose `left`-th statement is never made."""

    def __init__(self, con, left: int):
        self.con, self.left = con, left

    def __getattr__(self, name):
        return getattr(self.con, name)

    def execute(self, *args):
        self.left -= 1
        if self.left == 0:
            with suppress(duckdb.TransactionException):  # it had not begun yet
                self.con.execute("ROLLBACK")
            raise Cut
        return self.con.execute(*args)


def at(hour: float) -> datetime:
    return ZERO + timedelta(hours=hour)


class Case:
    """One account: its vendor's rows, and the readings made of them. Times in hours."""

    def __init__(self, rng: random.Random, name: str):
        self.name, self.chain = name, rng.random() < 0.5
        self.rows = []
        for number in range(rng.randrange(1, 7)):
            ts = rng.randrange(HOURS)
            seen = ts + rng.choice([0, 0, 1, 30, 200])
            changes = sorted(seen + rng.randrange(1, 120) for _ in range(rng.randrange(3)))
            gone = seen + rng.randrange(1, 300) if rng.random() < 0.2 else None
            self.rows.append((number, ts, seen, changes, gone))
        times = rng.sample(range(1, HOURS * 2), rng.randrange(1, 7))
        self.readings = []
        for time in sorted(times):
            end = min(time, HOURS)
            start = rng.choice([0, max(0, end - 30), rng.randrange(end)])
            if rng.random() < 0.3:
                end = rng.randrange(start, end) + 1
            self.readings.append((start, max(start + 1, end), time))

    def shown(self, reading) -> dict[int, int]:
        """number → version of the rows that a reading shows."""
        start, end, time = reading
        return {
            number: sum(c <= time for c in changes)
            for number, ts, seen, changes, gone in self.rows
            if start <= ts < end and seen <= time and (gone is None or time < gone)
        }

    def truth(self) -> dict[int, tuple[int, bool]]:
        """number → (newest version met, whether the newest reading of its time has it)."""
        found = {}
        for number, ts, *_ in self.rows:
            over = [r for r in self.readings if r[0] <= ts < r[1]]
            having = [r for r in over if number in self.shown(r)]
            if having:
                last = max(having, key=lambda r: r[2])
                found[number] = (self.shown(last)[number], last is max(over, key=lambda r: r[2]))
        return found

    def land(self, root, reading):
        start, end, time = reading
        job = Job(
            "debank" if self.chain else "coinbase",
            self.name,
            "c",
            Interval(at(start), at(end)),
            at(start),
        )
        rows = [self.record(number, version) for number, version in self.shown(reading).items()]
        body = (
            page(HISTORY, {"history_list": rows}, at=iso(at(time)))
            if self.chain
            else page(TRANSACTIONS, {"data": rows}, at=iso(at(time)), account_id="w")
        )
        datasets = (
            ("onchain_transactions", "onchain_transfers") if self.chain else ("exchanges_ledger",)
        )
        return landing.write(
            root,
            job,
            Fetched([body], [Covered(d, job.interval, "whole") for d in datasets]),
            {"run_id": "r"},
        )

    def record(self, number: int, version: int) -> dict:
        ts = at(self.rows[number][1])
        if self.chain:
            legs = [
                {"amount": version + n, "token_id": "eth", "from_addr": "x"}
                for n in range((number + version) % 3)
            ]
            return {
                "id": f"0x{number}",
                "chain": "eth",
                "time_at": ts.timestamp(),
                "sends": [],
                "receives": legs,
                "cate_id": None,
                "tx": {"status": 1, "name": f"v{version}", "from_addr": "y"},
            }
        return {
            "id": f"{self.name}-{number}",
            "type": "send",
            "status": "completed",
            "created_at": iso(ts),
            "amount": {"amount": f"{number}.{version}", "currency": "BTC"},
        }


def load_in_some_order(con, files: list, rng: random.Random) -> int:
    """Load all files, in random batches, some twice, some cut off and done again; how many cut."""
    files, cuts = files + rng.sample(files, len(files) // 20), 0
    rng.shuffle(files)
    for source in ("coinbase", "debank"):
        left = [f for f in files if f.name.startswith(source)]
        while left:
            take = rng.choice([1, 60, 200, 500])
            batch, left = list(dict.fromkeys(left[:take])), left[take:]
            if rng.random() < 0.8:
                try:
                    load_files(Cutting(con, rng.randrange(1, 90)), batch, SOURCES)
                    continue
                except Cut:
                    cuts += 1
            load_files(con, batch, SOURCES)
    return cuts


@pytest.mark.parametrize("seed", range(4))
def test_any_schedule_ends_as_the_newest_readings_say(seed, tmp_path):
    rng = random.Random(f"schedules/{seed}")
    cases = [Case(rng, f"a{n}") for n in range(CASES)]
    files = [case.land(tmp_path, reading) for case in cases for reading in case.readings]
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    schema.create_all(con)
    assert load_in_some_order(con, files, rng), "some loads were cut off"
    expected_rows, expected_legs = [], []
    for case in cases:
        for number, (version, live) in case.truth().items():
            if case.chain:
                expected_rows.append((case.name, f"0x{number}", f"v{version}", live))
                expected_legs += [
                    (case.name, f"0x{number}", n + 1, Decimal(version + n), live)
                    for n in range((number + version) % 3)
                ]
            else:
                expected_rows.append(
                    (case.name, f"{case.name}-{number}", f"{number}.{version}", live)
                )
    rows = con.execute("""
        SELECT account, entry_id, amount_text, vanished_at IS NULL FROM raw.exchanges_ledger
        UNION ALL SELECT account, tx_id, method, vanished_at IS NULL FROM raw.onchain_transactions
        """).fetchall()
    assert sorted(rows) == sorted(expected_rows)
    legs = con.execute(
        "SELECT account, tx_id, leg, amount, vanished_at IS NULL FROM raw.onchain_transfers"
    ).fetchall()
    assert sorted(legs) == sorted(expected_legs)
    assert sum(not live for *_, live in rows) > CASES // 20, "the world has vanished rows"
    # Coverage is the union of the readings, each instant by its newest, without overlap.
    for account, start, _end, read in con.execute(
        "SELECT account, start_ts, end_ts, read_at FROM ops.coverage "
        "WHERE dataset IN ('exchanges_ledger', 'onchain_transactions')"
    ).fetchall():
        case = cases[int(account[1:])]
        middle = (start - ZERO.replace(tzinfo=None)).total_seconds() / 3600 + 0.5
        assert read == at(max(t for a, b, t in case.readings if a <= middle < b)).replace(
            tzinfo=None
        )
    (instants,) = con.execute(
        "SELECT sum(epoch(end_ts - start_ts)) / 3600 FROM ops.coverage WHERE "
        "dataset IN ('exchanges_ledger', 'onchain_transactions')"
    ).fetchone()
    assert instants == sum(
        len(set().union(*(range(a, b) for a, b, _ in c.readings))) for c in cases
    )
