"""The whole stack, live: five runs by the real scheduler, and what the warehouse held after each.

One story is played once, against the sandbox: a history; the scheduled sync that closes the hole
up to the last boundary; a sync whose DeBank refuses the key; the sync that heals it, in which a
fetch and every task that holds the warehouse is killed once; a backfill of covered time. The warehouse is copied after each run, and the
tests read the copies when everything has ended.
"""

from __future__ import annotations

import fcntl
import json
import random
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import duckdb
import psutil
import pytest
import requests

from extract.core.interval import Interval, iso
from ledgerhouse.operate.airflow.init import pools
from ledgerhouse.transform.sqlmesh_context import sqlmesh_plan
from ledgerhouse.warehouse.connection import WarehouseBusy, hold
from sandbox.coinbase import keys
from sandbox.debank.keys import DEBANK_KEY
from sandbox.world.world import World
from stack.follow import RunFailed, follow
from stack.live import running
from tests.helpers.books import ACCOUNTS, KEPT, assert_truth
from tests.helpers.processes import belonging_to
from tests.helpers.receiver import receiver

pytestmark = pytest.mark.live

DAGS = tuple(file.stem for file in (Path(__file__).parents[2] / "dags").glob("*.py"))

SEED, SCALE = 7, 0.5
SIX_HOURS = timedelta(hours=6)
UNDISTURBED = timedelta(minutes=6)  # the story is over before the scheduler's next boundary
LIMIT_S = 240.0
QUIET_S = 1.5
WEBHOOK_TOKEN = "webhook-token-4711"
KILLED = ("load", "transform", "check", "publish", "mirror")


