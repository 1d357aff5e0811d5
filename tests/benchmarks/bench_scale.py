"""What an increment costs when the history is long: ten years of it against one."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path
from statistics import median

from extract.core.interval import Interval
from extract.sources import all_sources
from ledgerhouse.check.checkpoints import failed_critical
from ledgerhouse.check.run import check
from ledgerhouse.load.loader import Loaded, load
from ledgerhouse.process import gc_paused
from ledgerhouse.publish.gate import publish_checked
from ledgerhouse.transform.touched_days import Transformed, transform
from ledgerhouse.warehouse.connection import open_warehouse
from tests.benchmarks import data
from tests.benchmarks.history import (
    ACCOUNTS,
    END,
    ROWS_A_DAY,
    WALLETS,
    History,
    living_in,
    postgres,
    warehouse,
)
from tests.benchmarks.measure import ratio, row, seconds, spread, tell

NEW = 2_000  # raw rows of one sync: 1,000 ledger entries, 400 transactions and their 600 legs
LATE_DAYS = 20
SOURCES = all_sources()


class Cycles:
    """Syncs of one warehouse, each step timed as its task runs it: opening the file included."""

    def __init__(self, history: History):
        self.history = history
        self.landing = history.var / "landing"
        self.times: list[dict[str, float]] = []
        # Where the last benchmark left off: what it loaded is history now.
        self.counter = history.var / "cycles.json"
        self.turn = json.loads(self.counter.read_text()) if self.counter.exists() else 0

    def sync(self) -> dict[str, float]:
        """Six hours pass, 2,000 rows of them arrive, and are loaded, transformed and checked."""
        start = (END + self.turn * timedelta(hours=6)).replace(tzinfo=UTC)
        end = start + timedelta(hours=6)
        data.coinbase(
            self.landing, data.moments(start, end, NEW // 2), account=ACCOUNTS[0], seed=self.turn
        )
        data.debank(
            self.landing, data.moments(start, end, NEW // 5), account=WALLETS[0], seed=self.turn
        )
        return self._cycle(NEW)

    def late(self) -> dict[str, float]:
        """An entry turns up on each of twenty days, scattered over the whole history.

        Of zero, so that the balances reported before still reconcile.
        """
        days = self._days()
        gap = days / LATE_DAYS
        now = (END + self.turn * timedelta(hours=6)).replace(tzinfo=UTC)
        for n in range(LATE_DAYS):
            when = now - timedelta(days=(n + 0.3 + 0.4 * (n % 2)) * gap, seconds=self.turn)
            data.coinbase(
                self.landing,
                [when.replace(microsecond=0)],
                account=ACCOUNTS[1],
                seed=self.turn * LATE_DAYS + n,
                received=now,
                money="0.00000000",
            )
        return self._cycle(LATE_DAYS)

    def _days(self) -> float:
        with open_warehouse(self.history.path, owner="bench", read_only=True) as con:
            (rows,) = con.execute(
                "SELECT 2 * count(*) FROM raw.exchanges_ledger WHERE batch_id = 'history'"
            ).fetchone()
        return rows / ROWS_A_DAY

    def _cycle(self, rows: int) -> dict[str, float]:
        self.turn += 1
        self.counter.write_text(json.dumps(self.turn))
        with living_in(self.history):
            took, done = {"cpu": 0.0}, {}
            for step, work in _steps(self.landing, done, f"bench-{self.turn}"):
                gc.collect()
                began = time.process_time()
                with gc_paused():  # as in a task's process, which ends with its step
                    took[step] = seconds(work)
                took["cpu"] += time.process_time() - began
        if done["loaded"].new != rows or done["loaded"].changed:
            raise RuntimeError(f"{rows} new rows were landed, and the load says {done['loaded']}")
        self.times.append(took)
        return took


def _steps(landing: Path, done: dict, run_id: str) -> list[tuple[str, Callable[[], None]]]:
    def load_step() -> None:
        with open_warehouse(owner="bench") as con:
            done["loaded"]: Loaded = load(con, landing, SOURCES)

    def transform_step() -> None:
        done["transformed"]: Transformed = transform(owner="bench")

    def check_step() -> None:
        spans = done["transformed"].spans
        interval = Interval(spans[0].start, spans[-1].end)
        critical = failed_critical(check(interval, run_id=run_id, owner="bench", spans=spans))
        if critical:
            raise RuntimeError(f"the history is not what the checks expect: {critical[0]}")

    def publish_step() -> None:
        transformed = done["transformed"]
        publish_checked(transformed.batches, transformed.changed, run_id=run_id, owner="bench")

    return [
        ("load", load_step),
        ("transform", transform_step),
        ("check", check_step),
        ("publish", publish_step),
    ]


def _medians(times: list[dict[str, float]]) -> str:
    parts = [f"{step} {median([t[step] for t in times]):.2f} s" for step in _steps_of(times)]
    return ", ".join(parts) + f"; CPU {median([t['cpu'] for t in times]):.2f} s"


def _steps_of(times: list[dict[str, float]]) -> list[str]:
    return [step for step in times[0] if step != "cpu"]


def _totals(times: list[dict[str, float]]) -> list[float]:
    return [sum(t[step] for step in _steps_of(times)) for t in times]


def rows(
    small: int = 1_000_000, large: int = 10_000_000, repeats: int = 5, late_repeats: int = 3
) -> list[dict]:
    """The table's rows on scale."""
    with postgres() as uri:
        short, long = (Cycles(warehouse(size, uri)) for size in (small, large))
        for cycles in (short, long):  # imports, caches
            cycles.sync()
            cycles.times.clear()
        for turn in range(repeats):
            for cycles in (short, long) if turn % 2 else (long, short):
                cycles.sync()
            tell(f"cycle at {large:,}: {long.times[-1]}; at {small:,}: {short.times[-1]}")
        late = []
        for _ in range(late_repeats):
            late.append(long.late())
            tell(f"late days at {large:,}: {late[-1]}")
        cycles_long = long.times[:repeats]
    return [
        *growth_rows(short.times, cycles_long, small, large),
        cycle_row(cycles_long, large),
        late_row(late, large),
    ]


