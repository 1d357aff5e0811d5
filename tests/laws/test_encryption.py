"""The law of encryption: with a key, books are the same books, and no byte of a record is on disk.

Two lives of the same worlds, from the vendors' answers to the published books, one with a key.
"""

import base64
import logging
import os
import re
import shutil
from pathlib import Path

import pytest

from extract.core.interval import utc
from extract.fetch import encryption, landing
from extract.fetch.encryption import Key
from extract.sources import all_sources
from ledgerhouse.load.replay import replay
from ledgerhouse.operate.verification import verify
from ledgerhouse.publish.books import open_books
from ledgerhouse.publish.dataframe import frame
from ledgerhouse.publish.gate import check_and_publish
from ledgerhouse.transform import sqlmesh_context
from ledgerhouse.transform.rebuild import rebuild
from ledgerhouse.transform.touched_days import transform
from ledgerhouse.warehouse import encrypted
from ledgerhouse.warehouse.connection import connected, open_warehouse, wal
from tests.cases import vendors
from tests.cases.pipeline import Pipeline, environment
from tests.cases.worlds import WALLET, Healthy

SECRET = bytes(range(32))
TEXT = base64.b64encode(SECRET).decode()
FILE = "warehouse.duckdb"
NOW = utc("2026-02-09T12:00:00Z")
# Of the tables that are the same whenever they are read: the times and names of runs are not.
TABLES = ("raw.onchain_transactions", "raw.onchain_transfers", "raw.balances", "raw.onchain_tokens",
          "curated.tx_unified", "curated.daily_flows", "curated.daily_balances", "curated.assets",
          "curated.reconciliation")  # fmt: skip
OF_RUNS = re.compile(r"(seen_at|changed_at|read_at|batch_id|run_id|recorded_at|updated_at)$")


def live(var: Path) -> None:
    """A sync of a wallet: fetch, load, transform, check and publish."""
    with environment(var), vendors.serve() as served:
        pipeline = Pipeline(var, served)
        served.worlds["healthy"] = Healthy().world(NOW)
        pipeline.add("debank", WALLET, "healthy")
        pipeline.run(NOW)
        assert pipeline.failures == {}


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """The folder of each life, and all that the one with a key has logged, at every level."""
    plain, sealed = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("sealed")
    log = tmp_path_factory.mktemp("log") / "all.log"
    handler, root = logging.FileHandler(log), logging.getLogger()
    level = root.level
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv(encryption.KEY, raising=False)
        live(plain)
        patched.setenv(encryption.KEY, TEXT)
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            live(sealed)
        finally:
            root.setLevel(level)
            root.removeHandler(handler)
            handler.close()
    return plain, sealed, log


@pytest.fixture
def sealed(lives, monkeypatch, tmp_path):
    """A copy of the life with a key, and the key set."""
    monkeypatch.setenv(encryption.KEY, TEXT)
    var = Path(shutil.copytree(lives[1], tmp_path / "var"))
    with environment(var):
        yield var


def books(var):
    found = {}
    with open_books(var / "published") as con:
        for table in TABLES:
            columns = [name for name, *_ in con.execute(f"DESCRIBE {table}").fetchall()]
            names = ", ".join(f'"{name}"' for name in columns if not OF_RUNS.search(name))
            found[table] = sorted(con.execute(f"SELECT {names} FROM {table}").fetchall(), key=repr)
    return found


def records(var):
    """Texts of records by which somebody would look for them: ids, the wallet, times, amounts."""
    with open_books(var / "published") as con:
        texts = con.execute(
            "SELECT tx_id FROM raw.onchain_transactions UNION SELECT counterparty FROM "
            "raw.onchain_transfers UNION SELECT payload[1:40] FROM raw.onchain_transactions "
            "UNION SELECT column_name FROM duckdb_columns() WHERE table_name = 'onchain_transfers'"
        ).fetchall()
    return {text.encode() for (text,) in texts if text and len(text) > 8} | {WALLET.encode()}


def kept(var):
    """Every file that a key is to encrypt. Names of landed files, and loads.jsonl, name accounts."""
    return [
        file
        for place in ("landing", "published", f"{FILE}*", "rebuild", "replay", "compact")
        for found in var.glob(place)
        for file in ([found] if found.is_file() else found.rglob("*"))
        if file.is_file() and file.suffix != ".lock" and file.name != landing.LOADS
    ]


def with_texts(files, texts):
    return {file.name for file in files for text in texts if text in file.read_bytes()}


@pytest.mark.slow
def test_the_books_are_the_same_books(lives, sealed):
    plain = lives[0]
    expected = books(plain)
    assert books(sealed) == expected and all(expected[table] for table in TABLES)
    assert len(frame("curated.daily_balances")) == len(expected["curated.daily_balances"])
    with open_books() as con:
        assert con.execute("FROM ops.last_attempts").fetchall() == []
        assert con.execute("SELECT count(*) > 0 FROM ops.reached").fetchone() == (True,)
    assert verify(sealed, "test").findings == ()

    done = replay(sealed / FILE, sealed / "landing", all_sources())
    assert done.differences == {} and done.loads == 1
    built = transform(owner="test")
    check_and_publish(built, run_id="again", owner="test")
    assert books(sealed) == expected and verify(sealed, "test").findings == ()
    assert rebuild(sealed, batches=built.batches).differences == ()


