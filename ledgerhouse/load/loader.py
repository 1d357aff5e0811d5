"""Loading of landed files: raw rows, history, coverage and touched days, one transaction a batch.

There is no primary key, which would make the file three times larger: the batch is deduplicated,
joined to the existing rows within the batch's own span of time, and judged (see merge). Only what
differs is written; what it replaces goes to `raw.history`. Every day that lost or gained anything
is marked in `ops.touched_days`. Uniqueness over those days is asserted before the commit: either
everything of a batch is there afterwards, or nothing.

Each committed batch is noted in the landing too (`loads.jsonl`), so that
`ledgerhouse.load.replay` can do exactly the same again from the landing alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core.datasets import DATASETS
from extract.core.interval import UTC, utc
from extract.core.quarantine import quarantine
from extract.core.records import (
    NEEDS_REPAIR,
    QUOTED_BODY,
    quote_numbers,
    repaired,
    units_text,
)
from extract.core.sealed import Damaged
from extract.core.source import Source
from extract.fetch import archives, landing
from extract.fetch.noted import batch_ids
from ledgerhouse.config import MEMORY_LIMIT
from ledgerhouse.load import decrypted, parts
from ledgerhouse.load.merge import PARENT_OF, VERDICTS, Merged, merge
from ledgerhouse.load.old_warehouse import loads_of
from ledgerhouse.load.running_balances import check_running_balances
from ledgerhouse.warehouse.transaction import transaction

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

FILES_A_BATCH = 200  # about 100,000 rows: keeps memory flat however much waits
# DuckDB keeps what it has written in whatever memory it may have. A batch needs 60 times its
# compressed size (0.9 MB: 10,000 ledger records).
LEAST_MEMORY = 600 * 2**20
MEMORY_A_BYTE = 65
# A smaller batch is loaded by one thread: what its 120 statements hand each other takes longer than
# what they do. 0.12 s instead of 0.14 on two idle cores, and on busy ones half (6 kB, two fetches).
BYTES_OF_THREADS = 50_000  # compressed: about 500 ledger records
SLICES_A_THREAD = 2
PAGES_A_SLICE = 16
LONGEST_LINE = 2**25  # of a file that does not say
BYTES_A_BATCH = 10_000_000  # the same bound for a few big files (compressed)

NOTHING = Merged(0, (0,) * len(VERDICTS), 0, 0)

# The text of a page whose parser would refuse it: few have such an escape.
BODY = f"CASE WHEN regexp_matches(f.body, '{NEEDS_REPAIR}') THEN repaired(f.body) ELSE f.body END"

PAGES = f"""
CREATE OR REPLACE TEMP TABLE landed_pages AS
SELECT h.place * 1000000::BIGINT + number AS page_id, h.source, h.account, endpoint,
       params::JSON AS params, ({QUOTED_BODY})::JSON AS body,
       received_at::TIMESTAMP AS received_at, as_of::TIMESTAMP AS as_of, h.read_at,
       lo::TIMESTAMP AS lo, hi::TIMESTAMP AS hi, f.filename AS file
FROM (SELECT * REPLACE ({BODY} AS body) FROM read_json(?, format = 'newline_delimited', compression = 'zstd', filename = true,
    maximum_object_size = {{room}}, columns = {{{{kind: 'VARCHAR', number: 'INTEGER',
    endpoint: 'VARCHAR', params: 'VARCHAR', body: 'VARCHAR', received_at: 'VARCHAR',
    as_of: 'VARCHAR', lo: 'VARCHAR', hi: 'VARCHAR'}}}}) f) f