@dataclass
class Step:
    """A run that has ended: its row and its tasks as Airflow tells, and the warehouse then."""

    run: dict
    tasks: list[dict]
    clock: datetime  # the sandbox's
    calls: int  # the sandbox's count since its start
    failure: str
    warehouse: Path

    @contextmanager
    def open(self):
        with duckdb.connect(str(self.warehouse), read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            yield con

    def rows(self, sql: str, *params) -> list[tuple]:
        with self.open() as con:
            return con.execute(sql, list(params)).fetchall()


@dataclass
class Story:
    """What was seen while the stack ran; `world` is the sandbox's, built again from its seed."""

    var: Path
    world: World
    start: datetime
    boundary: datetime
    observed: dict = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Step:
        try:
            return self.__dict__["steps"][name]
        except KeyError:
            raise AttributeError(name) from None


def boundary() -> datetime:
    """The last boundary of six hours by the real clock, when the next one is far enough."""
    while True:
        now = datetime.now(UTC)
        last = now.replace(hour=now.hour // 6 * 6, minute=0, second=0, microsecond=0)
        if last + SIX_HOURS - now > UNDISTURBED:
            return last
        time.sleep(1)


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    root, last = tmp_path_factory.mktemp("live"), boundary()
    start = (last - timedelta(days=40)).replace(hour=0)
    story = Story(root / "var", World(SEED, iso(start), SCALE, mess=False), start, last)
    env = {"SANDBOX_MESS": "no", "RETRY_DELAY_S": "1", "SYNC_START_DATE": iso(last - 3 * SIX_HOURS)}
    env["CLOCK_AHEAD_S"] = "1e6"  # the story goes on for days after the scheduler's boundary
    with receiver() as chat:
        env["AIRFLOW_CONN_ALERTS_WEBHOOK"] = json.dumps(
            {"conn_type": "http", "host": f"{chat.url}/alerts", "password": WEBHOOK_TOKEN}
        )
        with running(story.var, seed=SEED, now=last, start=start, scale=SCALE, env=env) as stack:
            play(stack, story, root)
        story.observed["alerts"] = chat.took()
    story.observed["left"] = belonging_to(story.var)
    return story


def play(stack, story: Story, root: Path) -> None:
    rest, observed, last = stack.rest, story.observed, story.boundary

    def control(path: str, **body) -> None:
        requests.post(
            f"{stack.sandbox_url}/_control/{path}", json=body, timeout=30
        ).raise_for_status()

    def step(name: str, dag: str, run: str, clock: datetime) -> None:
        failure = ""
        try:
            follow(stack, dag, run, lambda _: None)
        except RunFailed as error:
            failure = str(error)
        folder = root / name
        folder.mkdir()
        with hold(story.var / "warehouse.duckdb", "tests", LIMIT_S) as held:
            for file in held.parent.glob("warehouse.duckdb*"):
                shutil.copy(file, folder)
        stats = requests.get(f"{stack.sandbox_url}/_stats", timeout=30).json()
        story.steps[name] = Step(
            rest.run(dag, run),
            rest.task_instances(dag, run),
            clock,
            sum(stats["total"].values()),
            failure,
            folder / "warehouse.duckdb",
        )

    rest.wait_for_dags(*DAGS)
    observed |= {
        "dags": rest.dags(),
        "errors": rest.import_errors(),
        "pools": rest.call("GET", "/pools", limit=100)["pools"],
    }

    observed["connections"] = try_connections(stack)
    control("reset_stats")

    rest.unpause("history")
    until = last - timedelta(days=4)
    control("clock", now=iso(until))
    step(
        "history",
        "history",
        rest.trigger("history", {"interval_start": iso(story.start), "interval_end": iso(until)}),
        until,
    )

    control("clock", now=iso(last))
    rest.unpause("sync")  # makes the run of the last whole interval
    step("scheduled", "sync", await_run(rest, "scheduled")["dag_run_id"], last)

    # Beside the live scheduler, by Airflow's own command; Airflow closes it while the next runs run.
    native = iso(last - 3 * SIX_HOURS)
    airflow(
        stack, "backfill", "create", "--dag-id", "sync", "--from-date", native, "--to-date", native
    )

    rest.call("DELETE", "/pools/api_debank")  # as if the connection had been added since the start
    first, second = last + timedelta(days=4), last + timedelta(days=8)
    control("clock", now=iso(first))
    control("fail", vendor="debank", status=401)
    step("failing", "sync", rest.trigger("sync", interval=(last, first)), first)

    control("clock", now=iso(second))
    # One call is answered with a Retry-After of a minute: that fetch is killed while it waits.
    control("fail", vendor="debank", status=429, retry_after=60, count=1, endpoint="history_list")
    run = rest.trigger("sync", interval=(first, second))
    observed["killed"] = kill_fetch(stack, story.var, status=429)
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill_holders, story.var / "warehouse.duckdb.lock", run)
        step("healing", "sync", run, second)
        observed["killed tasks"] = killing.result()

    covered = iso(last - 2 * SIX_HOURS)
    ours = ("dags", "backfill", "-s", covered, "-e", covered, "-y", "sync")
    observed["dry run"] = json.loads(airflow(stack, *ours, "--dry-run", "--output", "json").stdout)
    observed["backfill"] = airflow(stack, *ours)
    backfills = {
        r["logical_date"]: r
        for r in rest.call("GET", "/dags/sync/dagRuns", run_type="backfill")["dag_runs"]
    }
    observed["native"] = backfills[native]
    step("backfill", "sync", backfills[covered]["dag_run_id"], second)

    observed["pool made"] = rest.call("GET", "/pools/api_debank")["slots"]
    observed["runs"] = [r["run_type"] for r in rest.call("GET", "/dags/sync/dagRuns")["dag_runs"]]
    with hold(story.var / "warehouse.duckdb", "task sync.load of run R", LIMIT_S):
        with pytest.raises(WarehouseBusy) as busy:
            sqlmesh_plan(["dev"], story.var / "warehouse.duckdb", wait_s=0.2)
    observed["plan"] = str(busy.value)


def airflow(stack, *arguments: str) -> subprocess.CompletedProcess:
    """A command as its user types it, with the settings of the stack."""
    return subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        env=stack.env,
        text=True,
        capture_output=True,
        timeout=LIMIT_S,
    )


