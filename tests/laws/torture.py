"""Random lives of a warehouse: syncs, backfills, faults and kill -9, ending equal to the truth.

    python tests/laws/torture.py --lives 20 --seed 1 [--curated]      (make torture N=20)

Every step of a run (plan, fetch, load, transform, check, publish, mirror) is done by a forked process.
A doomed one is killed, with SIGKILL, at a drawn call that the code of `extract/` or `ledgerhouse/` makes (before or
after it), or after a drawn time, which also falls into the middle of a transaction of DuckDB's.
The next run simply goes on. After every step the readers' copy is opened and must be whole.
At the end, after one unharmed run that reads everything again, raw equals the sandbox's
truth, a replay of the landing equals raw, the books equal the warehouse, and ops.sync_runs has
every attempt once, as it ended.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import ccxt  # noqa: E402, F401
import duckdb  # noqa: E402
import requests  # noqa: E402
import zstandard  # noqa: E402, F401

from extract.core.errors import ExtractError, FetchStopped  # noqa: E402
from extract.core.interval import UTC, Interval, iso, utc  # noqa: E402
from extract.core.source import Job  # noqa: E402
from extract.fetch import landing  # noqa: E402
from extract.fetch.client import Client  # noqa: E402
from extract.sources import all_sources  # noqa: E402
from ledgerhouse.load.replay import replay  # noqa: E402
from ledgerhouse.operate.airflow.api import AirflowApi, AirflowApiError  # noqa: E402
from ledgerhouse.operate.run_log.attempts import attempt  # noqa: E402
from ledgerhouse.operate.run_log.mirror import mirror  # noqa: E402
from ledgerhouse.plan import coverage  # noqa: E402
from ledgerhouse.warehouse.connection import open_warehouse  # noqa: E402
from stack.settings import free_port  # noqa: E402
from tests.helpers.books import ACCOUNTS, Hurried, assert_truth, credentials  # noqa: E402

OURS = (f"{ROOT}/extract/", f"{ROOT}/ledgerhouse/")
START = utc("2024-11-01T00:00:00Z")
SOURCES = all_sources()


class Truth:
    """The sandbox's own ground truth, over HTTP: what `assert_truth` asks a World for."""

    def __init__(self, url: str):
        self.url = url

    def __getattr__(self, name: str):
        return lambda now: requests.get(
            f"{self.url}/_truth/{name}", {"now": now}, timeout=30
        ).json()


class Runs(AirflowApi):
    """Airflow's REST API, of the runs of a life."""

    def __init__(self, runs: dict[str, dict]):
        self.runs = runs

    def call(self, method: str, path: str, body=None, **params):
        if path.endswith("/dagRuns"):
            return {"dag_runs": list(self.runs.values())}
        run_id, _, tasks = path.split("/dagRuns/")[1].partition("/")
        if run_id not in self.runs:
            raise AirflowApiError(404, path)
        run = self.runs[run_id]
        return (
            {"task_instances": run["tasks"], "total_entries": len(run["tasks"])} if tasks else run
        )


