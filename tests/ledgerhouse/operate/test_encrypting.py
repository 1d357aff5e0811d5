"""Encryption turned on, a key changed, and off again; a missing or wrong key changes nothing."""

import base64
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from extract.fetch import encryption, landing
from extract.fetch.encryption import EncryptionError, Key
from ledgerhouse.load.loader import load
from ledgerhouse.load.replay import FROM_LANDING, replay
from ledgerhouse.operate import encrypting, verification
from ledgerhouse.operate.verification import verify
from ledgerhouse.publish import publish as publishing
from ledgerhouse.publish.books import listed, open_books, read_content
from ledgerhouse.publish.dataframe import frame
from ledgerhouse.publish.publish import publish, publish_news
from ledgerhouse.publish.reencrypt import reencrypt
from ledgerhouse.warehouse import compaction, encrypted
from ledgerhouse.warehouse.connection import open_warehouse
from tests.ledgerhouse.load.test_damage import FILE, MONTHS, SOURCES, land
from tests.ledgerhouse.operate.test_verification import DAYS

TEXTS = [base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
IDS = [Key(bytes([n]) * 32).id for n in (1, 2)]
TABLES = tuple(t for t in publishing.TABLES if not t.name.startswith("curated."))
OPENING = dict.fromkeys(("source", "account", "since", "snapshot", "evidence"), "x") | {
    "amounts": {"BTC": "1234567.875"}
}
LOCKS = (".lock",)


def set_keys(monkeypatch, current="", *old):
    monkeypatch.setenv(encryption.KEY, current)
    monkeypatch.setenv(encryption.OLD_KEYS, " ".join(old))


@pytest.fixture(autouse=True)
def _few_tables(monkeypatch):
    monkeypatch.setattr(publishing, "TABLES", TABLES)


def lived(var):
    """Two loads, a file in the inbox, an opening and books, under what is set."""
    for month in MONTHS[:2]:
        land(var / "landing", month)
        with open_warehouse(var / FILE, owner="test") as con:
            load(con, var / "landing", SOURCES)
        with open_warehouse(var / FILE, owner="test") as con:
            publish(con, var / "published", DAYS)
    landing.note_openings(var / "landing", OPENING)
    land(var / "landing", MONTHS[2])
    return var


@pytest.fixture(scope="module")
def plain_once(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publishing, "TABLES", TABLES)
        set_keys(patched)
        return lived(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def sealed_once(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publishing, "TABLES", TABLES)
        set_keys(patched, TEXTS[0])
        return lived(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def plain(plain_once, tmp_path):
    return Path(shutil.copytree(plain_once, tmp_path / "plain"))


@pytest.fixture
def sealed(sealed_once, tmp_path):
    return Path(shutil.copytree(sealed_once, tmp_path / "sealed"))


def files(var):
    return {
        str(file.relative_to(var)): file.read_bytes()
        for file in sorted(var.rglob("*"))
        if file.is_file() and file.suffix not in LOCKS
    }


def rows(var):
    with open_warehouse(var / FILE, owner="test", read_only=True) as con:
        return {t: sorted(con.execute(f"FROM {t}").fetchall(), key=repr) for t in FROM_LANDING}


def books(var):
    with open_books(var / "published") as con:
        return {t.name: sorted(con.execute(f"FROM {t.name}").fetchall(), key=repr) for t in TABLES}


def key_ids(var):
    """Of every landed file and published file; and whether the two DuckDB files are encrypted."""
    names = [*landing.waiting(var / "landing"), *landing.archived(var / "landing").values()]
    with open_books(var / "published") as con:
        published = {file.key_id or "" for file in listed(con)}
    return (
        {landing._key_id(file) for file in names},
        published,
        encrypted.is_encrypted(var / FILE),
        encrypted.is_encrypted(var / "published" / "books.duckdb"),
    )


def encrypt(var, **options):
    return encrypting.encrypt(var, **{"off": False, "owner": "test"} | options)


def test_turned_on_changed_and_off_again_every_row_and_name_stays(plain, monkeypatch):
    set_keys(monkeypatch)
    before, published, named = rows(plain), books(plain), set(files(plain / "landing"))
    assert key_ids(plain) == ({""}, {""}, False, False)
    set_keys(monkeypatch, TEXTS[0])
    assert rows(plain) == before and books(plain) == published, "read as it is, until it is written"
    kinds = {finding.file for finding in verify(plain, "test").findings}
    assert kinds == {"landing", "published", FILE}, "and verify says so"
    done = encrypt(plain)
    assert (done.landed, done.warehouse, done.damaged) == (3, True, ()) and done.published > 10
    assert key_ids(plain) == ({IDS[0]}, {IDS[0]}, True, True)
    assert rows(plain) == before and books(plain) == published
    assert set(files(plain / "landing")) == named | {encryption.NOTE}
    assert landing.openings(plain / "landing") == [OPENING]
    assert verify(plain, "test").findings == ()
    assert encrypt(plain) == encrypting.Rewritten(0, 0, False, (), ()), "once is enough"

    set_keys(monkeypatch, TEXTS[1], TEXTS[0])
    assert rows(plain) == before and books(plain) == published
    land(plain / "landing", MONTHS[3])
    assert key_ids(plain)[0] == set(IDS), "what is new is under the new key"
    assert encrypt(plain).landed == 3
    set_keys(monkeypatch, TEXTS[1])
    assert key_ids(plain) == ({IDS[1]}, {IDS[1]}, True, True)
    assert rows(plain) == before and books(plain) == published
    assert verify(plain, "test").findings == ()

    set_keys(monkeypatch, "", TEXTS[1])
    assert encrypt(plain, off=True).landed == 4
    set_keys(monkeypatch)
    assert key_ids(plain) == ({""}, {""}, False, False)
    assert rows(plain) == before and books(plain) == published
    assert landing.openings(plain / "landing") == [OPENING]
    assert (
        verify(plain, "test").findings == () and not (plain / "landing" / encryption.NOTE).exists()
    )


def test_a_replay_makes_the_same_warehouse_encrypted_and_so_does_a_compaction(plain, monkeypatch):
    set_keys(monkeypatch)
    with open_warehouse(plain / FILE, owner="test") as con:
        con.execute("INSERT INTO ops.budgets VALUES ('debank', 'units', 'day', 7)")
    before = rows(plain)
    set_keys(monkeypatch, TEXTS[0])
    done = replay(plain / FILE, plain / "landing", SOURCES)
    assert done.differences == {} and done.loads == 2 and encrypted.is_encrypted(plain / FILE)
    assert rows(plain) == before
    with open_warehouse(plain / FILE, owner="test", read_only=True) as con:
        assert con.execute("FROM ops.budgets").fetchall() == [("debank", "units", "day", 7)]

    set_keys(monkeypatch, TEXTS[1], TEXTS[0])
    monkeypatch.setattr(compaction, "_blocks", lambda con: (1, 2**30))  # mostly free
    assert compaction.compact(plain / FILE, owner="test").rewritten
    set_keys(monkeypatch, TEXTS[1])
    assert encrypted.is_encrypted(plain / FILE) and rows(plain) == before


def test_books_follow_the_key_file_by_file_and_keep_what_is_held(plain, monkeypatch):
    set_keys(monkeypatch, TEXTS[0])
    published = books(plain)
    with open_warehouse(plain / FILE, owner="test") as con:
        assert publish_news(con, plain / "published") is not None
        with open_books(plain / "published") as mixed:
            assert {file.key_id for file in listed(mixed)} == {None, IDS[0]}
        assert books(plain).keys() == published.keys()
        assert books(plain)["raw.exchanges_ledger"] == published["raw.exchanges_ledger"]
        con.execute("DELETE FROM raw.exchanges_ledger")
        publish(con, plain / "published", {}, held=[("coinbase", "main")])
    assert {file.key_id for file in read_content(plain / "published").files} == {IDS[0]}
    assert books(plain)["raw.exchanges_ledger"] == published["raw.exchanges_ledger"]
    assert len(frame("raw.exchanges_ledger", root=plain / "published")) == 20


def test_books_written_again_are_those_of_a_publish_for_the_next_one(sealed, monkeypatch):
    set_keys(monkeypatch, TEXTS[1], TEXTS[0])
    assert reencrypt(sealed / "published") > 10
    with open_warehouse(sealed / FILE, owner="test") as con:
        done = publish(con, sealed / "published", {})
    written = {file.table_name for file in done.files if file.start}
    assert written == set(), "no month is written that has not changed"


def uses(var):
    """Everything that opens what is kept: each must say what is missing."""
    return {
        "fetch": lambda: land(var / "landing", MONTHS[3]),
        "openings": lambda: landing.note_openings(var / "landing", OPENING),
        "read openings": lambda: landing.openings(var / "landing"),
        "warehouse": lambda: rows(var),
        "replay": lambda: replay(var / FILE, var / "landing", SOURCES),
        "replay of less": lambda: replay(var / FILE, var / "landing", SOURCES, accept_less=True),
        "frame": lambda: frame("raw.exchanges_ledger", root=var / "published"),
        "publish": lambda: publish(duckdb.connect(), var / "published", {}),
        "verify": lambda: verify(var, "test"),
        "encrypt": lambda: encrypt(var),
        "off": lambda: encrypt(var, off=True),
        "compact": lambda: compaction.compact(var / FILE, owner="test"),
    }


@pytest.mark.parametrize("key, words", [("", "no key is set"), (TEXTS[1], "the key that is set")])
def test_a_missing_or_wrong_key_is_said_and_changes_nothing(sealed, monkeypatch, key, words):
    monkeypatch.setattr(publishing, "_definitions", lambda con: {})
    set_keys(monkeypatch, key)
    before, said = files(sealed), {}
    for name, use in uses(sealed).items():
        with pytest.raises(EncryptionError) as error:
            use()
        said[name] = str(error.value)
        assert files(sealed) == before, name
        assert not any(text in said[name] for text in TEXTS), name
    # Turning it off with a key set is refused for that; encrypting without one likewise.
    texts = {name: text for name, text in said.items() if name not in ("encrypt", "off")}
    assert all(words in text and "Nothing was changed" in text for text in texts.values()), texts


def test_a_lost_warehouse_beside_an_encrypted_landing_is_not_begun_without_the_key(
    sealed, monkeypatch
):
    (sealed / FILE).unlink()
    for key in ("", TEXTS[1]):
        set_keys(monkeypatch, key)
        with pytest.raises(EncryptionError, match="is encrypted"):
            replay(sealed / FILE, sealed / "landing", SOURCES)
        assert not (sealed / FILE).exists()
    # Nor where the files are gone, and only the note says that they were encrypted.
    shutil.rmtree(sealed / "landing" / "coinbase")
    (sealed / "landing" / "loads.jsonl").unlink()
    set_keys(monkeypatch)
    with (
        pytest.raises(EncryptionError, match="encrypt --off"),
        open_warehouse(sealed / FILE, owner="test"),
    ):
        pass
    assert not (sealed / FILE).exists()


def test_damage_of_an_encrypted_file_is_contained_like_any_other(sealed, monkeypatch):
    set_keys(monkeypatch, TEXTS[0])
    (file,) = landing.waiting(sealed / "landing")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    land(sealed / "landing", MONTHS[3])
    with open_warehouse(sealed / FILE, owner="test") as con:
        assert load(con, sealed / "landing", SOURCES).files == 1
    (reason,) = (sealed / "landing" / "quarantine").glob("*.reason")
    assert "cannot be decrypted with the key it names" in reason.read_text()


@pytest.mark.slow
def test_every_flipped_bit_of_what_is_encrypted_is_named(sealed, monkeypatch):
    set_keys(monkeypatch, TEXTS[0])
    rng = random.Random(7)
    content = read_content(sealed / "published")
    kept = {
        "_landing": sorted((sealed / "landing").rglob("*.jsonl*")),
        "_books": [
            sealed / "published" / name
            for name in ("books.duckdb", *(f.path for f in content.files))
        ],
        "_bookkeeping": [sealed / "landing" / encryption.NOTE],
    }
    silent = []
    for _ in range(200):
        look = rng.choice(list(kept))
        file = rng.choice(kept[look])
        data = file.read_bytes()
        place, bit = rng.randrange(len(data)), rng.randrange(8)
        file.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        named = {f.file for f in getattr(verification, look)(sealed) if f}
        if str(file.relative_to(sealed)) not in named:
            silent.append((file.name, place, bit))
        file.write_bytes(data)
    assert silent == [] and verify(sealed, "test").findings == ()


def test_the_command_says_what_it_wrote_and_ends_in_words_without_a_key(plain, monkeypatch, capsys):
    from airflow.cli.cli_parser import get_parser

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(plain))
    set_keys(monkeypatch)
    args = get_parser().parse_args(["warehouse", "encrypt"])
    with pytest.raises(SystemExit) as ended:
        args.func(args)
    assert ended.value.code == 1 and "no key is set" in capsys.readouterr().err
    set_keys(monkeypatch, TEXTS[0])
    args.func(args)
    said = capsys.readouterr()
    assert "3 landed and" in said.out and "and the warehouse" in said.out
    assert TEXTS[0] not in said.out + said.err and key_ids(plain)[2:] == (True, True)


def test_a_process_without_a_key_opens_plain_files_as_before(plain, monkeypatch):
    set_keys(monkeypatch)
    assert encrypted.settings() == {}
    with encrypted.connect(plain / FILE, read_only=True) as con:
        ((path, forced),) = con.execute(
            "SELECT path, current_setting('force_mbedtls_unsafe') FROM duckdb_databases() "
            "WHERE database_name = current_database()"
        ).fetchall()
    assert path == os.fspath(plain / FILE) and not forced


def test_the_shell_opens_encrypted_books_and_its_arguments_hold_no_key(sealed, monkeypatch):
    from ledgerhouse.operate.commands import shell

    set_keys(monkeypatch, TEXTS[1], TEXTS[0])
    statements, secrets = shell.opening(sealed / "published")
    command = [Path(sys.executable).with_name("duckdb"), "-json"]
    for statement in statements:
        command += ["-cmd", statement]
    command += ["-c", "SELECT count(*) AS rows FROM raw.exchanges_ledger"]
    assert not any(secret in str(part) for secret in secrets.values() for part in command)
    done = subprocess.run(command, env=secrets, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == '[{"rows":20}]', done.stderr
    set_keys(monkeypatch)
    with pytest.raises(EncryptionError, match="no key is set"):
        shell.opening(sealed / "published")


def test_the_page_says_that_the_key_is_missing(sealed, monkeypatch):
    from fastapi import HTTPException

    from ledgerhouse.operate.ui import app

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(sealed))
    set_keys(monkeypatch, TEXTS[0])
    for con in app.books():
        assert con.execute("SELECT count(*) FROM raw.exchanges_ledger").fetchone() == (20,)
    set_keys(monkeypatch)
    with pytest.raises(HTTPException) as error:
        next(app.books())
    assert error.value.status_code == 503 and "no key is set" in error.value.detail
