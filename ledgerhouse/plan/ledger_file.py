"""The SQLite file of the budget, which processes and threads share, and what follows its damage.

    LedgerFile(path).turn(work)      work(con) in a transaction, one at a time among all

A damaged file is put into the quarantine of its folder, and another begun in its place, with the
open reservations that can still be read. What was spent it does not know: it is counted again from
what is written down before anything else is done (see `recount`), or nothing is.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TypeVar

from extract.core import durable
from extract.core.errors import Fatal
from extract.core.quarantine import quarantine

log = logging.getLogger(__name__)

WAIT_S = 60.0  # a turn takes less than a millisecond
TABLES = """
CREATE TABLE IF NOT EXISTS totals (source TEXT, period TEXT, opens TEXT, calls INTEGER,
    units INTEGER, PRIMARY KEY (source, period, opens));
CREATE TABLE IF NOT EXISTS reserved (call_id TEXT PRIMARY KEY, source TEXT, at TEXT,
    units INTEGER);
CREATE TABLE IF NOT EXISTS counted (source TEXT PRIMARY KEY, month TEXT);
"""
# What SQLite says of a file that is not as it was written: our statements are always the same, so
# an error in one of them (1), or of a key (19), is damage of the schema or of an index.
DAMAGE = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_NOTADB,
}
# Of a schema that is no text any more the error itself cannot be made.
ERRORS = (sqlite3.Error, UnicodeDecodeError)
Result = TypeVar("Result")


class LedgerFile:
    """One process's hold of the file. `recount` counts again what was spent, within the turn, where
    the file was begun again under somebody's hands; without it they begin again."""

    def __init__(
        self, path: Path, recount: Callable[[sqlite3.Connection], None] | None = None
    ) -> None:
        self.path, self._recount = path, recount
        self._lock, self._con, self._inode = Lock(), None, None

    def turn(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """What `work` makes of a connection, in a transaction that is rolled back after an error.

        Raises Fatal where the file cannot be used.
        """
        with self._lock:
            try:
                return self._turn(work)
            except ERRORS as error:
                if not _is_damage(error, self.path):
                    raise self._unusable(error) from None
                self._put_aside(error)
            try:
                return self._turn(work)
            except ERRORS as error:
                raise self._unusable(error) from None

    def close(self) -> None:
        """Close the file; the next turn opens it again."""
        with self._lock:
            self._close()
            self._inode = None

    def _close(self) -> None:
        if self._con:
            self._con.close()
        self._con = None

    def _turn(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        with self._guard(fcntl.LOCK_SH):
            is_another = self._inode not in (None, _inode(self.path))
            if is_another:
                self._close()
            if self._con is None:
                self._con = _open(self.path)
                self._inode = _inode(self.path)
            con = self._con
            con.execute("BEGIN IMMEDIATE")
            try:
                if is_another:
                    self._count_again(con)
                result = work(con)
                con.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    con.execute("ROLLBACK")
                raise
            return result

    def _count_again(self, con: sqlite3.Connection) -> None:
        if self._recount is None:
            self._inode = None  # its holder now begins again, as with a file that is new
            raise Fatal(
                f"the ledger of the budget, {self.path}, was damaged, and is begun again: the next "
                "try counts from the call logs what was spent"
            )
        self._recount(con)

    def _put_aside(self, error: Exception) -> None:
        """Quarantine the file, unless another process has done that meanwhile, and begin another."""
        self._close()
        with self._guard(fcntl.LOCK_EX):
            with suppress(*ERRORS), closing(_open(self.path)) as con:
                con.execute("SELECT count(*) FROM totals, reserved, counted").fetchall()
                if _inode(self.path) != self._inode:
                    self._inode = self._inode or -1
                    return
            reserved = _reserved(self.path)
            # Its journals first: SQLite would apply them to the new file.
            for suffix in ("-journal", "-wal", "-shm", ""):
                file = self.path.with_name(f"{self.path.name}{suffix}")
                if file.exists():
                    words = " ".join(str(error).split())
                    quarantine(self.path.parent, file, f"SQLite says of it: {words}")
            with closing(_open(self.path)) as con:
                con.executemany("INSERT OR REPLACE INTO reserved VALUES (?, ?, ?, ?)", reserved)
            self._inode = -1  # of no file: the next turn counts again

    @contextmanager
    def _guard(self, kind: int) -> Iterator[None]:
        """Turns are taken while the file stays where it is; it is moved while nobody has a turn."""
        durable.folder(self.path.parent)
        handle = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, kind)
            yield
        finally:
            os.close(handle)

    def _unusable(self, error: Exception) -> Fatal:
        return Fatal(f"the ledger of the budget, {self.path}, cannot be used: {error}")


def _is_damage(error: Exception, path: Path) -> bool:
    if isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError)):
        return False
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    # A file of an unknown version is read-only to SQLite, whatever we may do with it.
    return code in DAMAGE or (code == sqlite3.SQLITE_READONLY and os.access(path, os.W_OK))


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _open(path: Path) -> sqlite3.Connection:
    """Open the file, or make it; raises DatabaseError where it is damaged."""
    con = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        # Safe against a kill; a machine that crashes may damage it, and each plan counts again.
        con.execute("PRAGMA synchronous = OFF")
        con.executescript(f"BEGIN IMMEDIATE; {TABLES} COMMIT;")
        [(word,)] = con.execute("PRAGMA quick_check(1)").fetchall()
        if word != "ok":
            raise sqlite3.DatabaseError(word)
    except BaseException:
        con.close()
        raise
    return con


def _reserved(path: Path) -> list[tuple]:
    """The open reservations that a damaged file still shows."""
    rows: list[tuple] = []
    with suppress(*ERRORS), closing(sqlite3.connect(path)) as con:
        for call_id, source, at, units in con.execute("SELECT * FROM reserved"):
            if isinstance(call_id, str) and isinstance(at, str) and isinstance(units, int):
                rows.append((call_id, source, at, units))
    return rows