class Life:
    """One warehouse in `var`, fed from the sandbox at `url`; `kills` counts them by step."""

    def __init__(self, var: Path, url: str, seed: int, curated: bool, kill: float = 0.5):
        self.var, self.url, self.curated, self.kill = var, url, curated, kill
        self.rng = random.Random(f"torture/{seed}")
        self.path = var / "warehouse.duckdb"
        self.kills, self.steps, self.runs = Counter(), Counter(), 0
        self.calls = {
            "fetch": 400,
            "load": 300,
            "transform": 300,
            "check": 200,
            "publish": 400,
            "mirror": 300,
        }
        self.counted: set[str] = set()  # steps whose calls were counted, and are no guess any more
        self.published: set = set()
        self.airflow: dict[str, dict] = {}  # run id → the run, and its tasks, as Airflow tells
        os.environ["LEDGERHOUSE_VAR"] = str(var)

    # One step of a run, in a process of its own.

    def step(self, name: str, work: Callable[[], object], harm: bool = True):
        """What `work` returns, or None where it was killed."""
        self.steps[name] += 1
        # A run whose load was killed comes to no model: of a curated life, those are spared.
        spared = self.curated and name in ("fetch", "load") and self.rng.random() < 0.8
        doom = harm and name in self.calls and not spared and self.rng.random() < self.kill
        at = self.rng.randrange(1, self.calls.get(name, 1) + 1) if doom else 0
        after = self.rng.uniform(0, 0.3) if doom and self.rng.random() < 0.3 else None
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(read)
            # Counting calls makes a step several times as long: done where the count is needed.
            counted = name in self.calls and harm and name not in self.counted
            _child(work, write, 0 if after else at, after, counted or (doom and not after))
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            payload = pipe.read()
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            assert doom and os.WTERMSIG(status) == signal.SIGKILL, f"{name} died of {status}"
            self.kills[name] += 1
            self.look()
            return None
        answer = pickle.loads(payload)
        if "trace" in answer:
            raise AssertionError(f"{name} failed:\n{answer['trace']}")
        if answer["calls"]:
            self.calls[name] = max(20, answer["calls"])
            self.counted.add(name)
        self.look()
        return answer["result"]

    def run(
        self, start, end, *, close_gaps: bool, refetch: bool = False, harm: bool = True
    ) -> bool:
        """One run as the DAG does it; False where a step of it was killed."""
        self.runs += 1
        run_id = f"run-{os.getpid()}-{self.runs}"
        jobs = self.step("plan", lambda: self._plan(Interval(start, end), close_gaps, refetch))
        self.rng.shuffle(jobs)
        tasks: list[dict] = []
        self.airflow[run_id] = {
            "dag_run_id": run_id,
            "run_type": "manual",
            "end_date": None,
            "tasks": tasks,
        }
        alive = True
        for number, job in enumerate(jobs):
            alive &= self.task(
                tasks, "fetch", lambda at, job=job: self._fetch(job, at), run_id, harm, number
            )
        if self.task(tasks, "load", self._load, run_id, harm):
            alive &= not self.curated or self._check_and_publish(run_id, harm)
        else:
            alive = False
        self.airflow[run_id]["end_date"] = iso(datetime.now(UTC))
        return self.step("mirror", self._mirror, harm) is not None and alive

    def task(
        self,
        tasks: list[dict],
        name: str,
        work: Callable,
        run_id: str,
        harm: bool,
        number: int = -1,
    ) -> bool:
        """A step that leaves records of its attempt; False where it was killed."""
        key = {
            "dag_id": "torture",
            "run_id": run_id,
            "task_id": name,
            "map_index": number,
            "try_number": 1,
        }

        def attempted():
            with attempt(self.var / "attempts", key) as outcome:
                outcome["rows"] = 1
                return work(key)

        done = self.step(name, attempted, harm) is not None
        tasks.append(
            {**key, "state": "success" if done else "failed", "start_date": None, "end_date": None}
        )
        return done

    def _mirror(self) -> int:
        with open_warehouse(self.path, owner="torture") as con:
            return mirror(con, Runs(self.airflow), self.var / "attempts", ["torture"])

    def _check_and_publish(self, run_id: str, harm: bool) -> bool:
        from ledgerhouse.check.checkpoints import failed_critical
        from ledgerhouse.check.run import check as run_checks
        from ledgerhouse.publish import gate
        from ledgerhouse.transform.touched_days import Superseded, transform

        done = self.step("transform", lambda: transform(self.path, owner="torture"), harm)
        if done is None:
            return False
        days = [day for _, day, _ in done.marks]
        span = (
            Interval(f"{min(days)}", f"{max(days) + timedelta(days=1)}")
            if days
            else Interval("2024-11-01", "2024-11-02")
        )

        def check():
            try:
                results = run_checks(span, run_id=run_id, owner="torture", batches=done.batches)
            except Superseded:  # by a run that goes on beside this one
                return "superseded"
            failed = failed_critical(results)
            # While a killed fetch leaves a hole, balances may be awaited, never off.
            assert not failed, "\n".join(map(str, failed))
            return "passed"

        verdict = self.step("check", check, harm)
        if verdict != "passed":
            return verdict is not None
        batches = sorted({batch for _, _, batch in done.marks})

        def publish():
            try:
                return gate.publish_checked(
                    batches, done.changed, run_id=run_id, owner="torture"
                ).generation
            except Superseded:  # by a run that goes on beside this one
                return 0

        return self.step("publish", publish, harm) is not None

    def _plan(self, span: Interval, close_gaps: bool, refetch: bool) -> list[Job]:
        with open_warehouse(self.path, owner="torture") as con:
            return coverage.jobs(con, SOURCES, ACCOUNTS, span, snapshot=close_gaps, refetch=refetch)

    def _fetch(self, job: Job, run: dict) -> str:
        from extract.fetch.call_log import call_log

        source, clock = SOURCES[job.source], Hurried()
        with call_log(self.var / "calls", run) as record:
            client = Client(
                job.source,
                job.account,
                rates=source.rates,
                units=source.units,
                record=record,
                sleep=clock.sleep,
                timer=clock,
            )
            api = source.connect(**credentials(job.source, self.url))
            try:
                fetched = source.fetch(client, api, job)
            except ExtractError as error:
                if isinstance(error, FetchStopped) and error.partial and error.partial.pages:
                    landing.write(self.var / "landing", job, error.partial, run)
                return f"failed: {error}"  # the next run asks again
            landing.write(self.var / "landing", job, fetched, run)
        return "landed"

    def _load(self, _run: dict) -> tuple:
        from ledgerhouse.load.call_log import load_calls
        from ledgerhouse.load.loader import load

        with open_warehouse(self.path, owner="torture") as con:
            load_calls(con, self.var / "calls")
            return load(con, self.var / "landing", SOURCES).counts()

    # What must hold.

    def look(self) -> None:
        """A reader's look at the books: whole, and no day that was published is missing."""
        books = self.var / "published" / "books.duckdb"
        if not books.exists():
            return
        with duckdb.connect(str(books), read_only=True) as con:
            off = con.execute("""
                SELECT count(*) FROM (
                    SELECT ts::DATE AS date, count(*) FILTER (counts) AS legs
                    FROM curated.tx_unified GROUP BY 1) t
                FULL JOIN (SELECT date, sum(legs) AS legs FROM curated.daily_flows GROUP BY 1) f
                    USING (date) WHERE t.legs IS DISTINCT FROM f.legs""").fetchone()[0]
            assert off == 0, f"{off} days of the books are torn"
            days = {
                day
                for (day,) in con.execute(
                    "SELECT DISTINCT ts::DATE FROM curated.tx_unified"
                ).fetchall()
            }
        assert days >= self.published, f"days went missing: {sorted(self.published - days)[:5]}"
        self.published = days

    def end(self, now) -> None:
        """One unharmed run over everything, then all the laws."""
        assert self.run(START, now, close_gaps=True, refetch=True, harm=False)
        self.step("mirror", self._mirror, harm=False)  # of the last run, too
        asked = self.step("plan", lambda: self._plan(Interval(START, now), False, False))
        assert asked == [], "all is covered"
        with open_warehouse(self.path, owner="torture") as con:
            live = SimpleNamespace(con=con)
            assert_truth(live, Truth(self.url), iso(now))
            assert con.execute(
                "SELECT count(*) - count(DISTINCT file) FROM ops.landed_files"
            ).fetchone() == (0,)
            mirrored = Counter(
                con.execute(
                    "SELECT run_id, task_id, map_index, state FROM ops.sync_runs"
                ).fetchall()
            )
            there = Counter(
                (run_id, t["task_id"], t["map_index"], t["state"])
                for run_id, run in self.airflow.items()
                for t in run["tasks"]
            )
            assert mirrored == there, (
                f"mirrored only: {mirrored - there}, lacking: {there - mirrored}"
            )
            assert list((self.var / "attempts").glob("*.json")) == []
            stats = requests.get(f"{self.url}/_stats", timeout=30).json()
            (logged,) = con.execute("SELECT count(*) FROM ops.api_calls").fetchone()
            # A call is written down when it is answered: a kill in between leaves it out.
            assert (
                sum(stats["total"].values()) - sum(self.kills.values()) * 8
                <= logged
                <= sum(stats["total"].values())
            )
            if self.curated:
                self._books_equal(con)
        if not self.curated:  # a replay drops curated, and the state with it
            assert (
                replay(self.path, self.var / "landing", SOURCES, tell=lambda _: None).differences
                == {}
            )

    def _books_equal(self, con) -> None:
        assert con.execute("SELECT count(*) FROM ops.touched_days").fetchone() == (0,)
        wrong = con.execute(
            "SELECT source, account, token, status, kind FROM curated.reconciliation "
            "WHERE status NOT IN ('exact', 'within_tolerance') AND kind IS DISTINCT FROM 'spam'"
        ).fetchall()
        assert wrong == []
        books = self.var / "published" / "books.duckdb"
        con.execute(f"ATTACH '{books}' AS books (READ_ONLY)")
        for table in ("tx_unified", "daily_flows", "daily_balances"):
            (off,) = con.execute(
                f"SELECT count(*) FROM ((FROM curated.{table} EXCEPT ALL FROM books.curated.{table})"
                f" UNION ALL (FROM books.curated.{table} EXCEPT ALL FROM curated.{table}))"
            ).fetchone()
            assert off == 0, f"{table}: {off} rows of the books are not the warehouse's"
        con.execute("DETACH books")


