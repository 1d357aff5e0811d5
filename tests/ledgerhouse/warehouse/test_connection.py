"""One process at a time opens the warehouse: others wait, and learn for whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from ledgerhouse.warehouse.connection import WarehouseBusy, hold, holder, open_warehouse

ROOT = Path(__file__).parents[3]
WHO = "task sync.transform of run R"

HOLD = """
import sys
from pathlib import Path
from ledgerhouse.warehouse.connection import open_warehouse
with open_warehouse(Path(sys.argv[1]), owner=sys.argv[2]) as con:
    con.execute("CREATE TABLE IF NOT EXISTS proof (n INTEGER)")
    print("held", flush=True)
    sys.stdin.readline()
"""

# Every second process reads only; all count what they see, which may never shrink.
MANY = """
import sys
from pathlib import Path
from ledgerhouse.warehouse.connection import open_warehouse
path, number = Path(sys.argv[1]), int(sys.argv[2])
for turn in range(10):
    with open_warehouse(path, owner=f"process {number}", read_only=number % 2 == 0) as con:
        if number % 2:
            con.execute("INSERT INTO proof VALUES (?)", [number * 100 + turn])
        print(con.execute("SELECT count(*) FROM proof").fetchone()[0], flush=True)
"""


@contextmanager
def a_holder(path: Path):
    """Another process that holds the warehouse until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), WHO],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.communicate()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "warehouse.duckdb"


@pytest.mark.parametrize("read_only", [False, True])
def test_whoever_waits_too_long_is_told_who_holds_it(path, read_only):
    with (
        a_holder(path) as other,
        pytest.raises(WarehouseBusy) as error,
        open_warehouse(path, owner="make plan", wait_s=0.2, read_only=read_only),
    ):
        pass
    assert str(error.value).startswith(
        "make plan waited 0 s for warehouse.duckdb; it is held "
        f"by {WHO} (process {other.pid}, since "
    )
    assert "run again" in str(error.value)


def test_whoever_waits_gets_it_when_the_holder_is_done(path):
    with a_holder(path) as other:
        waiting = subprocess.Popen(
            [sys.executable, "-c", MANY, str(path), "2"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(0.3)
        other.communicate("\n")
    out, _ = waiting.communicate()
    assert waiting.returncode == 0 and out.split() == ["0"] * 10


def test_a_killed_holder_leaves_no_lock_and_no_half_transaction(path):
    with a_holder(path) as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with open_warehouse(path, owner="the next", wait_s=5) as con:
            con.execute("BEGIN")
            con.execute("INSERT INTO proof VALUES (1)")
            con.execute("ROLLBACK")
            assert con.execute("SELECT count(*) FROM proof").fetchone() == (0,)
            assert holder(path).startswith("the next (process ")


def test_an_error_inside_gives_the_warehouse_back(path):
    with pytest.raises(ZeroDivisionError), open_warehouse(path, owner="one"):
        raise ZeroDivisionError
    with open_warehouse(path, owner="two", wait_s=0) as con:
        assert con.execute("SELECT count(*) FROM ops.coverage").fetchone() == (0,)


@pytest.mark.slow
def test_readers_and_writers_in_many_processes_never_meet_a_lock_error(path):
    with open_warehouse(path, owner="tests") as con:
        con.execute("CREATE TABLE proof (n INTEGER)")
    many = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, str(path), str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in many:
        out, error = process.communicate()
        assert process.returncode == 0, error
        counts = [int(line) for line in out.split()]
        assert len(counts) == 10 and counts == sorted(counts)
    with open_warehouse(path, owner="tests", read_only=True) as con:
        assert con.execute("SELECT count(DISTINCT n), count(*) FROM proof").fetchone() == (20, 20)


def test_a_reader_of_a_warehouse_that_is_not_there_yet_meets_an_empty_one(path):
    with open_warehouse(path, owner="tests", read_only=True) as con:
        assert con.execute("SELECT 1").fetchone() == (1,)


def test_an_unreadable_name_is_no_error(path):
    with hold(path, "one"):
        path.with_name(path.name + ".lock").write_text("{")
        with (
            pytest.raises(WarehouseBusy, match="held by an unnamed process"),
            hold(path, "two", wait_s=0),
        ):
            pass


FORKING = """
import os, sys, time
from pathlib import Path
from ledgerhouse.warehouse.connection import hold
with hold(Path(sys.argv[1]), "the parent"):
    if not os.fork():
        print("forked", flush=True)
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""


def test_what_a_killed_holder_has_forked_does_not_keep_the_lock(path):
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING, str(path)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "forked\n"
        with pytest.raises(WarehouseBusy, match="the parent"), hold(path, "me", wait_s=0.2):
            pass
        process.kill()
        process.wait()
        with hold(path, "me", wait_s=5):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


@pytest.mark.parametrize("made_by, compression", [(None, "ZSTD"), ("v1.0.0", "FSST")])
def test_payloads_are_compressed_also_in_a_file_of_an_older_duckdb(tmp_path, made_by, compression):
    path = tmp_path / "warehouse.duckdb"
    if made_by:
        duckdb.connect(str(path), config={"storage_compatibility_version": made_by}).close()
    with open_warehouse(path, owner="test") as con:
        con.execute("""
            INSERT INTO raw.exchanges_ledger (source, account, entry_id, ts, payload)
            SELECT 's', 'a', i, TIMESTAMP '2026-01-01', i || repeat(', "status": "completed"', 20)
            FROM range(10_000) r(i)""")
        con.execute("CHECKPOINT")
        found = con.execute(
            "SELECT DISTINCT compression FROM pragma_storage_info("
            "'raw.exchanges_ledger') WHERE column_name = 'payload' "
            "AND segment_type = 'VARCHAR'"
        ).fetchall()
    assert found == [(compression,)]


def test_small_row_groups_stay_until_somebody_asks_to_compact(tmp_path):
    """The settings of DuckDB that are relied on: many small writes are merged by `compact` only."""
    path = tmp_path / "warehouse.duckdb"

    def groups() -> int:
        with open_warehouse(path, owner="test", read_only=True) as con:
            return con.execute(
                "SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('ops.spans')"
            ).fetchone()[0]

    def write(n: int, **how) -> None:
        with open_warehouse(path, owner="test", **how) as con:
            con.execute("CREATE TABLE IF NOT EXISTS ops.spans (n INT)")
            con.execute("INSERT INTO ops.spans FROM range(?, ?)", [n * 5000, n * 5000 + 5000])
            con.execute("DELETE FROM ops.spans WHERE n % 5000 = 7")

    for n in range(6):
        write(n)
    assert groups() == 6
    write(6, compact=True)
    assert groups() == 1
    with open_warehouse(path, owner="test", read_only=True) as con:
        assert con.execute(
            "SELECT count(*), count(DISTINCT n), max(n) FROM ops.spans"
        ).fetchone() == (7 * 4999, 7 * 4999, 34_999)