def try_connections(stack) -> dict:
    """What the api-server says to the Test button, and what it shows of a Connection it keeps."""

    def test(name: str, **fields) -> tuple[bool, str]:
        known = json.loads(stack.env[f"AIRFLOW_CONN_{name.upper()}"])
        result = stack.rest.call(
            "POST", "/connections/test", {"connection_id": "tried", **known, **fields}
        )
        return result["status"], result["message"]

    kept = {
        "connection_id": "kept",
        "conn_type": "debank",
        "host": "http://127.0.0.1:1",
        "password": DEBANK_KEY,
        "extra": json.dumps({"api_token": DEBANK_KEY}),
    }
    stack.rest.call("POST", "/connections", kept)
    stored = json.loads(stack.env["AIRFLOW_CONN_DEBANK"]) | {"connection_id": "stored"}
    stack.rest.call("POST", "/connections", stored)
    page = {**stored, "password": "***", "port": 0, "schema": "", "description": "", "extra": "{}"}
    return {
        "as the page asks": tuple(stack.rest.call("POST", "/connections/test", page).values()),
        "debank": test("debank"),
        "coinbase": test("coinbase_main"),
        "one line": test("coinbase_main", password=keys.KEY_PEM.replace("\n", "")),
        "wrong": test("debank", password="guess-1234"),
        "kept": json.dumps(stack.rest.call("GET", "/connections/kept")),
    }


def await_run(rest, run_type: str) -> dict:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        runs = rest.call("GET", "/dags/sync/dagRuns", run_type=run_type)["dag_runs"]
        if runs:
            return runs[0]
        time.sleep(0.2)
    raise AssertionError(f"no {run_type} run of sync within {LIMIT_S:.0f} s")


def kill_fetch(stack, var: Path, status: int) -> dict:
    """SIGKILL the process that has been answered `status` and now waits; that line of its log."""
    (scheduler,) = [s for s in stack.processes.services if s.name == "scheduler"]
    deadline, seen = time.monotonic() + LIMIT_S, {}
    while time.monotonic() < deadline:
        for process in psutil.Process(scheduler.guard.pid).children(recursive=True):
            try:
                logs = [
                    f.path
                    for f in process.open_files()
                    if f.path.endswith(".jsonl") and Path(f.path).parent == var / "calls" / "inbox"
                ]
            except psutil.Error:
                continue
            for log in logs:
                seen[log] = calls = [
                    json.loads(line)
                    for line in Path(log).read_text().splitlines(keepends=True)
                    if line.endswith("\n")
                ]
                hit = [call for call in calls if call["status"] == status]
                # Its other threads' calls are answered: nothing is under way.
                if hit and time.time() - Path(log).stat().st_mtime > QUIET_S:
                    process.kill()
                    return hit[0]
        time.sleep(0.1)
    raise AssertionError(
        f"no fetch was answered {status} within {LIMIT_S:.0f} s; calls seen: "
        f"{[(c['source'], c['status']) for log in seen.values() for c in log]}"
    )


def kill_holders(lock: Path, run: str) -> list[str]:
    """SIGKILL the first attempt of each of KILLED while it holds the warehouse; who was killed."""
    left, deadline, moment = list(KILLED), time.monotonic() + LIMIT_S, random.Random(SEED)
    while left and time.monotonic() < deadline:
        with suppress(json.JSONDecodeError, psutil.NoSuchProcess):  # being written; ended just now
            held = json.loads(lock.read_text())
            if held["owner"] == f"task sync.{left[0]} of run {run}":
                holder = psutil.Process(held["pid"])
                time.sleep(moment.uniform(0, 0.2))
                holder.kill()
                left.pop(0)
        time.sleep(0.005)
    return [task for task in KILLED if task not in left]


# --- what the runs left -----------------------------------------------------------------------


def test_every_dag_file_imports_and_every_pool_has_one_slot(story):
    assert story.observed["errors"] == {}
    assert set(story.observed["dags"]) == set(DAGS)
    slots = {p["name"]: p["slots"] for p in story.observed["pools"] if p["name"] != "default_pool"}
    assert slots == dict.fromkeys(pools(), 1)


@pytest.mark.parametrize("name", ["history", "scheduled", "healing", "backfill"])
def test_a_run_that_succeeds_leaves_the_truth_and_nothing_to_do(story, name):
    step = getattr(story, name)
    assert step.run["state"] == "success", step.failure
    with step.open() as con:
        assert_truth(SimpleNamespace(con=con), story.world, iso(step.clock))
    assert step.rows("SELECT * FROM ops.touched_days") == [], "the checked days are consumed"
    assert (
        step.rows(
            "SELECT * FROM ops.checkpoints WHERE run_id = ? AND NOT success "
            "AND severity = 'critical'",
            step.run["dag_run_id"],
        )
        == []
    )
    assert step.rows("SELECT * FROM ops.checkpoints WHERE run_id = ?", step.run["dag_run_id"])