JOIN headers h ON h.file = f.filename
WHERE kind = 'page'
"""


class LoadFailed(RuntimeError):
    """A batch could not be loaded; nothing of it is in the warehouse, its files still wait."""


@dataclass(frozen=True)
class Loaded:
    """What one load did, over all datasets, in rows."""

    files: int = 0
    rows: int = 0
    new: int = 0
    changed: int = 0
    same: int = 0
    stale: int = 0
    removed: int = 0
    vanished: int = 0

    def plus(self, other: Loaded) -> Loaded:
        """Both together."""
        return Loaded(*(a + b for a, b in zip(self.counts(), other.counts())))

    def counts(self) -> tuple[int, ...]:
        """The fields, in their order."""
        return (
            self.files,
            self.rows,
            self.new,
            self.changed,
            self.same,
            self.stale,
            self.removed,
            self.vanished,
        )


def load(con: duckdb.DuckDBPyConnection, root: Path, sources: dict[str, Source]) -> Loaded:
    """Load every waiting file of the landing at `root`, batch by batch; progress by log.

    A file that is not as it was written, or is none of ours, goes to the landing's quarantine: what
    it covers stays uncovered, so that it is fetched again. One that cannot be loaded for another
    reason waits, and keeps no other from it; at the end LoadFailed names the first.
    """
    total, failures = Loaded(), list[LoadFailed]()
    _archive_loaded(con, root)
    _restore_notes(con, root)
    for batch in batches(_sound(root, sources, failures)):
        room = max(LEAST_MEMORY, MEMORY_A_BYTE * sum(f.stat().st_size for f in batch))
        # What is denser than that is loaded file by file, with all that there is.
        for part, limit in (
            (batch, f"{room // 2**20} MiB"),
            *(([file], MEMORY_LIMIT) for file in batch),
        ):
            # It frees, too, what the batch before has left. RESET would not reach the buffers.
            con.execute(f"SET memory_limit = '{limit}'")
            try:
                done = load_files(con, part, sources)
            except LoadFailed as error:
                if part is not batch:
                    failures.append(error)
                continue
            _archive_loaded(con, root)
            total = total.plus(done)
            log.info(
                "loaded %d files: %d rows, %d new, %d changed, %d same, %d stale, "
                "%d removed, %d vanished",
                *done.counts(),
            )
            if part is batch:
                break
    if failures:
        raise LoadFailed(f"{len(failures)} of the files could not be loaded. {failures[0]}")
    return total


def _sound(root: Path, sources: dict[str, Source], failures: list[LoadFailed]) -> list[Path]:
    """The waiting files that can be loaded; those that cannot go to quarantine, or to `failures`."""
    sound = []
    for file in landing.waiting(root):
        try:
            landing.inspect(file)
        except Damaged as error:
            quarantine(root, file, str(error))
            continue
        if (source := file.name.split("~")[0]) in sources:
            sound.append(file)
        else:
            failures.append(
                LoadFailed(
                    f"loading {file.name}: there is no source {source!r} here (they are: "
                    f"{', '.join(sources)}). It waits in the landing's inbox: install that source, "
                    "or move the file away"
                )
            )
    return sound


def _archive_loaded(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Note the batches whose files are committed but still in the inbox, then move the files.

    After a kill between commit and here, the next load does it: nothing is loaded twice.
    """
    here = {file.name: file for file in landing.waiting(root)}
    done = (
        con.execute(
            "SELECT batch_id, sequence, loaded_at, list(file ORDER BY file) FROM ops.landed_files "
            "WHERE batch_id IN (SELECT batch_id FROM ops.landed_files WHERE list_contains(?, file)) "
            "GROUP BY ALL ORDER BY sequence",
            [list(here)],
        ).fetchall()
        if here
        else []
    )
    for batch_id, sequence, loaded_at, files in done:
        digests = _digests({name: file for name, file in here.items() if name in files})
        landing.note_load(
            root, landing.Load(sequence, batch_id, utc(loaded_at), tuple(files), digests)
        )
        landing.archive(root, [here[file] for file in files if file in here])


def _digests(files: Mapping[str, archives.Kept]) -> dict[str, str]:
    """The SHA-256 of each file by name; without those that have been damaged since they were
    loaded, which a replay then meets."""
    digests = {}
    for name, file in files.items():
        with suppress(Damaged):
            digests[name] = archives.inspect(file)
    return digests


