"""Replay: from the landing alone, row for row, with no call, whatever was in the middle of it."""

import dataclasses
import random
import shutil
from datetime import UTC, datetime, timedelta

import duckdb
import pytest
import requests

from extract.core.interval import iso, utc
from extract.fetch import archives, landing
from extract.sources import all_sources
from ledgerhouse.load.loader import load
from ledgerhouse.load.replay import FROM_LANDING, ReplayFailed, replay
from sandbox.server import serve
from tests.helpers.books import Books

pytestmark = pytest.mark.slow

START = "2024-11-01T00:00:00Z"


def content(path) -> dict[str, list]:
    with duckdb.connect(str(path), read_only=True) as con:
        return {t: sorted(con.execute(f"FROM {t}").fetchall(), key=repr) for t in FROM_LANDING}


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """Three weeks of syncs, a history piece read late and one read again; with its landing."""
    var = tmp_path_factory.mktemp("lived")
    rng = random.Random(5)
    with serve(seed=21, now=START, scale=0.5) as url:
        books = Books(url, var / "landing", path=str(var / "warehouse.duckdb"))
        now = utc(START) + timedelta(days=8)
        for step in range(6):
            now += timedelta(hours=rng.choice([6, 6, 12, 60]))
            requests.post(f"{url}/_control/clock", json={"now": iso(now)}, timeout=10)
            start = utc(START) + timedelta(days=8 if step < 4 else 0)
            books.sync(start, iso(now), snapshot=step % 2 == 0, refetch=step == 3)
        books.con.close()
    return var


def test_replay_is_row_for_row_the_warehouse_and_asks_nobody(lived, tmp_path):
    var = tmp_path / "var"
    shutil.copytree(lived, var)
    before = content(var / "warehouse.duckdb")
    assert before["raw.history"] and before["ops.coverage"] and before["raw.balances"]
    sources = all_sources()
    done = replay(var / "warehouse.duckdb", var / "landing", sources)  # the sandbox is gone
    assert done.differences == {} and done.loads >= 6
    assert content(var / "warehouse.duckdb") == before
    with duckdb.connect(str(var / "warehouse.duckdb")) as con:
        marked = con.execute(
            "SELECT count(DISTINCT day) FROM ops.touched_days WHERE dataset = "
            "'onchain_transactions'"
        ).fetchone()
        assert (
            marked
            == con.execute(
                "SELECT count(DISTINCT ts::DATE) FROM raw.onchain_transactions"
            ).fetchone()
        ), "every day is marked, so curated is rebuilt"
    # Without the warehouse as well, and with another mapping: what it maps differently is reported.
    (var / "warehouse.duckdb").unlink()
    replay(var / "warehouse.duckdb", var / "landing", sources)
    assert content(var / "warehouse.duckdb") == before
    louder = dataclasses.replace(
        sources["coinbase"],
        mappings={
            **sources["coinbase"].mappings,
            "exchanges_ledger": sources["coinbase"]
            .mappings["exchanges_ledger"]
            .replace("row.type AS type", "upper(row.type) AS type"),
        },
    )
    changed = replay(var / "warehouse.duckdb", var / "landing", {**sources, "coinbase": louder})
    assert set(changed.differences) <= {"raw.exchanges_ledger", "raw.history"}
    with duckdb.connect(str(var / "warehouse.duckdb")) as con:
        assert con.execute(
            "SELECT bool_and(type = upper(type)) FROM raw.exchanges_ledger"
        ).fetchone() == (True,)


def packed(root, months=None):
    """Pack months of a landing, else all; how many files that were."""
    later = datetime.now(UTC) + timedelta(days=1)
    due, loads = archives.due(root, later), landing.loads(root)
    return sum(archives.pack(root, month, later, loads).files for month in due[:months])


def test_a_replay_of_archives_and_of_a_mix_is_row_for_row_that_of_files(lived, tmp_path):
    var, sources = tmp_path / "var", all_sources()
    shutil.copytree(lived, var)
    root, before = var / "landing", content(var / "warehouse.duckdb")
    files = landing.archived(root)
    mixed = packed(root, months=1)
    assert 0 < mixed < len(files), "some months of some sources"
    assert replay(var / "warehouse.duckdb", root, sources).differences == {}
    assert content(var / "warehouse.duckdb") == before
    assert mixed + packed(root) == len(files) and landing.archived(root) == {}
    (var / "warehouse.duckdb").unlink()
    done = replay(var / "warehouse.duckdb", root, sources)
    assert content(var / "warehouse.duckdb") == before
    assert done.loaded.files == len(files)


def test_a_landing_with_a_hole_is_refused_and_the_warehouse_kept(lived, tmp_path):
    var = tmp_path / "var"
    shutil.copytree(lived, var)
    before = content(var / "warehouse.duckdb")
    victim = next(iter(landing.archived(var / "landing").values()))
    victim.unlink()
    with pytest.raises(ReplayFailed, match=f"{victim.name}.*not in the landing.*not touched"):
        replay(var / "warehouse.duckdb", var / "landing", all_sources())
    assert content(var / "warehouse.duckdb") == before


def test_a_kill_between_commit_and_archive_loads_nothing_twice(tmp_path, monkeypatch):
    with serve(seed=22, now="2024-12-01T00:00:00Z", scale=0.2) as url:
        books = Books(url, tmp_path / "landing", path=str(tmp_path / "warehouse.duckdb"))
        for job in books.plan(START, "2024-12-01"):
            books.fetch(job)
        monkeypatch.setattr(
            landing, "note_load", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            load(books.con, books.root, books.sources)
        monkeypatch.undo()
        batches = books.column("SELECT count(*) FROM ops.batches")
        files = len(list(landing.waiting(books.root)))
        assert files and batches != [0]
        load(books.con, books.root, books.sources)
        assert list(landing.waiting(books.root)) == []
        known = books.column("SELECT DISTINCT batch_id FROM ops.landed_files")
        assert {load.batch_id for load in landing.loads(books.root)} == set(known)
        assert books.column("SELECT count(*) - count(DISTINCT file) FROM ops.landed_files") == [0]
        books.con.close()
    before = content(tmp_path / "warehouse.duckdb")
    assert replay(tmp_path / "warehouse.duckdb", books.root, books.sources).differences == {}
    assert content(tmp_path / "warehouse.duckdb") == before