@pytest.mark.parametrize("name", ["scheduled", "healing"])
def test_a_sync_reconciles_every_account_at_its_end(story, name):
    step = getattr(story, name)
    found = step.rows(
        "SELECT DISTINCT source, account, snapshot_ts, status IN ('exact', 'within_tolerance') "
        "FROM curated.reconciliation WHERE kind IS DISTINCT FROM 'spam'"
    )
    assert sorted(found) == sorted(
        (a.source, a.account, step.clock.replace(tzinfo=None), True) for a in ACCOUNTS
    )


def test_the_scheduler_made_one_run_and_caught_up_no_other(story):
    """Three intervals had passed since the DAG's start."""
    assert sorted(story.observed["runs"]) == [
        "backfill",
        "backfill",
        "manual",
        "manual",
        "scheduled",
    ], (
        "with two scheduled ones, run this again: a boundary of six hours passed, "
        f"{UNDISTURBED} or more after the start"
    )


def test_the_scheduled_run_closes_the_hole_before_its_interval(story):
    run = story.scheduled.run
    assert run["run_type"] == "scheduled"
    assert Interval(run["data_interval_start"], run["data_interval_end"]) == Interval(
        story.boundary - SIX_HOURS, story.boundary
    )
    holes = [m for step in (story.history, story.scheduled) for m in uncovered(story, step)]
    assert holes == []


def uncovered(story: Story, step: Step) -> list[tuple[str, Interval]]:
    """What no account covers, from the start to the step's clock."""
    from extract.sources import all_sources
    from ledgerhouse.plan import coverage

    sources, wanted = all_sources(), Interval(story.start, step.clock)
    with step.open() as con:
        return [
            (a.source, hole)
            for a in ACCOUNTS
            for hole in coverage.missing(con, sources[a.source], a.account, wanted)
        ]


def test_a_failing_source_fails_the_run_and_not_the_others(story):
    failing, last = story.failing, iso(story.boundary)
    assert failing.run["state"] == "failed" and "HTTP 401" in failing.failure
    now = iso(failing.clock)
    wanted = {r["entry_id"] for r in story.world.ledger(now, KEPT) if r["time"] < now}
    assert {e for (e,) in failing.rows("SELECT entry_id FROM raw.exchanges_ledger")} == wanted
    assert any(r["time"] >= last for r in story.world.ledger(now, KEPT)), "the interval had rows"
    assert uncovered(story, failing) == [
        ("debank", Interval(last, now)) for a in ACCOUNTS if a.source == "debank"
    ]
    assert any(r["time"] >= last for r in story.world.transactions(now)), "so had DeBank's"
    assert failing.rows("SELECT source, sync_status FROM ops.sync_log ORDER BY ALL") == [
        ("coinbase", "success"),
        ("debank", "failed"),
    ]
    (sync,) = failing.rows("SELECT last_sync_ts FROM ops.sync_log WHERE source = 'debank'")
    assert sync == (story.boundary.replace(tzinfo=None),)


def test_the_next_sync_fetches_the_hole(story):
    assert uncovered(story, story.healing) == []
    assert story.healing.rows("SELECT source, sync_status FROM ops.sync_log ORDER BY ALL") == [
        ("coinbase", "success"),
        ("debank", "success"),
    ]


def test_the_mirror_has_every_attempt_of_every_run(story):
    for name, step in story.steps.items():
        newest = {(t["task_id"], t["map_index"]): (t["try_number"], t["state"]) for t in step.tasks}
        mirrored = step.rows(
            "SELECT task_id, map_index, max(try_number), arg_max(state, try_number) "
            "FROM ops.sync_runs WHERE run_id = ? GROUP BY ALL",
            step.run["dag_run_id"],
        )
        assert {(t, m): (n, s) for t, m, n, s in mirrored} == newest, name
        assert {
            t
            for (t,) in step.rows(
                "SELECT DISTINCT run_type FROM ops.sync_runs WHERE run_id = ?",
                step.run["dag_run_id"],
            )
        } == {step.run["run_type"]}
        calls, landed = step.rows(
            "SELECT (SELECT count(*) FROM ops.api_calls WHERE run_id = $1), "
            "(SELECT coalesce(sum(calls), 0) FROM ops.sync_runs WHERE run_id = $1)",
            step.run["dag_run_id"],
        )[0]
        # A killed attempt of a fetch cannot say how many calls it made; the call log can.
        assert calls - landed == (1 if name == "healing" else 0), name
    assert not list((story.var / "attempts").glob("*.json"))


