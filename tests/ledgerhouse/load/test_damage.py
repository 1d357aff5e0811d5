"""Damage is named and contained: a replay never replaces more by less, and cures what is damaged."""

import os
import random
import shutil
from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from extract.core import durable
from extract.core.interval import Interval, iso
from extract.core.source import Covered, Fetched, Job
from extract.fetch import archives, landing
from extract.sources import all_sources
from extract.sources.coinbase import TRANSACTIONS
from ledgerhouse.load import loader, old_warehouse
from ledgerhouse.load.loader import load
from ledgerhouse.load.merge import merge
from ledgerhouse.load.replay import CARRIED, FROM_LANDING, ReplayFailed, replay
from ledgerhouse.warehouse.connection import NotReplayed, open_warehouse, require_all_loads
from tests.conftest import page

SOURCES = all_sources()
FILE = "warehouse.duckdb"
MONTHS = [Interval(f"2025-0{n}-01", f"2025-0{n + 1}-01") for n in (1, 2, 3, 4)]


def land(root, month, rows=20):
    """One fetch of a month's ledger, landed."""
    job = Job("coinbase", "main", "coinbase", month, month.start)
    entries = [
        {
            "id": f"{month.start:%m}-{n}",
            "type": "send",
            "status": "completed",
            "created_at": f"{month.start:%Y-%m}-{n + 1:02d}T00:00:00Z",
            "amount": {"amount": f"{n}.5", "currency": "BTC"},
        }
        for n in range(rows)
    ]
    body = page(TRANSACTIONS, {"data": entries}, at=iso(month.end), account_id="w")
    fetched = Fetched([body], [Covered("exchanges_ledger", month, "test")])
    return landing.write(root, job, fetched, {"run_id": "test"})


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A var folder with three loads of four files, and a call that only the warehouse knows."""
    var = tmp_path_factory.mktemp("lived")
    with open_warehouse(var / FILE, owner="test") as con:
        for months in (MONTHS[:1], MONTHS[1:3], MONTHS[3:]):
            for month in months:
                land(var / "landing", month)
            load(con, var / "landing", SOURCES)
        con.execute(
            "INSERT INTO ops.api_calls (call_id, called_at, source, account, endpoint, "
            "duration_ms, units) VALUES ('c', TIMESTAMP '2025-01-01', 'coinbase', 'main', '/', 1, 1)"
        )
    return var


@pytest.fixture
def var(lived, tmp_path):
    shutil.copytree(lived, tmp_path / "var")
    return tmp_path / "var"


def again(var, **options):
    return replay(var / FILE, var / "landing", SOURCES, **options)


def rows(file, *tables):
    with duckdb.connect(str(file), read_only=True) as con:
        return {t: sorted(con.execute(f"FROM {t}").fetchall(), key=repr) for t in tables}


def everything(var):
    return rows(var / FILE, *FROM_LANDING, *CARRIED)


def kept(var):
    return sorted(file.name for file in var.glob(f"{FILE}.before-*"))


def packed(var):
    """All loaded files in archives."""
    later = datetime.now(UTC) + timedelta(days=1)
    for month in archives.due(var / "landing", later):
        archives.pack(var / "landing", month, later, landing.loads(var / "landing"))
    assert landing.archived(var / "landing") == {}


# ---- more is not replaced by less


def gone(var):
    shutil.rmtree(var / "landing")


def emptied(var):
    gone(var)
    (var / "landing" / "inbox").mkdir(parents=True)


def older(var):
    """The landing as it was backed up before the last load."""
    first, *_ = landing.archived(var / "landing").values()
    *before, last = landing.loads(var / "landing")
    for name in last.files:
        landing.archived(var / "landing")[name].unlink()
    landing.note_loads(var / "landing", before)


def truncated(var):
    file = list(landing.archived(var / "landing").values())[-1]
    file.write_bytes(file.read_bytes()[:-7])


def flipped(var):
    file = list(landing.archived(var / "landing").values())[-1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("harm", [gone, emptied, older, truncated, flipped])
def test_a_landing_with_less_than_the_warehouse_replaces_nothing_unless_asked_to(var, harm):
    before = everything(var)
    files = set(landing.archived(var / "landing"))
    harm(var)
    with pytest.raises(ReplayFailed, match="would have less.*not touched.*--accept-less") as said:
        again(var)
    assert any(name in str(said.value) for name in files), "the first are named"
    assert everything(var) == before and kept(var) == []
    done = again(var, accept_less=True)
    assert done.less.keys() <= files and done.less
    assert [done.kept] == [str(var / name) for name in kept(var)], "and it says where"
    assert rows(var / kept(var)[0], *before) == before
    left = 80 - 20 * len(done.less)
    assert len(everything(var)["raw.exchanges_ledger"]) == left
    assert everything(var)["ops.api_calls"] == before["ops.api_calls"]
    # The landing is in line with it: the next replay needs no argument.
    assert again(var).differences == {}
    damaged = list((var / "landing" / "quarantine").glob("*.reason"))
    assert len(damaged) == (1 if harm in (truncated, flipped) else 0)


def test_lost_lines_of_the_order_are_those_of_the_warehouse(var):
    before, noted = everything(var), landing.loads(var / "landing")
    (var / "landing" / "loads.jsonl").unlink()
    assert again(var).differences == {}
    assert everything(var) == before
    assert [load.files for load in landing.loads(var / "landing")] == [n.files for n in noted]
    assert all(load.digests.keys() == set(load.files) for load in landing.loads(var / "landing"))


# ---- and in archives


def in_archive(var, harm):
    """Do harm to an archive, (file, its first member) → bytes to write; the member's name."""
    member = list(archives.kept(var / "landing").values())[-1]
    data = bytearray(member.archive.read_bytes())
    member.archive.write_bytes(harm(data, member))
    return member.name