@pytest.mark.slow
def test_no_text_of_a_record_is_in_any_file(lives, sealed):
    plain = lives[0]
    texts = records(plain)
    assert len(texts) > 10
    assert {FILE, "books.duckdb"} <= with_texts(kept(plain), texts), "they would be found"
    files = kept(sealed)
    assert {"books.duckdb", FILE} <= {file.name for file in files} and len(files) > 30
    assert with_texts(files, texts) == set()
    for file in files:
        head = file.read_bytes()[:8]
        assert not head.startswith((b"\x28\xb5\x2f\xfd", b"PAR1")), f"{file}: zstd, or Parquet"


@pytest.mark.slow
def test_the_key_is_in_no_file_no_log_and_no_command_line(lives, sealed):
    _, var, log = lives
    assert sqlmesh_context.sqlmesh(["fetchdf", "SELECT count(*) FROM raw.balances"]) == 0
    keys = [SECRET, TEXT.encode(), SECRET.hex().encode(), Key(SECRET).derive("x")]
    keys[3:] = [form for purpose in (encryption.DUCKDB, encryption.PARQUET, encryption.LANDING)
                for form in (Key(SECRET).derive(purpose), Key(SECRET).text(purpose).encode(),
                             Key(SECRET).derive(purpose).hex().encode())]  # fmt: skip
    files = [log, *var.rglob("*"), *sealed.rglob("*"), Path("/proc/self/cmdline")]
    files = [file for file in files if file.is_file()]
    assert with_texts(files, keys) == set()
    assert b"Executing SQL" in log.read_bytes(), "statements were logged"
    assert any(f.parent.name == "logs" for f in files), "sqlmesh's own too"


def test_neither_the_log_of_writes_nor_what_is_spilled_has_a_record(monkeypatch, tmp_path):
    mark, found = b"0xfeedfacefeedface", {}
    for key in (TEXT, ""):
        monkeypatch.setenv(encryption.KEY, key)
        path = tmp_path / f"var{len(key)}" / FILE
        path.parent.mkdir()
        with open_warehouse(path, owner="test") as con:
            con.execute("SET threads = 1; CREATE TABLE ops.t AS SELECT ? AS text", [mark.decode()])
            written = wal(path).read_bytes()
            con.execute("SET memory_limit = '60MB'")
            con.execute(
                "CREATE TEMP TABLE spilled AS SELECT ? || md5(i::VARCHAR) AS text "
                "FROM range(2000000) r(i)",
                [mark.decode()],
            )
            spilled = b"".join(f.read_bytes() for f in path.with_name(FILE + ".tmp").iterdir())
        assert len(written) > 40 and len(spilled) > 10**6
        found[key] = mark in written, mark in spilled, mark in path.read_bytes()
    assert found == {TEXT: (False, False, False), "": (True, True, True)}


def test_errors_of_duckdb_do_not_quote_the_key(monkeypatch, tmp_path):
    monkeypatch.setenv(encryption.KEY, TEXT)
    with connected(tmp_path / FILE):
        pass
    said = []
    (tmp_path / FILE).chmod(0o400)
    data = bytearray((tmp_path / FILE).read_bytes())
    data[5000] ^= 1
    os.chmod(tmp_path / FILE, 0o600)
    (tmp_path / FILE).write_bytes(data)
    for path in (tmp_path / FILE, tmp_path, tmp_path / "none" / "x.duckdb"):
        with pytest.raises(Exception) as error:
            encrypted.connect(path)
        said.append(str(error.value))
    assert not any(
        text in words for words in said for text in (TEXT, Key(SECRET).text(encryption.DUCKDB))
    )


def test_the_settings_of_sqlmesh_derive_the_same_key(monkeypatch, tmp_path):
    from sqlmesh_project import config

    other = base64.urlsafe_b64encode(b"\xfb" * 32).decode()
    monkeypatch.setenv(encryption.KEY, other)
    monkeypatch.setenv(encryption.OLD_KEYS, TEXT)
    assert config.KEYS == (encryption.KEY, encryption.OLD_KEYS)
    assert config.keys() == [key.text(encryption.DUCKDB) for key in encryption.known().values()]
    with connected(tmp_path / FILE):
        pass
    assert config.is_encrypted(str(tmp_path / FILE))
    monkeypatch.setenv(encryption.KEY, TEXT)
    with pytest.raises(RuntimeError, match="is encrypted: put its key into"):
        config.connect_encrypted(str(tmp_path / FILE))
    monkeypatch.setenv(encryption.OLD_KEYS, other)
    config.connect_encrypted(str(tmp_path / FILE)).close()