def test_the_vendors_count_of_units_is_read_around_the_fetches_and_is_ours(story):
    for name in ("history", "healing"):
        (before, after) = story.steps[name].rows(
            "SELECT moment, balance, used, counted FROM ops.account_units WHERE run_id = ? "
            "ORDER BY reading_at",
            story.steps[name].run["dag_run_id"],
        )
        assert (before[0], after[0]) == ("before", "after")
        assert after[2] == after[3] == before[1] - after[1] > 0, name
    day, full = story.healing.rows(
        "SELECT sum(units), sum(full_refresh_units) FROM ops.spending WHERE source = 'debank'"
    )[0]
    assert 0 < day and 0 < full


def test_a_failed_attempt_says_why_and_tells_no_secret(story):
    failed = story.failing.rows(
        "SELECT task_id, calls, error, try_number FROM ops.sync_runs WHERE run_id = ? "
        "AND state = 'failed'",
        story.failing.run["dag_run_id"],
    )
    (attempt,) = [each for each in failed if each[0] != "complete"]
    task, calls, error, number = attempt
    assert (task, calls, number) == ("probe_debank", 1, 1), "a wrong key is asked once"
    assert re.search(r"debank account 0x\w+, /v1/account/units: HTTP 401", error)
    fetches = [t for t in story.failing.tasks if t["task_id"] == "fetch_debank"]
    assert [(t["map_index"], t["state"]) for t in fetches] == [(-1, "upstream_failed")]


def test_what_is_wrong_is_sent_once_and_again_when_it_is_over(story):
    """By the last task of a run, be it the failed one or one beside it, and though tasks were
    killed."""
    notices = [
        notice | {"run": body["run"], "link": body["link"]}
        for body in story.observed["alerts"]
        for notice in body["incidents"]
    ]
    assert len({notice["id"] for notice in notices}) == len(notices), "each once"
    for kind, sources, said in (
        ("failed_source", ("debank",), f"sync {story.failing.run['dag_run_id']}, task probe"),
        ("stale_coverage", ("coinbase", "debank"), "covered through "),
    ):
        events = {
            (a.source, a.account): [
                notice
                for notice in notices
                if (notice["kind"], notice["source"], notice["account"])
                == (kind, a.source, a.account)
            ]
            for a in ACCOUNTS
        }
        for (source, _), sent in events.items():
            assert [notice["event"] for notice in sent] == (
                ["opened", "resolved"] if source in sources else []
            ), (kind, source)
            assert all(said in notice["text"] for notice in sent)
    assert "HTTP 401" in next(
        notice["text"] for notice in notices if notice["kind"] == "failed_source"
    )
    for dag, run, link in ((*notice["run"].split(" ", 1), notice["link"]) for notice in notices):
        assert link.endswith(f"/dags/{dag}/runs/{quote(run, safe='')}")
    lasting = story.backfill.rows("SELECT kind FROM ops.incidents WHERE resolved_at IS NULL")
    assert {kind for (kind,) in lasting} <= {"unknown_type"}
    assert story.backfill.rows("SELECT * FROM ops.notices WHERE sent_at IS NULL") == []


def test_the_test_button_tells_what_is_wrong_and_a_failed_task_says_the_same(story):
    tried = story.observed["connections"]
    assert tried["as the page asks"] == tried["debank"], "with the stored key, and port 0 for none"
    assert tried["debank"] == (
        True,
        "OK: DeBank has 1,000,000 units left. The test made 1 call and spent 0 units",
    )
    for name in ("coinbase", "one line"):
        ok, words = tried[name]
        assert ok and words.startswith("OK: Coinbase sees "), words
    ok, words = tried["wrong"]
    meaning = words.partition(" — ")[0].replace(
        "this Connection", "the Airflow Connection 'debank'"
    )
    assert not ok and meaning.startswith("DeBank refuses the key") and "guess" not in words
    assert meaning in story.failing.failure
    assert DEBANK_KEY not in tried["kept"] and tried["kept"].count("***") == 2


def test_a_pool_that_is_missing_is_made_before_it_is_needed(story):
    assert story.observed["pool made"] == 1 and story.healing.run["state"] == "success"


