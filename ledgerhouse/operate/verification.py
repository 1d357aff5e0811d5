"""Verification of all that a var folder keeps: each damaged file, and what restores it.

    verify(var) -> Verified

Landed files, published files and the books are compared with the digests that were noted when they
were written, bookkeeping with its own sums; every block of the warehouse is read. What older
versions wrote has no digest: then it is only read. Nothing is changed or moved. Where it is
encrypted and the key is missing or another one, EncryptionError says so: that is no damage.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from extract.core import durable, sealed
from extract.core.quarantine import quarantined
from extract.fetch import archives, encryption, landing
from extract.fetch.call_log import calls
from extract.fetch.encryption import EncryptionError
from ledgerhouse.load.old_warehouse import unreadable
from ledgerhouse.load.quarantined import PLACES
from ledgerhouse.plan.budget import LEDGER
from ledgerhouse.publish.books import BOOKS, DIGEST, listed, open_books, quoted
from ledgerhouse.warehouse import encrypted
from ledgerhouse.warehouse.connection import connected, hold

WAREHOUSE = "warehouse.duckdb"
LINE = re.compile(rf"([0-9a-f]{{64}})  {re.escape(BOOKS)}\n")
TABLES = (
    'SELECT format(\'"{}"."{}"\', schema_name, table_name) FROM duckdb_tables() '
    "WHERE database_name = current_database() AND NOT temporary ORDER BY 1"
)
# A row is there once it was new, until its transaction has lost it.
COUNTS = """
    SELECT dataset, sum(new - removed)::BIGINT FROM ops.batches GROUP BY 1 ORDER BY 1
"""

REPLAY = "make replay makes the warehouse again from the landing, without a call"
RESTORE = (
    "restore it from a backup of the landing; where there is none, make replay ARGS=--accept-less "
    "goes on without it, and the next sync fetches again what it covers"
)
ARCHIVE = (
    "files of it that are missing or damaged are named by themselves; the others are whole, and "
    "replay reads them: restore it from a backup of the landing to have it as it was"
)
INBOX = "the next load puts it aside, and what it covers is fetched again"
NOTES = "the next load writes it again from the warehouse"
OPENINGS = (
    "restore it from a backup of the landing; else the openings that it fixed are inferred again"
)
REPUBLISH = "remove it, then make replay: it publishes every file again"
NEXT_PUBLISH = (
    "the next publish that compares it writes its rows again; at once: remove it, then make replay"
)
ASIDE = "it is put aside by the task that reads it next, which goes on without it"
SECRETS = "restore it from a backup before the next start, which makes new secrets otherwise"
RECOUNT = "the next plan or fetch puts it aside, and counts again from the call logs"
ENCRYPT = "a key is set: airflow warehouse encrypt writes them again under it"
NOTED = "restore it from a backup of the landing; else remove it, with the right key set"
LOOKED_AT = "it was put aside: look at the disk, then remove it there"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: where (within the var folder), what, and what restores it."""

    file: str
    what: str
    cure: str


@dataclass(frozen=True)
class Verified:
    """What was looked at, by kind, and what is wrong."""

    counts: dict[str, int]
    findings: tuple[Finding, ...]


def verify(var: Path, owner: str, tell: Callable[[str], None] = lambda words: None) -> Verified:
    """Look at everything in `var`; holds the warehouse while that is read."""
    counts: dict[str, int] = {}
    findings: list[Finding] = []
    for kind, look in (
        ("landed files", _landing),
        ("published files", _books),
        ("tables of the warehouse", lambda var: _warehouse(var, owner)),
        ("bookkeeping files", _bookkeeping),
        ("files in quarantine", _quarantines),
    ):
        tell(f"read the {kind}")
        for found in look(Path(var)):
            counts[kind] = counts.get(kind, 0) + (found is None)
            if found:
                findings.append(found)
    return Verified(counts, tuple(findings))


# Each of these yields None for what it has looked at, and a finding for what is wrong.
Looked = Iterator[Finding | None]


