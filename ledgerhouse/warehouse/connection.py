"""Opening the warehouse: one process at a time, under a lock that names its owner.

DuckDB lets one process hold the file and refuses all others, readers included, with an error
instead of a queue. So every opener takes a lock beside the file first (`flock`, freed by the
kernel even when its owner is killed) and writes its name into it: a process that waits can say
for whom.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core import durable
from extract.fetch import archives, encryption, landing
from extract.fetch.noted import batch_ids
from ledgerhouse.config import MEMORY_LIMIT, warehouse_path
from ledgerhouse.warehouse import encrypted
from ledgerhouse.warehouse.encrypted import STORAGE

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)
WAIT_S = 600  # longer than the longest single step measured (a two-year transform: 15 s)
REPORT_EVERY_S = 10


class WarehouseBusy(RuntimeError):
    """Another process held the warehouse for longer than the caller was willing to wait."""


class NotReplayed(RuntimeError):
    """The landing holds loads that the warehouse does not: it is lost, or an older copy."""


_HELD: set[int] = set()


def _release() -> None:
    """Close the locks that this process holds."""
    for handle in _HELD:
        os.close(handle)
    _HELD.clear()


# A fork shares the lock: a worker that outlives its killed parent would keep it forever.
os.register_at_fork(after_in_child=_release)


def holder(path: Path) -> str:
    """The owner of the warehouse's lock, in words."""
    try:
        lock = json.loads(_lock_file(path).read_text())
        return f"{lock['owner']} (process {lock['pid']}, since {lock['since']})"
    except (OSError, ValueError, KeyError):
        return "an unnamed process"


def is_held(path: Path) -> bool:
    """Whether some process has the warehouse's lock at this moment; never waits for it."""
    try:
        handle = os.open(_lock_file(path), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


@contextmanager
def hold(path: Path, owner: str, wait_s: float = WAIT_S) -> Iterator[Path]:
    """The warehouse file, locked for this process; waits up to `wait_s` seconds for a turn.

    Raises WarehouseBusy naming the owner of the lock when the wait is over.
    """
    path = Path(path)
    durable.folder(path.parent)
    handle, process = os.open(_lock_file(path), os.O_RDWR | os.O_CREAT, 0o644), os.getpid()
    try:
        deadline, reported = time.monotonic() + wait_s, float("-inf")
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                now = time.monotonic()
                if now > deadline:
                    raise WarehouseBusy(
                        f"{owner} waited {wait_s:.0f} s for {path.name}; it is held by "
                        f"{holder(path)}. Wait for that to end, or stop it, and run again."
                    ) from None
                if now - reported > REPORT_EVERY_S:
                    log.info("%s waits for %s, held by %s", owner, path.name, holder(path))
                    reported = now
                time.sleep(0.05)
        lock = {
            "owner": owner,
            "pid": process,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(lock).encode(), 0)
        _HELD.add(handle)
        yield path
    finally:
        # In a fork it is closed already, and the number may be somebody else's by now.
        if process == os.getpid():
            _HELD.discard(handle)
            os.close(handle)


@contextmanager
def open_warehouse(
    path: Path | None = None,
    *,
    owner: str,
    wait_s: float = WAIT_S,
    read_only: bool = False,
    compact: bool = False,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection to the warehouse (tables are created where missing), locked until closed.

    `compact`: with what is written DuckDB merges the small row groups that loads and transforms
    leave behind. It rewrites full ones beside them, a second or two at 10M rows, which would
    otherwise be spent at any close; so the weekly refresh asks for it, and nothing else.
    """
    from ledgerhouse.warehouse.schema import create_all
    from ledgerhouse.warehouse.views import add_missing_views

    with (
        hold(Path(path or warehouse_path()), owner, wait_s) as file,
        connected(file, read_only=read_only and file.exists(), compact=compact) as con,
    ):
        if not read_only:
            create_all(con)
        else:
            add_missing_views(con)
        yield con


def wal(path: Path) -> Path:
    """Where DuckDB writes first what it later brings into the file."""
    return path.with_name(path.name + ".wal")


def require_not_lost(path: Path) -> None:
    """Raise NotReplayed where `path` is missing or empty, and the landing beside it is not."""
    if path.exists() and path.stat().st_size:
        return
    root = path.parent / "landing"
    if landing.loads(root) or archives.kept(root):
        raise NotReplayed(
            f"there is no warehouse ({path}), and the landing beside it ({root}) holds what was "
            "loaded: it is lost, not new. Make it again with `make replay`, or the DAG replay: no "
            "call is made, and nothing is paid twice. To begin again, move the landing away too"
        )


def require_all_loads(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Raise NotReplayed where loads.jsonl at `root` lists a batch that the warehouse lacks: it is
    an older copy, and would ask again for what the landing has."""
    known = {
        batch_id
        for (batch_id,) in con.execute("SELECT DISTINCT batch_id FROM ops.landed_files").fetchall()
    }
    ids = batch_ids(root)
    if ids is not None and ids <= known:
        return
    noted = {load.batch_id: load for load in landing.loads(root)}
    if lacking := [load for batch_id, load in noted.items() if batch_id not in known]:
        raise NotReplayed(
            f"the landing ({root}) lists {len(lacking)} of {len(noted)} loads that the warehouse "
            f"does not have, the first of {lacking[0].loaded_at:%Y-%m-%d %H:%M}: the warehouse is "
            "an older copy. Bring it up to date with `make replay`, or the DAG replay: no call is "
            "made, and nothing is paid twice"
        )


@contextmanager
def connected(
    path: Path, *, read_only: bool = False, compact: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection for a process that has locked the file already.

    Raises NotReplayed where there is no file, beside a landing from which it can be made: an empty
    warehouse would ask the vendors for the whole history again, and be published. Raises
    EncryptionError where the file is encrypted, or what lies in the landing beside it, and the
    key is missing or another one.
    """
    require_not_lost(path)
    if not read_only and not path.exists():
        encryption.for_writing(path.parent / "landing")
    con = encrypted.connect(
        path,
        read_only=read_only,
        config={"memory_limit": MEMORY_LIMIT, "storage_compatibility_version": STORAGE},
    )
    try:
        con.execute("SET TimeZone = 'UTC'")
        if not compact and not read_only:
            con.execute("SET max_vacuum_tasks = 0")
        yield con
    finally:
        con.close()