def test_a_killed_fetch_is_tried_again_and_no_row_is_double(story):
    task = story.observed["killed"]
    assert task["task_id"] == "fetch_debank" and task["status"] == 429
    tries = story.healing.rows(
        "SELECT try_number, state, account FROM ops.sync_runs WHERE run_id = ? AND task_id = ? "
        "AND map_index = ? ORDER BY try_number",
        task["run_id"],
        task["task_id"],
        task["map_index"],
    )
    assert tries == [(1, "failed", task["account"]), (2, "success", task["account"])]
    assert story.healing.rows(
        "SELECT try_number, error FROM ops.api_calls WHERE call_id = ?", task["call_id"]
    ) == [(1, task["error"])]


def test_a_task_killed_while_it_holds_the_warehouse_is_tried_again(story):
    """What it left is the truth: see test_a_run_that_succeeds_leaves_the_truth."""
    assert story.observed["killed tasks"] == list(KILLED)
    tries = story.healing.rows(
        "SELECT task_id, try_number, state FROM ops.sync_runs WHERE run_id = ? AND list_contains("
        "?, task_id) ORDER BY ALL",
        story.healing.run["dag_run_id"],
        list(KILLED),
    )
    assert tries == sorted(
        (task, n, state) for task in KILLED for n, state in ((1, "failed"), (2, "success"))
    )


def test_a_backfill_of_covered_time_costs_no_call(story):
    backfill = story.backfill
    assert backfill.run["run_type"] == "backfill"
    assert backfill.calls == story.healing.calls
    start = story.boundary - 2 * SIX_HOURS
    assert backfill.rows(
        "SELECT DISTINCT run_type, interval_start, interval_end FROM ops.sync_runs "
        "WHERE run_id = ? AND task_id LIKE 'plan%'",
        backfill.run["dag_run_id"],
    ) == [("backfill", start.replace(tzinfo=None), (start + SIX_HOURS).replace(tzinfo=None))]
    assert {t["state"] for t in backfill.tasks if t["task_id"].startswith("fetch")} == {"skipped"}


def test_a_backfill_is_made_and_followed_from_the_command_line(story):
    """Its dry run has said what it would cost; Airflow's own command has worked beside it."""
    dry_run = story.observed["dry run"]
    start = story.boundary - 2 * SIX_HOURS
    assert [(r["start"], r["end"], r["calls"], r["units"]) for r in dry_run["intervals"]] == [
        (iso(start), iso(start + SIX_HOURS), 0, 0)
    ]
    ended = story.observed["backfill"]
    assert ended.returncode == 0 and "1 of 1 runs succeeded" in ended.stdout, ended.stderr
    assert (story.observed["native"]["run_type"], story.observed["native"]["state"]) == (
        "backfill",
        "success",
    )


def test_the_sandbox_counted_the_same_calls(story):
    counted = story.backfill.rows("SELECT count(*) FROM ops.api_calls WHERE status IS NOT NULL")
    assert counted == [(story.backfill.calls,)]


def test_a_plan_beside_a_task_waits_and_says_for_whom(story):
    assert re.fullmatch(
        r"sqlmesh plan waited 0 s for warehouse\.duckdb; it is held by "
        r"task sync\.load of run R \(process \d+, since .*\)\. .*",
        story.observed["plan"],
    )


def test_no_secret_is_written_anywhere_but_in_the_settings(story):
    """Not in a task's log, the landing, the call log, a record, the warehouse or the Data Docs."""
    secrets = [
        DEBANK_KEY,
        WEBHOOK_TOKEN,
        *(line for line in keys.KEY_PEM.splitlines() if "-" not in line),
    ]
    read = 0
    for file in (*story.var.rglob("*"), *(s.warehouse for s in story.steps.values())):
        if file.is_file() and "postgres" not in file.relative_to(story.var.parent).parts:
            content, read = contents(file), read + 1
            assert not [s for s in secrets if s.encode() in content], file
    assert read > 50


def contents(file: Path) -> bytes:
    if file.suffix != ".zst":
        return file.read_bytes()
    import zstandard

    with open(file, "rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        return stream.read()


def test_nothing_is_left_running_or_locked(story):
    assert story.observed["left"] == []
    with open(story.var / "warehouse.duckdb.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
