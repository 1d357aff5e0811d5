"""Five years of bookkeeping in one go: what 7,300 syncs leave behind, and what a cycle costs then.

Each simulated sync, six hours after the one before, lands a few new records of an account of an
exchange and of a wallet, with their call logs, attempts and task logs, as tasks do; loads, mirrors
and records checks by the product's own functions, in a warehouse file. Once a simulated day the
maintenance's functions run, at the simulated time; files carry it as their time of change.

Not part of it: Airflow's database and processes, models, and publishing (bench_scale, bench_publish
and bench_airflow have those).
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from extract.core.interval import Interval, iso
from extract.core.source import Covered, Fetched, Job, Page
from extract.fetch import landing
from extract.fetch.call_log import call_log
from extract.sources import all_sources
from extract.sources.coinbase import TRANSACTIONS
from ledgerhouse.check.checkpoints import CheckResult, record
from ledgerhouse.config import Maintenance
from ledgerhouse.load.call_log import load_calls
from ledgerhouse.load.loader import load
from ledgerhouse.operate import retention
from ledgerhouse.operate.airflow.api import AirflowApiError
from ledgerhouse.operate.run_log.attempts import attempt
from ledgerhouse.operate.run_log.mirror import mirror
from ledgerhouse.warehouse.compaction import compact
from ledgerhouse.warehouse.connection import open_warehouse
from tests.benchmarks.data import entry
from tests.benchmarks.measure import bench_var, row, tell

SYNCS, STEP = 7_300, timedelta(hours=6)
A_YEAR = timedelta(days=365) / STEP
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
TASKS = ("plan_a", "plan_b", "fetch_a", "fetch_b", "load", "transform", "check", "publish", "alert")
RECORDS, CALLS, EXPECTATIONS = 8, 4, 40
TASK_LOG = b"x" * 6_000  # of a task that had nothing special to say
MOST_FILES = len(TASKS) * 4 * 31 + 2 * 4 * 63  # logs of 31 days, call logs of 63: 1,620
KEPT = ("landing", "calls", "attempts", "airflow", "warehouse.duckdb")
TABLES = ("raw.exchanges_ledger", "ops.api_calls", "ops.sync_runs", "ops.checkpoints")


class NoAirflow:
    """Airflow's REST API, of which every run is gone: the mirror then takes the tasks' own records."""

    def call(self, method: str, path: str, *_: Any, **__: Any) -> Any:
        if path.endswith("/dagRuns"):
            return {"dag_runs": []}
        raise AirflowApiError(404, "gone")


@dataclass
class Soak:
    """A var folder that is lived in, `now` being its own time."""

    var: Path
    now: datetime = BEGIN
    number: int = 0
    seconds: list[float] = field(default_factory=list)
    removed: Counter = field(default_factory=Counter)
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    @property
    def warehouse(self) -> Path:
        return self.var / "warehouse.duckdb"

    def sync(self) -> None:
        """One sync's bookkeeping; the seconds are those of load, mirror and checks."""
        self.number += 1
        self.now += STEP
        run = f"scheduled__{iso(self.now)}"
        files = list(self._tasks(run))
        began = time.perf_counter()
        with open_warehouse(self.warehouse, owner="soak") as con:
            load_calls(con, self.var / "calls")
            load(con, self.var / "landing", all_sources())
            results = [
                CheckResult("raw.x", f"expectation {n}", "critical", True, "")
                for n in range(EXPECTATIONS)
            ]
            record(con, results, run, Interval(self.now - STEP, self.now))
            mirror(con, NoAirflow(), self.var / "attempts", ["sync"])  # type: ignore[arg-type]
        self.seconds.append(time.perf_counter() - began)
        self._date(files)

    def _tasks(self, run: str) -> Iterator[Path]:
        """What the tasks of a run leave before its load."""
        for task in TASKS:
            key = {"dag_id": "sync", "run_id": run, "task_id": task, "map_index": -1}
            key["try_number"] = 1
            with attempt(self.var / "attempts", key):
                if task.startswith("fetch"):
                    self._fetch(key)
            log = self.var / f"airflow/logs/dag_id=sync/run_id={run}/task_id={task}/attempt=1.log"
            log.parent.mkdir(parents=True)
            log.write_bytes(TASK_LOG)
            yield log

    def _fetch(self, key: dict[str, Any]) -> None:
        account, asked = key["task_id"][-1], Interval(self.now - STEP, self.now)
        with call_log(self.var / "calls", key) as write:
            for call in range(CALLS):
                write(
                    {
                        "call_id": f"{key['run_id']}{account}{call}",
                        "called_at": iso(self.now),
                        "source": "coinbase",
                        "account": account,
                        "endpoint": TRANSACTIONS,
                        "status": 200,
                        "duration_ms": 1,
                        "units": 1,
                    }
                )
        records = ",".join(
            entry(self.rng, account, asked.start + STEP * n / RECORDS) for n in range(RECORDS)
        )
        body = f'{{"pagination": {{"next_uri": null}}, "data": [{records}]}}'
        page = Page(TRANSACTIONS, {"wallet": account}, body, self.now)
        job = Job("coinbase", account, "c", asked, asked.start)
        covered = [Covered("exchanges_ledger", asked, "end")]
        landing.write(self.var / "landing", job, Fetched([page], covered), key)

    def _date(self, files: list[Path]) -> None:
        """The simulated time as the files' own: by it maintenance knows their age."""
        month = f"{datetime.now():%Y-%m}"
        for file in (*files, *(self.var / "calls" / month).glob("*.jsonl")):
            at = self.now.timestamp()
            if file.stat().st_mtime > at:
                os.utime(file, (at, at))

    def maintain(self, keep: Maintenance | None = None) -> None:
        """A day's maintenance, at the simulated time."""
        keep = keep or Maintenance()

        def ago(**age: int) -> datetime:
            return self.now - timedelta(**age)

        logs = retention.logs([self.var / "airflow/logs"], ago(days=keep.task_log_days))
        with open_warehouse(self.warehouse, owner="soak") as con:
            calls = retention.call_logs(con, self.var / "calls", ago(days=keep.call_log_days))
        retention.leftovers(self.var, ago(hours=keep.draft_hours))
        compact(self.warehouse, owner="soak", free_percent=keep.free_percent)
        self.removed.update({"airflow": logs.files, "calls": calls.files})

    def files(self) -> dict[str, tuple[int, int]]:
        """Files and bytes by what they are of."""
        found = {}
        for name in KEPT:
            top = self.var / name
            paths = [top] if top.is_file() else [p for p in top.rglob("*") if p.is_file()]
            found[name] = len(paths), sum(path.stat().st_size for path in paths)
        return found

    def rows(self) -> dict[str, int]:
        with open_warehouse(self.warehouse, owner="soak", read_only=True) as con:
            return {
                table: con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
                for table in TABLES
            }