def _landing(var: Path) -> Looked:
    root = var / "landing"
    loads, kept = landing.loads(root), archives.kept(root)
    digests = {name: digest for load in loads for name, digest in load.digests.items()}
    waiting = {file.name: file for file in landing.waiting(root)}
    named = set[Path]()  # archives of which a file is damaged
    for files, cure in ((kept, RESTORE), (waiting, INBOX)):
        for name, file in files.items():
            yield None
            try:
                archives.inspect(_where(root, file), digests.get(name))
            except sealed.Damaged as error:
                yield Finding(_place(var, file), str(error), cure)
                named |= {file.archive} if isinstance(file, archives.Member) else set()
    for archive, what in archives.damage(root):
        if archive not in named and archive.exists():
            yield None
            yield Finding(_within(var, archive), what, ARCHIVE)
    noted = {name for load in loads for name in load.files}
    for name in sorted(noted - kept.keys() - waiting.keys()):
        yield Finding(f"landing/…/{name}", "it was loaded, and is missing", RESTORE)
    for name in sorted(kept.keys() - noted):
        what = f"{landing.LOADS} does not say when it was loaded"
        yield Finding(_place(var, kept[name]), what, NOTES)
    if encryption.current():
        plain = [file for file in (*kept.values(), *waiting.values()) if _is_plain(file)]
        if plain:
            what = f"{len(plain)} of the files here are not encrypted, {plain[0].name} for one"
            yield Finding("landing", what, ENCRYPT)
    for file, what in landing.damaged_notes(root):
        yield Finding(
            _within(var, file), what, OPENINGS if file.name == landing.OPENINGS else NOTES
        )


def _where(root: Path, file: archives.Kept) -> archives.Kept:
    """Where a file is now: it may have been packed since the landing was listed."""
    there = file if isinstance(file, Path) else file.archive
    return file if there.exists() else archives.kept(root).get(file.name, file)


def _place(var: Path, file: archives.Kept) -> str:
    """A file within the var folder, one of an archive by both names."""
    if isinstance(file, Path):
        return _within(var, file)
    return f"{_within(var, file.archive)}: {file.name}"


def _is_plain(file: archives.Kept) -> bool:
    try:
        return not archives.is_encrypted(file)
    except OSError:
        return False


def _books(var: Path) -> Looked:
    import duckdb

    root = var / "published"
    books, noted = root / BOOKS, root / DIGEST
    if not books.exists():
        return
    yield None
    if noted.exists():
        lines = noted.read_bytes().decode(errors="replace").splitlines(keepends=True)
        matches = [LINE.fullmatch(line) for line in lines]
        if not lines or not all(matches):
            yield Finding(_within(var, noted), "it is not as it was written", REPUBLISH)
        elif durable.digest(books) not in {match[1] for match in matches if match}:
            yield Finding(_within(var, books), f"its SHA-256 is not the one in {DIGEST}", REPUBLISH)
    try:
        with open_books(root) as con:
            files = listed(con)
    except (duckdb.Error, TypeError, ValueError) as error:
        yield Finding(_within(var, books), f"it cannot be read: {_line(error)}", REPUBLISH)
        return
    if encryption.current() and not all(
        (encrypted.is_encrypted(books), *(file.key_id for file in files))
    ):
        yield Finding("published", "not all of the files here are encrypted", ENCRYPT)
    for file in files:
        yield None
        path = root / file.path
        if not path.exists():
            yield Finding(_within(var, path), "it is missing", REPUBLISH)
        elif path.stat().st_size != file.bytes:
            what = f"it has {path.stat().st_size:,} bytes instead of {file.bytes:,}"
            yield Finding(_within(var, path), what, REPUBLISH)
        elif file.sha256:
            if durable.digest(path) != file.sha256:
                yield Finding(_within(var, path), "its SHA-256 is another one", NEXT_PUBLISH)
        else:
            try:
                with duckdb.connect(config=encrypted.settings()) as con:
                    encrypted.add_parquet_keys(encrypted.prepared(con))
                    there = encrypted.scan(quoted(path), file.key_id or "")
                    ((rows, _),) = con.execute(
                        f"SELECT count(*), bit_xor(hash(t)) FROM {there} t"
                    ).fetchall()
                if rows != file.rows:
                    raise ValueError(f"it has {rows:,} rows instead of {file.rows:,}")
            except (duckdb.Error, ValueError) as error:
                yield Finding(_within(var, path), _line(error), REPUBLISH)