def growth_rows(short, long, small: int, large: int) -> list[dict]:
    table = []
    for step in ("load", "transform"):
        times = {
            name: [t[step] for t in all_times]
            for name, all_times in (("short", short), ("long", long))
        }
        growth = ratio(times["long"], times["short"])
        table.append(
            row(
                f"{NEW:,}-row increment at {large:,} of history against {small:,}: {step}",
                f"**{growth:.2f}×**: {spread(times['long'])} against {spread(times['short'])}",
                "≤ 1.2×",
                "≤ 1.05×",
                growth <= 1.2,
                f"1,000 Coinbase entries and 400 DeBank transactions (600 legs) of the six hours after "
                "the history, loaded in turn into a warehouse of each size "
                f"({ROWS_A_DAY:,} movements a day in both, so ten times the years), {len(short)} rounds; opening the file and "
                "SQLMesh's state in PostgreSQL included, imports not",
            )
        )
    return table


def cycle_row(times, large: int) -> dict:
    total = _totals(times)
    return row(
        f"database work of one sync cycle ({', '.join(_steps_of(times))}) at {large:,}",
        f"**{median(total):.2f} s** ({min(total):.2f}–{max(total):.2f}): {_medians(times)}",
        "≤ 4 s",
        "≤ 1 s",
        median(total) <= 4,
        f"The same increments; every step as its task does it, in one process with Great "
        f"Expectations and SQLMesh imported; garbage is collected between the steps, where a task's "
        f"process would have ended; {len(times)} cycles",
    )


def late_row(times, large: int) -> dict:
    total = _totals(times)
    return row(
        f"{LATE_DAYS} scattered late days at {large:,}",
        f"**{median(total):.2f} s** ({min(total):.2f}–{max(total):.2f}): {_medians(times)}",
        "≤ 10 s",
        "≤ 3 s",
        median(total) <= 10,
        f"One entry on each of {LATE_DAYS} days spread over the whole history, each a fetch of "
        f"its own; the whole cycle, checks of those days only; "
        f"{len(times)} cycles",
    )
