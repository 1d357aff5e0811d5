"""Curated against its rebuild from raw: equal, or it says where; production is only ever read."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import traceback
from contextlib import contextmanager
from decimal import Decimal

import duckdb
import pytest

from ledgerhouse.publish.gate import NotChecked, publish_checked
from ledgerhouse.transform import rebuild as rb
from ledgerhouse.transform import sqlmesh_context
from ledgerhouse.transform import touched_days as tf
from ledgerhouse.warehouse.connection import open_warehouse
from sandbox.server import serve
from tests.helpers.books import Books

pytestmark = pytest.mark.slow

START, NOW = "2025-01-20T00:00:00Z", "2025-02-10T00:00:00Z"


@pytest.fixture(scope="module")
def transformed(planned, tmp_path_factory):
    """Three weeks of two vendors, transformed; the marks are those a transform has just read."""
    var = tmp_path_factory.mktemp("transformed")
    shutil.copytree(planned, var, dirs_exist_ok=True)
    with serve(seed=8, now=NOW, scale=0.6) as url:
        books = Books(url, var / "landing", path=str(var / sqlmesh_context.FILE))
        books.sync(START, NOW, snapshot=True)
        books.con.close()
    tf.transform(var / sqlmesh_context.FILE, owner="test")
    return var


@pytest.fixture
def var(transformed, tmp_path):
    shutil.copytree(transformed, tmp_path / "var")
    return tmp_path / "var"


@contextmanager
def opened(var):
    with duckdb.connect(str(var / sqlmesh_context.FILE)) as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


def marked(var) -> list[str]:
    with opened(var) as con:
        return [
            b for (b,) in con.execute("SELECT DISTINCT batch_id FROM ops.touched_days").fetchall()
        ]


def content(var) -> str:
    return hashlib.sha256((var / sqlmesh_context.FILE).read_bytes()).hexdigest()


def killed_in(var, place: str, nth: int) -> None:
    """A rebuild that dies by SIGKILL at the `nth` call of a function of its or of transform."""
    pid = os.fork()
    if not pid:
        try:
            module, name = (rb, place) if hasattr(rb, place) else (tf, place)
            real, calls = getattr(module, name), []

            def dying(*args, **kwargs):
                calls.append(1)
                if len(calls) == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            setattr(module, name, dying)
            rb.rebuild(var, batches=marked(var), owner="doomed")
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, place


def test_killed_anywhere_production_is_as_it_was_and_the_next_rebuild_cleans(var, monkeypatch):
    batches = marked(var)
    before = content(var)
    for place, nth in (("_own_state", 1), ("physical", 3), ("_drop_models", 1), ("run_models", 1)):
        killed_in(var, place, nth)
        assert (var / rb.FOLDER).is_dir(), f"{place}: there was something to lose"
        assert content(var) == before
        with open_warehouse(
            var / sqlmesh_context.FILE, owner="a reader", wait_s=0, read_only=True
        ) as con:
            assert con.execute("SELECT count(*) > 0 FROM curated.daily_balances").fetchone()[0]
    # The state of production's models is elsewhere, and must not even be looked for.
    monkeypatch.setenv("LEDGERHOUSE_STATE_URI", "postgresql://nobody@/none?host=/nowhere")
    done = rb.rebuild(var, batches=batches)
    assert os.environ["LEDGERHOUSE_STATE_URI"] == "postgresql://nobody@/none?host=/nowhere"
    assert done.differences == () and done.left_out == () and done.stale == ()
    assert content(var) == before and not (var / rb.FOLDER).exists()
    with opened(var) as con:
        assert done.rows == {
            t.name: con.execute(f"SELECT count(*) FROM {t.name}").fetchone()[0] for t in rb.TABLES
        }
        assert min(done.rows.values()) > 20


def tamper(con, table: str, sql: str, *values) -> None:
    schema, name = rb.physical(con, table)
    assert con.execute(sql.format(f'{schema}."{name}"'), list(values)).fetchone() == (1,)


def test_what_was_changed_behind_the_models_is_named_row_by_row(var, monkeypatch):
    batches = marked(var)
    with opened(var) as con:
        rows = con.execute(
            "SELECT txid, leg, ts::DATE, amount FROM curated.tx_unified WHERE "
            "domain = 'exchange' AND amount IS NOT NULL ORDER BY ts"
        ).fetchall()
        # Another has loaded a day since: it may lag, and every balance from there on.
        late = rows[-1][2]
        con.execute(
            "INSERT INTO ops.touched_days VALUES ('exchanges_ledger', ?, 'of a sync')", [late]
        )
        tamper(con, "curated.tx_unified", "DELETE FROM {} WHERE txid = ?", rows[-1][0])
        known = [row for row in rows if row[2] < late]
        (txid, leg, day, amount), gone = known[3], known[-1]
        assert day < gone[2]
        tamper(
            con,
            "curated.tx_unified",
            "UPDATE {} SET amount = amount + 0.000000000000000001 WHERE txid = ? AND leg = ?",
            txid,
            leg,
        )
        tamper(con, "curated.tx_unified", "DELETE FROM {} WHERE txid = ?", gone[0])
        tamper(con, "curated.staged_exchanges", "DELETE FROM {} WHERE txid = ?", gone[0])
        tamper(
            con,
            "curated.daily_flows",
            "INSERT INTO {} BY NAME SELECT * REPLACE ('FAKE' AS "
            "token) FROM curated.daily_flows WHERE date = ? LIMIT 1",
            day,
        )
        held = con.execute(
            "SELECT count(*) FROM curated.daily_balances WHERE date < ?", [late]
        ).fetchone()[0]
    before = content(var)
    with pytest.raises(rb.RebuildMismatch) as raised:
        rb.rebuild(var, batches=batches)
    assert content(var) == before and not (var / rb.FOLDER).exists()
    rebuilt = raised.value.rebuilt
    found = {diff.table: diff for diff in rebuilt.differences}
    assert set(found) == {t.name for t in rb.TABLES} - {"curated.staged_onchain"}, (
        "balances are sums of the flows"
    )
    diff = found["curated.tx_unified"]
    assert diff.days == (day, gone[2])
    assert (diff.column, diff.production, diff.rebuilt) == (
        "amount",
        str(amount + Decimal("1e-18")),
        str(amount),
    )
    assert f"txid = {txid}, leg = {leg}" in diff.key
    diff = found["curated.staged_exchanges"]
    assert (diff.days, diff.column, diff.production) == ((gone[2],), "", None)
    assert f"txid = {gone[0]}" in diff.key and "rebuilt only" in str(diff)
    diff = found["curated.daily_flows"]
    assert (diff.days, diff.column, diff.rebuilt) == ((day,), "", None)
    assert "token = FAKE" in diff.key and "production only" in str(diff)
    assert found["curated.daily_balances"].days[0] == day
    assert rebuilt.left_out == (late,) and rebuilt.rows["curated.daily_balances"] == held
    assert all(str(diff) in str(raised.value) for diff in found.values())
    # It counts as a failed check: nothing of the run may be published.
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(var))
    with open_warehouse(owner="test") as con:
        rb.record(con, "weekly", rebuilt)
        checks = con.execute(
            "SELECT success, observed FROM ops.checkpoints WHERE checkpoint = "
            "'rebuild' AND run_id = 'weekly' ORDER BY expectation"
        ).fetchall()
    assert [success for success, _ in checks] == [False, False, False, True, False]
    assert str(found["curated.tx_unified"]) == checks[-1][1]
    with pytest.raises(NotChecked, match="4 critical"):
        publish_checked(batches, run_id="weekly", owner="test")


def test_without_room_on_the_disk_nothing_is_begun(var, monkeypatch):
    usage = shutil.disk_usage(var)
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: usage._replace(
            free=int(rb.DISK_FACTOR * (var / sqlmesh_context.FILE).stat().st_size) - 1
        ),
    )
    before = content(var)
    with pytest.raises(rb.DiskFull, match="production was not touched"):
        rb.rebuild(var)
    assert content(var) == before and not (var / rb.FOLDER).exists()