def _warehouse(var: Path, owner: str) -> Looked:
    import duckdb

    path, loads = var / WAREHOUSE, landing.loads(var / "landing")
    if not path.exists():
        if loads:
            yield Finding(WAREHOUSE, "it is missing, and the landing is not empty", REPLAY)
        return
    if encryption.current() and not encrypted.is_encrypted(path):
        yield Finding(WAREHOUSE, "it is not encrypted", ENCRYPT)
    with hold(path, owner):
        try:
            with connected(path, read_only=True) as con:
                tables = [name for (name,) in con.execute(TABLES).fetchall()]
        except EncryptionError:  # that is no damage
            raise
        except (duckdb.Error, RuntimeError) as error:
            yield Finding(WAREHOUSE, f"it cannot be opened: {_line(error)}", REPLAY)
            return
        yield from (None for _ in tables)
        wrong = unreadable(path, tables)
        for table, words in wrong.items():
            yield Finding(f"{WAREHOUSE}: {table}", f"it cannot be read: {words}", REPLAY)
        if wrong:
            return
        with connected(path, read_only=True) as con:
            for dataset, expected in con.execute(COUNTS).fetchall():
                ((rows,),) = con.execute(f"SELECT count(*) FROM raw.{dataset}").fetchall()
                if rows != expected:
                    what = f"it has {rows:,} rows, and its loads brought {expected:,}"
                    yield Finding(f"{WAREHOUSE}: raw.{dataset}", what, REPLAY)
            known = {
                name for (name,) in con.execute("SELECT file FROM ops.landed_files").fetchall()
            }
    lacking = {name for load in loads for name in load.files} - known
    if lacking:
        what = f"it lacks {len(lacking)} landed files that were loaded, {min(lacking)} for one"
        yield Finding(WAREHOUSE, what, REPLAY)


def _bookkeeping(var: Path) -> Looked:
    records = [
        (NOTED, [var / "landing" / encryption.NOTE]),
        (ASIDE, sorted((var / "attempts").glob("*.json"))),
        (ASIDE, sorted((var / "account_units").glob("*.json"))),
        (ASIDE, sorted((var / "data_docs" / "runs").glob("[!.]*/run.json"))),
        (ASIDE, [var / "alerts_broken.json"]),
        (SECRETS, [var / "secrets.json"]),
    ]
    for cure, files in records:
        for file in files:
            if file.exists():
                yield None
                try:
                    sealed.read(file)
                except sealed.Damaged as error:
                    yield Finding(_within(var, file), str(error), cure)
    logs = var / "calls"
    for file in sorted((*logs.glob("inbox/*.jsonl"), *logs.glob("????-??/*.jsonl"))):
        yield None
        wrong = [why for _, why in calls(file) if why]
        if wrong:
            cure = (
                ASIDE
                if file.parent.name == "inbox"
                else "its calls are in the warehouse: remove it"
            )
            yield Finding(_within(var, file), wrong[0], cure)
    ledger = var / LEDGER
    if ledger.exists():
        yield None
        try:
            with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as con:
                ((word,),) = con.execute("PRAGMA quick_check(1)").fetchall()
            if word != "ok":
                raise sqlite3.DatabaseError(word)
        except sqlite3.Error as error:
            yield Finding(LEDGER, _line(error), RECOUNT)


def _quarantines(var: Path) -> Looked:
    for place in PLACES:
        for file, reason, _ in quarantined(var / place):
            yield None
            yield Finding(_within(var, file), reason, LOOKED_AT)


def _within(var: Path, file: Path) -> str:
    return str(file.relative_to(var))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