def _child(
    work: Callable[[], object], pipe: int, at: int, after: float | None, counting: bool
) -> None:
    """Never returns: writes what became of `work`, or dies at its `at`-th call or `after` seconds."""
    count = 0

    def watch(frame, event, _arg):
        nonlocal count
        if event in ("c_call", "c_return") and frame.f_code.co_filename.startswith(OURS):
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 0
    try:
        if after is not None:
            timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL))
            timer.daemon = True
            timer.start()
        if counting:
            threading.setprofile(watch)
            sys.setprofile(watch)
        answer = {"result": work()}
    except BaseException:
        answer, code = {"trace": traceback.format_exc()}, 1
    finally:
        sys.setprofile(None)
    answer["calls"] = count
    with os.fdopen(pipe, "wb") as out:
        out.write(pickle.dumps(answer))
    os._exit(code)


class Sandbox:
    """A sandbox in a process of its own (this one forks, so it keeps no server's threads)."""

    def __init__(self, seed: int, scale: float, late_days: int):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "sandbox",
                "--port",
                str(port),
                "--seed",
                str(seed),
                "--now",
                iso(START),
                "--start",
                iso(START),
                "--mess",
                "no",
                "--scale",
                str(scale),
                "--late-days",
                str(late_days),
                "--no-limits",
                "--hold",
                "0.1",
            ],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )

    def __enter__(self) -> Sandbox:
        for _ in range(600):
            try:
                requests.get(f"{self.url}/_health", timeout=5)
                return self
            except requests.RequestException:
                time.sleep(0.05)
        raise RuntimeError("the sandbox did not start")

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def tell(self, control: str, **body) -> None:
        requests.post(f"{self.url}/_control/{control}", json=body, timeout=10).raise_for_status()


