"""Retention: files that nobody needs any more, removed by age, and only when their rows are safe.

    logs(folders, older_than)             log files of Airflow; links and folders left empty go too
    call_logs(con, root, older_than)      only those of which every call is in ops.api_calls
    attempts(con, root, older_than)       records of attempts, once they are in ops.sync_runs
    landed(root, warehouse, older_than)   nothing goes: a month's landed files become an archive
    leftovers(var, older_than)            drafts of writers that were killed

Ages are by the file's own time of change. Nothing follows a link out of its folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core.sealed import Damaged
from extract.fetch import archives, landing
from ledgerhouse.operate.run_log.mirror import mirror_records
from ledgerhouse.warehouse.connection import WAIT_S, hold, is_held

if TYPE_CHECKING:
    import duckdb

FILES_AT_ONCE = 500
# Folders of var/ that hold drafts called .<name>.part; published/ sweeps its own at each publish.
DRAFTS = (".", "landing", "landing/inbox", "attempts", "account_units", "calls", "data_docs")
# Folders that are a draft as a whole, and the lock that their writer holds meanwhile.
DRAFT_FOLDERS = {"replay": "warehouse.duckdb", "compact": "warehouse.duckdb", "rebuild": "rebuild"}


@dataclass
class Removed:
    """How many files were removed, and their bytes."""

    files: int = 0
    bytes: int = 0

    def remove(self, path: Path, status: os.stat_result) -> None:
        """Remove a file or link; one that has gone meanwhile is no error."""
        with suppress(FileNotFoundError):
            path.unlink()
            self.files += 1
            self.bytes += status.st_size


def logs(folders: Iterable[Path], older_than: datetime) -> Removed:
    """Remove what was last written before `older_than` (aware), and folders that are empty then.

    A folder that was found empty and is younger is left: a task may be about to write into it.
    """
    removed, limit = Removed(), older_than.timestamp()
    for folder in folders:
        emptied: set[Path] = set()
        for parent, names, files in os.walk(folder, topdown=False):
            at = Path(parent)
            for name in (*files, *names):
                path = at / name
                with suppress(FileNotFoundError):
                    status = path.lstat()
                    if (name in files or path.is_symlink()) and status.st_mtime < limit:
                        removed.remove(path, status)
                        emptied.add(at)
            if at != folder and (at in emptied or at.lstat().st_mtime < limit):
                if _remove_empty(at):
                    emptied.add(at.parent)
    return removed


def _remove_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # not empty, or gone
        return False
    return True


def call_logs(con: duckdb.DuckDBPyConnection, root: Path, older_than: datetime) -> Removed:
    """Remove loaded call logs written before `older_than`, if ops.api_calls has each of their calls.

    What a file says that is no call (half a line of a kill) is needed by nobody. Waiting logs, in
    `inbox/`, are not looked at.
    """
    removed, limit = Removed(), older_than.timestamp()
    old = [f for f in sorted(root.glob("????-??/*.jsonl")) if f.stat().st_mtime < limit]
    for files in _parts(old):
        missing = {
            file
            for (file,) in con.execute(
                """
                SELECT DISTINCT filename FROM read_json(?, format = 'newline_delimited',
                    ignore_errors = true, filename = true, columns = {call_id: 'VARCHAR'})
                WHERE call_id IS NOT NULL AND call_id NOT IN (
                    SELECT call_id FROM ops.api_calls WHERE call_id IS NOT NULL)""",
                [[str(file) for file in files]],
            ).fetchall()
        }
        for file in files:
            if str(file) not in missing:
                removed.remove(file, file.lstat())
    for folder in root.glob("????-??"):
        _remove_empty(folder)
    return removed


def _parts(files: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(files), FILES_AT_ONCE):
        yield files[start : start + FILES_AT_ONCE]


def attempts(con: duckdb.DuckDBPyConnection, root: Path, older_than: datetime) -> Removed:
    """Write records that no mirror has read since before `older_than` into ops.sync_runs, and
    remove them. Where every mirror succeeds there are none."""
    sizes = {file: file.stat().st_size for file in root.glob("*.json")}
    gone = mirror_records(con, root, older_than)
    return Removed(len(gone), sum(sizes.get(file, 0) for file in gone))


def landed(
    root: Path, warehouse: Path, older_than: datetime, owner: str, wait_s: float = WAIT_S
) -> archives.Packed:
    """Pack landed files that were loaded before `older_than`, month by month; each holds the
    warehouse for a moment, so that no load and no replay meets it."""
    done = archives.Packed()
    for month in archives.due(root, older_than):
        with hold(warehouse, owner, wait_s):
            try:
                packed = archives.pack(root, month, older_than, landing.loads(root))
            except Damaged as error:
                done.left[f"{month.source}/{month.month}"] = str(error)
                continue
        done.files += packed.files
        done.bytes += packed.bytes
        done.left |= packed.left
    return done


def leftovers(var: Path, older_than: datetime) -> Removed:
    """Remove drafts of writers that were killed before `older_than`; what is at work is younger."""
    removed, limit = Removed(), older_than.timestamp()
    for folder in DRAFTS:
        for path in (var / folder).glob(".*.part"):
            if path.is_file() and (status := path.lstat()).st_mtime < limit:
                removed.remove(path, status)
    for path in (var / "data_docs" / "runs").glob(".*"):
        if path.is_dir() and path.lstat().st_mtime < limit:
            _remove_folder(path, removed)
    for name, lock in DRAFT_FOLDERS.items():
        path = var / name
        if path.is_dir() and path.lstat().st_mtime < limit and not is_held(var / lock):
            _remove_folder(path, removed)
    return removed


def _remove_folder(folder: Path, removed: Removed) -> None:
    removed.files += 1
    removed.bytes += sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file())
    shutil.rmtree(folder, ignore_errors=True)
