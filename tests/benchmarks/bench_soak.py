"""Years of bookkeeping in one go: what so many syncs leave behind, and what a cycle costs then.

A year is 1,460 syncs and takes a quarter of an hour of CPU; $LEDGERHOUSE_SOAK_SYNCS says another
number (7,300 are five years). What is said of five years is extrapolated from what was run, by the
growth that was measured, and says so.

Each simulated sync, six hours after the one before, lands a few new records of an account of an
exchange and of a wallet, with their call logs, attempts and task logs, as tasks do; loads, mirrors
and records checks by the product's own functions, in a warehouse file. Once a simulated day the
maintenance's functions run, at the simulated time; files carry it as their time of change.

Not part of it: Airflow's database and processes, models, and publishing (bench_scale, bench_publish
and bench_airflow have those).
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from extract.core.interval import Interval, iso
from extract.core.source import Covered, Fetched, Job, Page
from extract.fetch import archives, landing
from extract.fetch.call_log import call_log
from extract.sources import all_sources
from extract.sources.coinbase import TRANSACTIONS
from ledgerhouse.check.checkpoints import CheckResult, record
from ledgerhouse.config import Maintenance
from ledgerhouse.load import replay
from ledgerhouse.load.call_log import load_calls
from ledgerhouse.load.loader import load
from ledgerhouse.load.old_warehouse import OldWarehouse
from ledgerhouse.operate import retention
from ledgerhouse.operate.airflow.api import AirflowApiError
from ledgerhouse.operate.run_log.attempts import attempt
from ledgerhouse.operate.run_log.mirror import mirror
from ledgerhouse.warehouse.compaction import compact
from ledgerhouse.warehouse.connection import connected, open_warehouse, require_all_loads
from ledgerhouse.warehouse.schema import create_all
from tests.benchmarks.data import entry
from tests.benchmarks.measure import bench_var, cpu_seconds, interleaved, ratio, row, tell

SYNCS, STEP = int(os.environ.get("LEDGERHOUSE_SOAK_SYNCS") or 1_460), timedelta(hours=6)
FIVE_YEARS, LOADS_REPLAYED = 7_300, 50
A_YEAR = timedelta(days=365) / STEP
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
TASKS = ("plan_a", "plan_b", "fetch_a", "fetch_b", "load", "transform", "check", "publish", "alert")
RECORDS, CALLS, EXPECTATIONS = 8, 4, 40
TASK_LOG = b"x" * 6_000  # of a task that had nothing special to say
MOST_FILES = len(TASKS) * 4 * 31 + 2 * 4 * 63  # logs of 31 days, call logs of 63: 1,620
MOST_LANDED = 2 * 4 * (62 + 31 + 1)  # by themselves: of the days kept, and of a month that goes on
KEPT = ("landing", "calls", "attempts", "airflow", "warehouse.duckdb")
TABLES = ("raw.exchanges_ledger", "ops.api_calls", "ops.sync_runs", "ops.checkpoints")


class NoAirflow:
    """Airflow's REST API, of which every run is gone: the mirror then takes the tasks' own records."""

    def call(self, method: str, path: str, *_: Any, **__: Any) -> Any:
        if path.endswith("/dagRuns"):
            return {"dag_runs": []}
        raise AirflowApiError(404, "gone")


@dataclass
class Holds:
    """Files, inodes (folders too), and bytes: of the contents, and as the disk counts them."""

    files: int = 0
    inodes: int = 0
    bytes: int = 0
    on_disk: int = 0

    def add(self, path: Path) -> None:
        status = path.stat()
        self.inodes += 1
        self.on_disk += status.st_blocks * 512
        if path.is_file():
            self.files += 1
            self.bytes += status.st_size


@dataclass
class Soak:
    """A var folder that is lived in, `now` being its own time."""

    var: Path
    now: datetime = BEGIN
    number: int = 0
    cpu: list[float] = field(default_factory=list)  # of each cycle, in seconds
    maintenance: list[float] = field(default_factory=list)  # likewise of each day's
    removed: Counter = field(default_factory=Counter)
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    @property
    def warehouse(self) -> Path:
        return self.var / "warehouse.duckdb"

    def sync(self) -> None:
        """One sync's bookkeeping; its CPU is that of load, mirror and checks."""
        self.number += 1
        self.now += STEP
        run = f"scheduled__{iso(self.now)}"
        files = list(self._tasks(run))
        began = time.process_time()
        with open_warehouse(self.warehouse, owner="soak") as con:
            require_all_loads(con, self.var / "landing")
            load_calls(con, self.var / "calls")
            load(con, self.var / "landing", all_sources())
            results = [
                CheckResult("raw.x", f"expectation {n}", "critical", True, "")
                for n in range(EXPECTATIONS)
            ]
            record(con, results, run, Interval(self.now - STEP, self.now))
            mirror(con, NoAirflow(), self.var / "attempts", ["sync"])  # type: ignore[arg-type]
        self.cpu.append(time.process_time() - began)
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
        month, at = f"{datetime.now():%Y-%m}", self.now.timestamp()
        calls = (self.var / "calls" / month).glob("*.jsonl")
        landed = (self.var / "landing" / "coinbase" / f"{self.now:%Y-%m}").glob("*.zst")
        for file in (*files, *calls, *landed):
            if file.stat().st_mtime > at:
                os.utime(file, (at, at))

    def maintain(self, keep: Maintenance | None = None) -> None:
        """A day's maintenance, at the simulated time."""
        keep, began = keep or Maintenance(), time.process_time()

        def ago(**age: int) -> datetime:
            return self.now - timedelta(**age)

        logs = retention.logs([self.var / "airflow/logs"], ago(days=keep.task_log_days))
        with open_warehouse(self.warehouse, owner="soak") as con:
            calls = retention.call_logs(con, self.var / "calls", ago(days=keep.call_log_days))
            records = retention.attempts(con, self.var / "attempts", ago(days=keep.attempt_days))
        root, packed_before = self.var / "landing", ago(days=keep.landed_file_days)
        packed = retention.landed(root, self.warehouse, packed_before, "soak")
        retention.leftovers(self.var, ago(hours=keep.draft_hours))
        compact(self.warehouse, owner="soak", free_percent=keep.free_percent)
        self.removed.update(
            airflow=logs.files, calls=calls.files, attempts=records.files, packed=packed.files
        )
        self.maintenance.append(time.process_time() - began)

    def files(self) -> dict[str, Holds]:
        """What each folder of the var folder holds; whatever is in none of KEPT is `others`."""
        found = {name: Holds() for name in (*KEPT, "others")}
        for path in self.var.rglob("*"):
            top = path.relative_to(self.var).parts[0]
            found[top if top in KEPT else "others"].add(path)
        return found

    def rows(self) -> dict[str, int]:
        with open_warehouse(self.warehouse, owner="soak", read_only=True) as con:
            return {
                table: con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
                for table in TABLES
            }


