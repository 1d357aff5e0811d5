"""Whatever is damaged of what is kept is named, with what restores it; nothing else is."""

import os
import random
import shutil
from datetime import date

import duckdb
import pytest

from extract.fetch import archives, landing
from extract.fetch.call_log import call_log
from ledgerhouse.check import data_docs
from ledgerhouse.load.call_log import load_calls
from ledgerhouse.load.loader import load
from ledgerhouse.load.unit_balances import note
from ledgerhouse.operate import verification
from ledgerhouse.operate.run_log.attempts import KEY, attempt
from ledgerhouse.operate.verification import verify
from ledgerhouse.publish import publish as publishing
from ledgerhouse.publish.publish import publish
from ledgerhouse.warehouse.connection import open_warehouse
from stack.settings import Settings
from tests.ledgerhouse.load.test_damage import FILE, MONTHS, SOURCES, land, packed

FLIPS = 400  # 12,000 were named too, in minutes
DAYS = [date(2025, 1, 1)]


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A var folder with two loads, a file in the inbox, books and every kind of bookkeeping."""
    var = tmp_path_factory.mktemp("lived")
    calls = {"called_at": "2026-01-31T06:00:00+00:00", "source": "coinbase", "account": "main",
             "endpoint": "/v2", "status": 200, "duration_ms": 1, "units": 1}  # fmt: skip
    tables = tuple(t for t in publishing.TABLES if not t.name.startswith("curated."))
    with open_warehouse(var / FILE, owner="test") as con, pytest.MonkeyPatch.context() as patched:
        patched.setattr(publishing, "TABLES", tables)
        for month in MONTHS[:2]:
            land(var / "landing", month)
            with call_log(var / "calls", {}) as record:
                record({"call_id": f"c{month.start}", **calls})
            load(con, var / "landing", SOURCES)
            load_calls(con, var / "calls")
            publish(con, var / "published", DAYS)
    land(var / "landing", MONTHS[2])
    landing.note_openings(
        var / "landing",
        dict.fromkeys(("source", "account", "since", "snapshot", "evidence"), "x")
        | {"amounts": {"BTC": "1"}, "pending": []},
    )
    with call_log(var / "calls", {}) as record:
        record({"call_id": "waiting", **calls})
    with attempt(var / "attempts", dict(zip(KEY, ("sync", "R", "load", -1, 1)))):
        pass
    note(
        var / "account_units",
        source="debank",
        connection="debank",
        run_id="R",
        moment="before",
        balance=7,
        accounts=["0x1"],
    )
    data_docs.write(var / "data_docs", "R", MONTHS[0], [], keep=5)
    Settings(var, {}).secret("admin")
    return var


@pytest.fixture
def var(lived, tmp_path):
    """A copy; its books read their own files."""
    shutil.copytree(lived, tmp_path / "var")
    return tmp_path / "var"


def test_what_is_whole_is_called_whole(var):
    done = verify(var, "test")
    assert done.findings == ()
    assert done.counts["landed files"] == 3 and done.counts["bookkeeping files"] == 8
    assert done.counts["published files"] > 10 and done.counts["tables of the warehouse"] > 20


def test_damage_in_an_archive_is_named_by_its_file(var):
    packed(var)
    assert found(var) == {}
    member = list(archives.kept(var / "landing").values())[1]
    where = f"landing/coinbase/{member.archive.name}"
    whole = member.archive.read_bytes()
    for place, names in (
        (member.offset, [f"{where}: {member.name}"]),
        (600, [where, f"landing/…/{member.name}"]),  # its line of the index
        (len(whole) - 1, [where]),  # behind all files
    ):
        data = bytearray(whole)
        data[place] ^= 1
        member.archive.write_bytes(data)
        assert list(found(var)) == names
    member.archive.write_bytes(whole)
    assert found(var) == {}


@pytest.mark.slow
@pytest.mark.parametrize("landed", ["files", "archives"])
def test_every_flipped_bit_of_landing_books_and_bookkeeping_is_named(var, landed):
    rng = random.Random(12)
    if landed == "archives":
        packed(var)
    kept = {
        "_landing": sorted(
            [*(var / "landing").rglob("*.jsonl*"), *(var / "landing").rglob("*.tar")]
        ),
        "_books": [var / "published" / name for name in ("books.duckdb", "books.duckdb.sha256")]
        + [var / "published" / path for path in live(var)],
        "_bookkeeping": sorted(
            f
            for place in ("attempts", "account_units", "calls")
            for f in (var / place).rglob("*.json*")
        )
        + [*var.glob("data_docs/runs/*/run.json"), var / "secrets.json"],
    }
    silent = []
    for _ in range(FLIPS):
        look = rng.choice(list(kept))
        file = rng.choice(kept[look])
        data = file.read_bytes()
        place, bit = rng.randrange(len(data)), rng.randrange(8)
        file.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        named = {f.file.partition(": ")[0] for f in getattr(verification, look)(var) if f}
        if str(file.relative_to(var)) not in named and not (
            file.suffix == ".sha256" and "published/books.duckdb" in named
        ):
            silent.append((file.name, place, bit, data[max(place - 20, 0) : place + 5]))
        file.write_bytes(data)
    assert silent == []
    assert verify(var, "test").findings == (), "and back again all is whole"


def live(var):
    with duckdb.connect(str(var / "published" / "books.duckdb"), read_only=True) as con:
        return [path for (path,) in con.execute("SELECT path FROM published_files").fetchall()]


def found(var):
    return {finding.file: finding for finding in verify(var, "test").findings}


def test_each_kind_of_damage_is_named_with_its_cure(var):
    archived = list(landing.archived(var / "landing").values())
    archived[0].unlink()
    archived[1].write_bytes(b"")
    (waiting,) = landing.waiting(var / "landing")
    os.truncate(waiting, 50)
    published = [var / "published" / path for path in live(var)[:2]]
    published[0].unlink()
    os.truncate(published[1], 10)
    (var / "secrets.json").write_text("")
    (attempt_file, *_) = (var / "attempts").glob("*.json")
    attempt_file.write_bytes(b"")
    (var / "budget.sqlite").write_bytes(b"none" * 1000)
    damage = found(var)
    for file, cure in (
        (archived[1], "--accept-less"),
        (waiting, "next load"),
        (published[0], "make replay"),
        (published[1], "make replay"),
        (var / "secrets.json", "backup"),
        (attempt_file, "put aside"),
        (var / "budget.sqlite", "call logs"),
    ):
        assert cure in damage.pop(str(file.relative_to(var))).cure
    assert list(damage) == [f"landing/…/{archived[0].name}"]


@pytest.mark.parametrize("harm", ["gone", "overwritten", "a block", "rows", "older"])
def test_a_damaged_warehouse_is_named(var, harm):
    file = var / FILE
    if harm == "gone":
        file.unlink()
    elif harm == "overwritten":
        file.write_bytes(b"no warehouse")
    elif harm == "a block":
        with open(file, "r+b") as raw:
            size = raw.seek(0, os.SEEK_END)
            raw.seek(3 * 4096)
            raw.write(bytes(size - 3 * 4096))
    else:
        table = "raw.exchanges_ledger" if harm == "rows" else "ops.landed_files"
        with duckdb.connect(str(file)) as con:
            con.execute(f"DELETE FROM {table} WHERE rowid = 0")
    damage = found(var)
    assert damage and all(name.startswith(FILE) for name in damage)
    assert all("make replay" in finding.cure for finding in damage.values())


def test_what_is_in_quarantine_is_named_until_it_is_removed(var):
    (waiting,) = landing.waiting(var / "landing")
    waiting.write_bytes(b"")
    with open_warehouse(var / FILE, owner="test") as con:
        load(con, var / "landing", SOURCES)
    assert list(found(var)) == [f"landing/quarantine/{waiting.name}"]
    shutil.rmtree(var / "landing" / "quarantine")
    assert found(var) == {}


def test_an_empty_var_folder_is_whole(tmp_path):
    assert verify(tmp_path, "test").findings == ()
    assert list(tmp_path.iterdir()) == []


def test_books_of_a_version_without_digests_are_read_and_gone_on_with(var, monkeypatch):
    books, path = var / "published" / "books.duckdb", live(var)[0]
    with duckdb.connect(str(books)) as con:
        files = con.execute(
            "SELECT * EXCLUDE (sha256, key_id, month) FROM published_files"
        ).fetchall()
        con.execute("DROP TABLE published_files")
        con.execute(
            'CREATE TABLE published_files (table_name VARCHAR, "start" DATE, "end" DATE, '
            "path VARCHAR, rows BIGINT, bytes BIGINT, generation BIGINT, made_from VARCHAR)"
        )
        con.executemany("INSERT INTO published_files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", files)
    (var / "published" / "books.duckdb.sha256").unlink()
    assert found(var) == {}
    whole = (var / "published" / path).read_bytes()
    (var / "published" / path).write_bytes(whole[:-20] + bytes(20))
    assert list(found(var)) == [f"published/{path}"]
    (var / "published" / path).write_bytes(whole)
    tables = tuple(t for t in publishing.TABLES if not t.name.startswith("curated."))
    monkeypatch.setattr(publishing, "TABLES", tables)
    with open_warehouse(var / FILE, owner="test") as con:
        done = publish(con, var / "published", [])
    assert len(done.files) < len(files), "what has not changed is not written again"
    assert found(var) == {}