def bit(data, member):
    data[member.offset + member.size // 2] ^= 4
    return data


def index_line(data, member):
    data[data.index(member.name[-50:].encode())] ^= 4
    return data


def cut(data, member):
    return data[: member.offset + 7]


def none(data, member):
    return b""


@pytest.mark.parametrize("harm", [bit, index_line, cut, none])
def test_damage_in_an_archive_is_named_by_file_and_replaces_nothing_unless_asked_to(var, harm):
    before = everything(var)
    packed(var)
    name = in_archive(var, harm)
    with pytest.raises(ReplayFailed, match=f"would have less.*{name}.*not touched"):
        again(var)
    assert everything(var) == before and kept(var) == []
    done = again(var, accept_less=True)
    assert list(done.less) == [name] and [done.kept] == [str(var / n) for n in kept(var)]
    assert len(everything(var)["raw.exchanges_ledger"]) == 60
    # The landing is in line with it: the next replay needs no argument.
    assert again(var).differences == {}
    (var / FILE).unlink()
    assert again(var).loaded.files == 3
    assert any((var / "landing" / "quarantine").glob("*.reason"))


def test_the_order_of_loads_is_written_again_where_the_files_are_in_archives(var):
    noted = (var / "landing" / "loads.jsonl").read_bytes()
    packed(var)
    (var / "landing" / "loads.jsonl").unlink()
    with open_warehouse(var / FILE, owner="test") as con:
        load(con, var / "landing", SOURCES)
    assert (var / "landing" / "loads.jsonl").read_bytes() == noted


def test_a_lost_warehouse_beside_archives_alone_is_not_a_new_one(var):
    packed(var)
    (var / FILE).unlink()
    (var / "landing" / "loads.jsonl").unlink()
    with pytest.raises(NotReplayed), open_warehouse(var / FILE, owner="test"):
        pass


# ---- what it is there to cure


def overwritten(var):
    (var / FILE).write_bytes(b"no warehouse")


def cut(var):
    os.truncate(var / FILE, (var / FILE).stat().st_size // 2)


def zeroed(var):
    """The file's blocks are gone, its headers are there."""
    with open(var / FILE, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(3 * 4096)
        file.write(b"\0" * (size - 3 * 4096))


@pytest.mark.parametrize("harm", [overwritten, cut, zeroed])
def test_a_damaged_warehouse_is_cured_and_what_it_alone_knew_is_named(var, harm):
    before = everything(var)
    harm(var)
    damaged = (var / FILE).read_bytes()
    done, now = again(var), everything(var)
    assert all(now[table] == before[table] for table in FROM_LANDING)
    for table in CARRIED:
        assert now[table] == ([] if table in done.not_carried else before[table]), table
    assert done.damage and (done.not_carried or harm is cut)
    assert (var / kept(var)[0]).read_bytes() == damaged


@pytest.mark.slow
def test_of_a_warehouse_with_one_bad_block_the_rest_is_carried(var):
    """Any block: what cannot be read is named, what is carried is as it was, and raw is whole."""
    before, data = everything(var), (var / FILE).read_bytes()
    blocks = range(3 * 4096, len(data), 2**18)
    outcomes = set()
    for block in random.Random(1).sample(list(blocks), min(3, len(blocks))):
        shutil.rmtree(var / "replay", ignore_errors=True)
        for file in var.glob(f"{FILE}*"):
            file.unlink()
        bad = bytearray(data)
        bad[block + 5000] ^= 1
        (var / FILE).write_bytes(bad)
        done, now = again(var), everything(var)
        assert all(now[table] == before[table] for table in FROM_LANDING)
        for table in CARRIED:
            assert now[table] == ([] if table in done.not_carried else before[table]), table
        outcomes.add(bool(done.damage))
    assert True in outcomes


def test_a_damaged_warehouse_beside_an_empty_landing_is_left_alone(var):
    overwritten(var)
    gone(var)
    with pytest.raises(ReplayFailed, match="holds no load.*not touched"):
        again(var)
    assert (var / FILE).read_bytes() == b"no warehouse"


# ---- lost is not empty


@pytest.mark.parametrize("size", [None, 0])
def test_a_lost_warehouse_beside_a_landing_is_not_an_empty_one(var, size):
    before = rows(var / FILE, *FROM_LANDING)
    (var / FILE).unlink() if size is None else (var / FILE).write_bytes(b"")
    for read_only in (False, True):
        with (
            pytest.raises(NotReplayed, match="is lost, not new.*make replay"),
            open_warehouse(var / FILE, owner="plan", read_only=read_only),
        ):
            pass
    assert (var / FILE).exists() == (size == 0), "nothing was made in its place"
    assert again(var).not_carried == (() if size is None else CARRIED)
    assert rows(var / FILE, *FROM_LANDING) == before


def test_an_older_copy_of_the_warehouse_is_to_be_replayed_first(var):
    with open_warehouse(var / FILE, owner="test") as con:
        require_all_loads(con, var / "landing")
        con.execute("DELETE FROM ops.landed_files WHERE sequence = 3")
        with pytest.raises(NotReplayed, match="1 of 3 loads.*older copy.*make replay"):
            require_all_loads(con, var / "landing")


# ---- the log of the old file


def with_log(var):
    """The warehouse as a kill leaves it: a row is in its write-ahead log only."""
    con = duckdb.connect(str(var / FILE))
    con.execute("PRAGMA disable_checkpoint_on_shutdown; SET wal_autocheckpoint = '1GB'")
    con.execute("INSERT INTO ops.budgets VALUES ('coinbase', 'calls', 'day', 7)")
    con.close()
    assert old_warehouse.wal(var / FILE).stat().st_size


class Killed(BaseException):
    pass


@pytest.mark.parametrize("log_is_damaged", [False, True])
def test_killed_at_any_step_it_is_the_old_warehouse_or_the_new_one(
    var, tmp_path, monkeypatch, log_is_damaged
):
    """And never the new one with what the log of the old one says."""
    shutil.copy(var / FILE, tmp_path / "new")
    with duckdb.connect(str(tmp_path / "new")) as con:
        con.execute("INSERT INTO ops.budgets VALUES ('coinbase', 'calls', 'day', 1)")
    with_log(var)
    if log_is_damaged:
        log = old_warehouse.wal(var / FILE)
        log.write_bytes(log.read_bytes()[:-20] + bytes(20))
    states = []
    for step in range(1, 100):
        now = tmp_path / str(step)
        shutil.copytree(var, now)
        (now / "scratch").mkdir()
        old = old_warehouse.examine(now / FILE, now / "scratch")
        assert bool(old.damage) == log_is_damaged
        shutil.copy(tmp_path / "new", now / "draft")
        with monkeypatch.context() as patched:
            left = [step]
            for owner, name in ((os, "link"), (os, "replace"), (durable, "sync")):
                patched.setattr(owner, name, dying(getattr(owner, name), left, step % 2))
            try:
                kept = old_warehouse.replace(now / FILE, now / "draft", keep=log_is_damaged)
                killed = False
            except Killed:
                killed = True
        try:
            budgets = rows(now / FILE, "ops.budgets")["ops.budgets"]
        except duckdb.Error:
            budgets = []  # the damaged one is there still
        states.append([allowed for *_, allowed in budgets])
        if not killed:
            break
    old = [] if log_is_damaged else [7]
    assert states[0] == old and states[-1] == [1] and not killed
    assert [state for state, after in zip(states, states[1:]) if state != after] == [old]
    if log_is_damaged:
        assert old_warehouse.wal(kept).exists() and not old_warehouse.wal(now / FILE).exists()


def dying(call, left, after):
    """A step that is the last when `left` is used up, done or not."""

    def step(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            if after:
                call(*args, **kwargs)
            raise Killed
        return call(*args, **kwargs)

    return step


# ---- what a load leaves out


def test_datasets_that_a_batch_says_nothing_of_are_left_out_and_nothing_is_missing(
    var, monkeypatch
):
    """Each batch here is of ledger entries, and has read no other dataset whole."""
    merged = []
    monkeypatch.setattr(
        loader,
        "merge",
        lambda con, dataset, *a: merged.append(dataset.name) or merge(con, dataset, *a),
    )
    before = everything(var)
    assert again(var).differences == {} and set(merged) == {"exchanges_ledger"}
    every = set(SOURCES["coinbase"].mappings)
    monkeypatch.setattr(loader, "_concerned", lambda *a: every)
    assert again(var).differences == {} and set(merged) == every
    assert everything(var) == before, "merging the others as well changes nothing"