def soak(var: Path, syncs: int, report_every: int = 100) -> Soak:
    """So many syncs in `var`, with a maintenance a day."""
    lived = Soak(var)
    logging.getLogger("ledgerhouse.operate.run_log.mirror").setLevel(logging.ERROR)  # every run
    for _ in range(syncs):
        lived.sync()
        if not lived.number % 4:
            lived.maintain()
        if not lived.number % report_every:
            recent = median(lived.cpu[-100:])
            tell(f"{lived.number:,} syncs, a cycle takes {1000 * recent:.0f} ms of CPU")
    return lived


def report(lived: Soak, edge: int) -> list[dict]:
    """Rows of the table; `edge` syncs are compared at the beginning and at the end."""
    years, number = lived.number / A_YEAR, f"{lived.number:,}"
    files, rows, growth = lived.files(), lived.rows(), Growth.of(lived.cpu, edge)
    kept = files["calls"].files + files["airflow"].files + files["attempts"].files
    landed = landing.archived(lived.var / "landing")
    tars = archives.archives(lived.var / "landing")
    stays = [files["landing"], files["warehouse.duckdb"]]
    by_folder = "; ".join(
        f"{name}: {each.files:,} files, {each.inodes:,} inodes, {each.bytes / 1e6:,.1f} MB "
        f"({each.on_disk / 1e6:,.1f} on disk)"
        for name, each in files.items()
        if each.inodes
    )
    by_table = ", ".join(f"{name} {count / years:,.0f}" for name, count in rows.items())
    return [
        row(
            f"a cycle of load, mirror and checks after {number} syncs, against the first",
            f"**{growth.last / growth.first:.2f} ×** the CPU: {1000 * growth.last:.0f} ms against "
            f"{1000 * growth.first:.0f} ms; {growth.in_words}",
            "≤ 2 ×, at five years too",
            "≤ 1.2 ×",
            max(growth.last, growth.then) <= 2 * growth.first,
            f"medians of {edge} syncs of {2 * RECORDS} records at each end, maintenance once in four "
            f"({1000 * median(lived.maintenance):.0f} ms); CPU, since others share the machine. By "
            f"quarters {growth.quarters}. Five years are extrapolated, along a line through these, only "
            "where each is more than the one before",
        ),
        row(
            f"logs and call logs that {number} syncs leave",
            f"**{kept:,} files**; {lived.removed['airflow'] + lived.removed['calls']:,} were removed",
            "≤ 1,620 files",
            "bounded by age",
            kept <= MOST_FILES,
            "logs of tasks are kept 30 days, call logs 62 after they were loaded, records of attempts "
            "until a mirror has them",
        ),
        row(
            "what a year of syncs adds that stays",
            f"**{len(tars) / years:,.0f} archives** of {lived.removed['packed'] / years:,.0f} landed "
            f"files ({len(landed):,} are by themselves, and stay that many), "
            f"{sum(each.bytes for each in stays) / years / 1e6:,.0f} MB; rows: {by_table}",
            "≤ 24 archives, ≤ 752 landed files, ≤ 500 MB",
            "",
            len(tars) / years <= 24
            and len(landed) <= MOST_LANDED
            and sum(each.bytes for each in stays) / years <= 5e8,
            f"two accounts, {RECORDS} records each a sync. After {number} syncs the var folder holds "
            f"{by_folder}",
        ),
    ]