def preload() -> None:
    """Import what every forked step of a curated life would import again, for seconds."""
    import great_expectations.expectations  # noqa: F401
    import sqlmesh
    import sqlmesh.core.context  # noqa: F401

    import ledgerhouse.check.checkpoints
    import ledgerhouse.check.suites  # noqa: F401


def live(seed: int, *, curated: bool = False, runs: int = 8, kill: float = 0.5) -> Life:
    """One life of `runs` runs with random intervals, faults and kills; raises where a law breaks."""
    if curated:
        preload()
    rng = random.Random(f"life/{seed}")
    late = rng.choice([0, 3])
    if curated:  # what is reported and not listed yet, or no longer, is off: no books, and rightly
        late = 0
    with (
        Sandbox(seed, rng.choice([0.1, 0.25]), late) as sandbox,
        tempfile.TemporaryDirectory() as folder,
    ):
        life = Life(Path(folder), sandbox.url, seed, curated, kill)
        now = START + timedelta(days=rng.randrange(8, 20))
        sandbox.tell("clock", now=iso(now))
        if curated:  # where the history begins after the account did, no balance can reconcile
            life.run(START, iso(now), close_gaps=True, harm=False)
        for _ in range(runs):
            now += timedelta(hours=rng.choice([6, 6, 6, 18, 60]))
            sandbox.tell("clock", now=iso(now))
            sandbox.tell("faults", profile=rng.choice(["none", "none", "chaos:0.1"]))
            if rng.random() < 0.3 and not curated:
                sandbox.tell(
                    "vanish",
                    vendor=rng.choice(list(dict.fromkeys(a.source for a in ACCOUNTS))),
                    seed=seed,
                )
            if rng.random() < 0.7:
                life.run(START + timedelta(days=rng.randrange(4)), iso(now), close_gaps=True)
            else:  # a backfill of some days
                days = (now - START).days
                first = START + timedelta(hours=rng.randrange(24 * (days - 1)))
                life.run(
                    first,
                    min(now, first + timedelta(hours=rng.randrange(6, 200))),
                    close_gaps=False,
                    refetch=rng.random() < 0.5,
                )
        sandbox.tell("faults", profile="none")
        now += timedelta(days=4)  # until late rows are there
        sandbox.tell("clock", now=iso(now))
        life.end(now)
    return life


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lives", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--curated", action="store_true", help="transform, check and publish too")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    kills, steps, began = Counter(), Counter(), time.monotonic()
    for number in range(args.lives):
        life = live(args.seed + number, curated=args.curated, runs=args.runs)
        kills += life.kills
        steps += life.steps
        print(
            f"life {number + 1} of {args.lives} (seed {args.seed + number}): equal to the truth; "
            f"{sum(steps.values()):,} steps, {sum(kills.values()):,} of them killed, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
    print(json.dumps({"steps": dict(steps), "kills": dict(kills)}))


if __name__ == "__main__":
    main()
