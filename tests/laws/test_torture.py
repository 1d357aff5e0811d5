"""Killed anywhere and run again equals never killed: a few lives of torture.py, hundreds of kills.

`make torture N=100` lives more of them.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import time
import traceback
from collections import Counter
from datetime import timedelta

import pytest

from extract.core.interval import iso
from ledgerhouse.transform.sqlmesh_context import sqlmesh_plan
from ledgerhouse.warehouse.connection import open_warehouse
from tests.laws.torture import START, Life, Sandbox, live, preload

pytestmark = pytest.mark.slow

KILLED: Counter = Counter()
PATIENCE_S = 600  # for four processes that wait for each other


@pytest.mark.parametrize("seed", range(100, 106))
def test_a_life_with_kills_ends_equal_to_the_truth(seed):
    life = live(seed, runs=8, kill=0.95)
    assert life.kills["fetch"] > 5 and life.kills["load"]
    KILLED.update(life.kills)


def test_killed_between_models_checks_and_books_it_ends_equal_all_the_same():
    life = live(200, runs=5, kill=0.7, curated=True)
    assert sum(life.kills[step] for step in ("transform", "check", "publish")) >= 3, life.kills
    KILLED.update(life.kills)


def test_two_syncs_a_backfill_a_plan_and_a_reader_at_once(tmp_path):
    """Nobody sees a lock error: each waits its turn and says for whom, or reads the books."""
    preload()
    span = dict(close_gaps=True, harm=False)
    with Sandbox(31, 0.1, 0) as sandbox:
        life = Life(tmp_path, sandbox.url, 31, curated=True)
        now = START + timedelta(days=12)
        sandbox.tell("clock", now=iso(now))
        assert life.run(START, now, **span)
        now += timedelta(days=1)
        sandbox.tell("clock", now=iso(now))
        working = [
            _fork(tmp_path, "sync-1", lambda: life.run(START, now, **span)),
            _fork(tmp_path, "sync-2", lambda: life.run(START, now, **span)),
            _fork(
                tmp_path,
                "backfill",
                lambda: life.run(
                    START + timedelta(days=2),
                    START + timedelta(days=6),
                    close_gaps=False,
                    refetch=True,
                    harm=False,
                ),
            ),
            _fork(
                tmp_path,
                "plan",
                lambda: sqlmesh_plan(
                    ["dev", "--auto-apply", "--no-prompts", "--skip-tests", "--include-unmodified"],
                    life.path,
                ),
            ),
        ]
        looks, end = 0, time.monotonic() + PATIENCE_S
        while any(_running(pid) for pid in working):
            if time.monotonic() > end:
                for sign in (signal.SIGUSR1, signal.SIGKILL):  # the first writes the stacks
                    for pid in filter(_running, working):
                        os.kill(pid, sign)
                    time.sleep(1)
            life.look()
            looks += 1
            time.sleep(0.1)
        logs = {f.stem: f.read_text() for f in tmp_path.glob("*.log")}
        assert looks > 10 and set(logs) == {"sync-1", "sync-2", "backfill", "plan"}
        for name, log in logs.items():
            assert log.endswith("done\n"), f"{name}:\n{log}"
        assert "waits for warehouse.duckdb, held by" in "".join(logs.values())
        # Their processes kept their runs to themselves: what the mirrors have is what there was.
        with open_warehouse(life.path, owner="test") as con:
            for run_id, *task in con.execute(
                "SELECT run_id, task_id, map_index, state FROM ops.sync_runs"
            ).fetchall():
                known = life.airflow.setdefault(
                    run_id,
                    {"dag_run_id": run_id, "tasks": [], "run_type": "manual", "end_date": None},
                )
                task = dict(zip(("task_id", "map_index", "state"), task), try_number=1)
                if run_id.split("-")[1] != str(os.getpid()):
                    assert task["state"] == "success"
                    known["tasks"].append(task)
        assert len({run_id.split("-")[1] for run_id in life.airflow}) == 4
        life.end(now)


ENDED: set[int] = set()


def _running(pid: int) -> bool:
    if pid not in ENDED and os.waitpid(pid, os.WNOHANG)[0]:
        ENDED.add(pid)
    return pid not in ENDED


def _fork(folder, name: str, work) -> int:
    """Do `work` in another process; <name>.log ends with "done" when it went well."""
    pid = os.fork()
    if pid:
        return pid
    with open(folder / f"{name}.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            logging.basicConfig(level=logging.INFO, stream=log, force=True)
            faulthandler.register(signal.SIGUSR1, file=log)
            work()
            print("done", file=log, flush=True)
        except BaseException:
            traceback.print_exc(file=log)
        finally:
            log.flush()
            os._exit(0)