@dataclass(frozen=True)
class Growth:
    """CPU of a cycle, in seconds: at the beginning, at the end, and by a line through the medians
    of the quarters after five years; `quarters` are these, in words."""

    first: float
    last: float
    then: float
    quarters: str
    in_words: str

    @classmethod
    def of(cls, cpu: list[float], edge: int) -> Growth:
        size = max(1, len(cpu) // 4)
        parts = [median(cpu[n * size : (n + 1) * size]) for n in range(min(4, len(cpu)))]
        slope = linear_regression(range(len(parts)), parts).slope / size if len(parts) > 1 else 0
        grows = all(before < after for before, after in zip(parts, parts[1:]))
        then = median(parts) + slope * (FIVE_YEARS - len(cpu) / 2) if grows else median(cpu[-edge:])
        words = ", ".join(f"{1000 * part:.0f}" for part in parts) + " ms"
        then_words = f"at {FIVE_YEARS:,} syncs {1000 * then:.0f} ms"
        in_words = then_words if grows else "no steady growth to extrapolate"
        return cls(median(cpu[:edge]), median(cpu[-edge:]), then, words, in_words)


def replayed(lived: Soak, work: Path, loads: int = LOADS_REPLAYED, repeats: int = 3) -> dict:
    """A replay of the first loads from their archives against the same files by themselves."""
    packed, single = work / "packed", work / "single"
    shutil.copytree(lived.var / "landing", packed)
    later = datetime.now(UTC) + timedelta(days=1)
    for month in archives.due(packed, later):
        archives.pack(packed, month, later, landing.loads(packed))
    shutil.copytree(packed, single)
    for name, member in archives.kept(single).items():
        assert isinstance(member, archives.Member)
        folder = single / "coinbase" / member.archive.name[:7]
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"".join(member.chunks()))
    for archive in archives.archives(single):
        archive.unlink()

    def found(root: Path) -> float:
        return cpu_seconds(lambda: replay.order_of(root, OldWarehouse()))

    def read(root: Path) -> float:
        order, _ = replay.order_of(root, OldWarehouse())
        path = work / "warehouse.duckdb"
        path.unlink(missing_ok=True)
        with connected(path) as con:
            create_all(con)
            return cpu_seconds(
                lambda: replay.load_all(
                    con, order[:loads], all_sources(), work / "x", lambda _: None
                )
            )

    times = interleaved(
        repeats,
        find_packed=lambda: found(packed),
        find_single=lambda: found(single),
        packed=lambda: read(packed),
        single=lambda: read(single),
    )
    files = len(landing.archived(single))
    a_load = median(times["packed"]) / loads
    a_file = {name: 1e6 * median(times[f"find_{name}"]) / files for name in ("packed", "single")}
    return row(
        f"a replay of {loads} loads from archives, against single files",
        f"**{ratio(times['packed'], times['single']):.2f} ×** the CPU: {1000 * a_load:.0f} ms a load; "
        f"finding and comparing a file {a_file['packed']:.0f} µs against {a_file['single']:.0f} µs",
        "≤ 1.1 ×",
        "",
        ratio(times["packed"], times["single"]) <= 1.1,
        f"{files:,} files listed and compared with their digests; the first {loads} loads, of two "
        f"files each, into an empty warehouse; {repeats} rounds in turn. A load's cost is its "
        f"statements, not its files: {FIVE_YEARS:,} of these are "
        f"{FIVE_YEARS * a_load / 60:.0f} minutes of CPU",
    )


def rows(syncs: int = SYNCS) -> list[dict]:
    with tempfile.TemporaryDirectory(dir=bench_var()) as folder:
        (var := Path(folder) / "var").mkdir()
        (work := Path(folder) / "work").mkdir()
        lived = soak(var, syncs)
        return [*report(lived, edge=100), replayed(lived, work)]