def soak(var: Path, syncs: int, report_every: int = 500) -> Soak:
    """So many syncs in `var`, with a maintenance a day."""
    lived = Soak(var)
    for _ in range(syncs):
        lived.sync()
        if not lived.number % 4:
            lived.maintain()
        if not lived.number % report_every:
            recent = median(lived.seconds[-100:])
            tell(f"{lived.number:,} syncs, a cycle takes {recent:.3f} s")
    return lived


def report(lived: Soak, edge: int) -> list[dict]:
    """Rows of the table; `edge` syncs are compared at the beginning and at the end."""
    years = lived.number / A_YEAR
    first, last = (median(part) for part in (lived.seconds[:edge], lived.seconds[-edge:]))
    files, rows = lived.files(), lived.rows()
    kept = files["calls"][0] + files["airflow"][0]
    by_kind = ", ".join(
        f"{name} {count / years:,.0f} files, {size / years / 1e6:,.1f} MB"
        for name, (count, size) in files.items()
        if name in ("landing", "warehouse.duckdb")
    )
    by_table = ", ".join(f"{name} {count / years:,.0f}" for name, count in rows.items())
    return [
        row(
            f"a cycle of load, mirror and checks after {lived.number:,} syncs, against the first",
            f"**{last / first:.1f} ×**: {1000 * last:.0f} ms against {1000 * first:.0f} ms",
            "≤ 2 ×",
            "≤ 1.2 ×",
            last <= 2 * first,
            f"medians of {edge} syncs of {2 * RECORDS} records at each end, maintenance once in four",
        ),
        row(
            f"logs and call logs that {lived.number:,} syncs leave",
            f"**{kept:,} files**; {sum(lived.removed.values()):,} were removed",
            "≤ 1,620 files",
            "bounded by age",
            kept <= MOST_FILES,
            "logs of tasks are kept 30 days, call logs 62 after they were loaded",
        ),
        row(
            "what a year of syncs adds that stays",
            f"**{by_kind}**; rows: {by_table}",
            "≤ 3,000 landed files, ≤ 500 MB",
            "",
            files["landing"][0] / years <= 3_000
            and sum(files[name][1] for name in ("landing", "warehouse.duckdb")) / years <= 5e8,
            f"two accounts, {RECORDS} records each a sync, by {lived.number:,} syncs",
        ),
    ]


def rows(syncs: int = SYNCS) -> list[dict]:
    with tempfile.TemporaryDirectory(dir=bench_var()) as folder:
        return report(soak(Path(folder), syncs), edge=100)