def _restore_notes(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Write loads.jsonl again where lines of it are lost or damaged that the warehouse knows: a
    replay could not tell when those files were loaded."""
    ids = batch_ids(root)
    known = con.execute("SELECT DISTINCT batch_id FROM ops.landed_files").fetchall()
    if ids is not None and ids >= {batch_id for (batch_id,) in known}:
        return
    noted = landing.loads(root)
    names = {name for load in noted for name in load.files}
    unknown = [load for load in loads_of(con) if names.isdisjoint(load.files)]
    kept = archives.kept(root) if unknown else {}
    lost = [
        replace(load, digests=_digests({name: kept[name] for name in load.files}))
        for load in unknown
        if kept.keys() >= set(load.files)
    ]
    damaged = [why for file, why in landing.damaged_notes(root) if file.name == landing.LOADS]
    if lost or damaged:
        before = landing.note_loads(root, sorted([*noted, *lost], key=lambda each: each.sequence))
        log.warning(
            "loads.jsonl lacked %d loads, and %d of its lines could not be read: it is written "
            "again from the warehouse, the old is %s",
            len(lost),
            len(damaged),
            before,
        )


def batches(files: Sequence[Path]) -> Iterable[list[Path]]:
    """Files of one source at a time, within the bounds of a batch."""
    for _, group in groupby(files, key=lambda f: f.name.split("~")[0]):
        batch, size = [], 0
        for file in group:
            more = file.stat().st_size
            if batch and (len(batch) >= FILES_A_BATCH or size + more > BYTES_A_BATCH):
                yield batch
                batch, size = [], 0
            batch.append(file)
            size += more
        yield batch


def load_files(
    con: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    sources: dict[str, Source],
    loaded_at: datetime | None = None,
) -> Loaded:
    """Load landed files of one source in one transaction; `loaded_at` is now, unless replayed.

    Raises LoadFailed, saying which files and why, with the transaction rolled back.
    """
    headers = [landing.header(file) for file in files]
    source = sources[headers[0]["source"]]
    if sum(file.stat().st_size for file in files) < BYTES_OF_THREADS:
        with _one_thread(con):
            return _load_files(con, files, headers, source, loaded_at)
    return _load_files(con, files, headers, source, loaded_at)


@contextmanager
def _one_thread(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    [(threads,)] = con.execute("SELECT current_setting('threads')").fetchall()
    con.execute("SET threads = 1")
    try:
        yield
    finally:
        with suppress(Exception):  # of a connection that an error has ended
            con.execute(f"SET threads = {threads}")


def _load_files(
    con: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    headers: Sequence[dict],
    source: Source,
    loaded_at: datetime | None,
) -> Loaded:
    import duckdb

    names = sorted(file.name for file in files)
    batch_id = hashlib.sha256("\n".join(names).encode()).hexdigest()[:32]
    loaded_at = utc(loaded_at or datetime.now(UTC)).replace(tzinfo=None)
    total = Loaded(files=len(files))
    with suppress(duckdb.NotImplementedException):  # an earlier batch has created them
        con.create_function("units_text", units_text, ["VARCHAR", "VARCHAR"], "VARCHAR")
        con.create_function("quote_numbers", quote_numbers, ["VARCHAR"], "VARCHAR")
        con.create_function("repaired", repaired, ["VARCHAR"], "VARCHAR")
    try:
        with transaction(con):
            _open_pages(con, source, files, headers, batch_id, loaded_at)
            concerned = _concerned(con, source, headers)
            for name, dataset in DATASETS.items():
                if name in source.mappings:
                    done = NOTHING
                    if name in concerned:
                        done = merge(con, dataset, source.mappings[name], batch_id)
                    _record_batch(con, batch_id, source.name, name, headers, done, loaded_at)
                    total = total.plus(Loaded(0, done.rows, *done.verdicts))
            parts.record(con, headers, batch_id)
            _record_source(con, source)
            if "exchanges_ledger" in concerned:
                check_running_balances(con, batch_id, loaded_at)
            con.execute(
                "INSERT INTO ops.landed_files (file, batch_id, sequence, loaded_at) "
                "SELECT unnest(?), ?, (SELECT coalesce(max(sequence), 0) + 1 FROM "
                "ops.landed_files), ?",
                [names, batch_id, loaded_at],
            )
    except Exception as error:
        listed = ", ".join(names[:3]) + (" …" if len(files) > 3 else "")
        raise LoadFailed(
            f"loading {source.name} ({listed}): {error}. Nothing of this batch was written; the "
            "files wait in the landing's inbox and are tried again by the next load."
        ) from error
    for (table,) in con.execute(  # or the next batch needs room for two
        "SELECT table_name FROM duckdb_tables() WHERE temporary"
    ).fetchall():
        con.execute(f"DROP TABLE {table}")
    return total


def _concerned(con: duckdb.DuckDBPyConnection, source: Source, headers: Sequence[dict]) -> set[str]:
    """The datasets that a batch can say anything of: its pages have records of them, or it has
    read them whole. Merging one of the others takes 12 to 30 ms, and changes nothing."""
    endpoints = {e for (e,) in con.execute("SELECT DISTINCT endpoint FROM landed_pages").fetchall()}
    read = {covered["dataset"] for header in headers for covered in header["covered"]}
    found = set()
    for name, mapping in source.mappings.items():
        records = [
            r for key, r in source.records.items() if re.search(rf"\brecords_{key}\b", mapping)
        ]
        if (
            name in read
            or re.search(r"\bpages\b", mapping)  # by itself: whatever it looks for there
            or any(endpoints.intersection(each.endpoints) for each in records)
        ):
            found |= {name, PARENT_OF.get(name, name)}
    return found | {name for name, parent in PARENT_OF.items() if parent in found}


def _open_pages(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    files: Sequence[Path],
    headers: Sequence[dict],
    batch_id: str,
    loaded_at: datetime,
) -> None:
    """The batch's temporary tables: `headers`, `readings` (see ledgerhouse.load.coverage_segments)
    and `landed_pages`, with the views `pages` and `records_<name>` that mappings read."""
    con.execute(
        "CREATE OR REPLACE TEMP TABLE headers (place INTEGER, file VARCHAR, source VARCHAR, "
        "account VARCHAR, read_at TIMESTAMP)"
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE readings (file VARCHAR, source VARCHAR, account "
        "VARCHAR, dataset VARCHAR, start_ts TIMESTAMP, end_ts TIMESTAMP, read_at TIMESTAMP, "
        "reason VARCHAR, run_id VARCHAR, batch_id VARCHAR, recorded_at TIMESTAMP, parts VARCHAR)"
    )
    parts.open_unread(con, headers)
    moment = "?::TIMESTAMPTZ::TIMESTAMP"
    con.executemany(
        f"INSERT INTO headers VALUES (?, ?, ?, ?, {moment})",
        [
            [place, decrypted.path(f), h["source"], h["account"], h["read_at"]]
            for place, (f, h) in enumerate(zip(files, headers))
        ],
    )
    segments = [
        [
            f.name,
            h["source"],
            h["account"],
            c["dataset"],
            c["start"],
            c["end"],
            h["read_at"],
            c["reason"],
            h.get("run_id", ""),
            batch_id,
            loaded_at,
            json.dumps(sorted(c["parts"])) if c.get("parts") is not None else None,
        ]
        for f, h in zip(files, headers)
        for c in h["covered"]
        # A part that is read again where it could not be read makes no old time fresh.
        if "parts" not in c or c["end"] > h["tail"]
    ]
    if segments:
        con.executemany(
            f"INSERT INTO readings VALUES (?, ?, ?, ?, {moment}, {moment}, {moment}, ?, ?, ?, ?, ?)",
            segments,
        )
    # A reader takes twice the room of the longest line for each thread.
    room = max(h.get("longest", LONGEST_LINE) for h in headers) + 1024
    decrypted.register(con, files)
    paths = [decrypted.path(file) for file in files]
    (count,) = con.execute(PAGES.format(room=room), [paths]).fetchall()[0]
    # A table this small is scanned by one thread, two thousand pages at a time: in slices, the
    # mapping runs on every core, and has fewer of them in hand at once.
    (threads,) = con.execute("SELECT current_setting('threads')").fetchall()[0]
    slices = max(1, min(SLICES_A_THREAD * threads, count // PAGES_A_SLICE))
    con.execute(f"CREATE OR REPLACE TEMP VIEW pages AS {_in_slices('landed_pages', slices)}")
    _open_records(con, source, slices)


def _open_records(con: duckdb.DuckDBPyConnection, source: Source, slices: int) -> None:
    """records_<name>, a view, of each list of records in the pages (see Source.records).

    A list that several mappings read is parsed once, into a table: DeBank's pages are mapped in
    0.25 s of CPU instead of 0.30. For a single reader the table would cost a fifth more.
    """
    for name, records in source.records.items():
        select, readers = records.select(), rf"\brecords_{name}\b"
        if sum(bool(re.search(readers, mapping)) for mapping in source.mappings.values()) > 1:
            # Materialized, the parsing runs on every core; as the source of a table it runs on one.
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE parsed_{name} AS "
                f"WITH parsed AS MATERIALIZED ({select}) FROM parsed"
            )
            select = _in_slices(f"parsed_{name}", slices)
        con.execute(f"CREATE OR REPLACE TEMP VIEW records_{name} AS {select}")


def _in_slices(table: str, slices: int) -> str:
    """A SELECT of a table by page_id modulo `slices`, so that it is scanned by as many threads."""
    return " UNION ALL ".join(
        f"SELECT * FROM {table} WHERE page_id % {slices} = {number}" for number in range(slices)
    )


def _record_source(con: duckdb.DuckDBPyConnection, source: Source) -> None:
    """Write what the source's history can tell into ops.sources."""
    con.execute("DELETE FROM ops.sources WHERE source = ?", [source.name])
    con.execute(
        "INSERT INTO ops.sources (source, depth, reconcilable, why) VALUES (?, ?, ?, ?)",
        [source.name, source.depth, source.reconcilable, source.why],
    )


def _record_batch(
    con: duckdb.DuckDBPyConnection,
    batch_id: str,
    source: str,
    dataset: str,
    headers: Sequence[dict],
    done: Merged,
    loaded_at: datetime,
) -> None:
    """Write the line of one dataset of a batch into ops.batches."""
    accounts = sorted({h["account"] for h in headers})
    runs = sorted({h.get("run_id", "") for h in headers})
    con.execute(
        "INSERT INTO ops.batches (batch_id, file, source, account, dataset, run_id, rows, new, "
        "changed, same, stale, removed, vanished, loaded_at, read, shadowed, rejected) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            batch_id,
            f"{len(headers)} files",
            source,
            ",".join(accounts),
            dataset,
            ",".join(runs),
            done.rows,
            *done.verdicts,
            loaded_at,
            done.rows + done.shadowed + done.rejected,
            done.shadowed,
            done.rejected,
        ],
    )
