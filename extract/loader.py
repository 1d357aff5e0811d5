"""Landing → raw rows, history, coverage and touched days, in one transaction a batch.

There is no primary key (DESIGN, decision 3): the batch is deduplicated, joined to the rows
there are within the batch's own span of time, and sorted into new, changed, same and stale.
Only new and changed rows are written; what they replace goes to `raw.history`. Every day that
lost or gained anything is marked in `ops.touched_days`. Uniqueness over those days is asserted
before the commit: either everything of a batch is there afterwards, or nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from itertools import groupby
from pathlib import Path
from uuid import uuid4

from extract import landing
from extract.datasets import DATASETS
from extract.merge import merge
from extract.source import Source

log = logging.getLogger(__name__)

FILES_A_BATCH = 200        # about 100,000 rows: keeps memory flat however much waits
BYTES_A_BATCH = 16_000_000  # the same bound for a few big files (compressed)

# A bare JSON number would pass through a double in any JSON parser, 17 digits at best. So
# numbers are quoted first (ccxt does the same). `"key": 1.50` cannot occur inside a JSON
# string: its quotes would be escaped, which the first class excludes.
QUOTED_BODY = r"""regexp_replace(body,
    '([^\\]"\s*:\s*)(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)', '\1"\2"', 'g')"""

PAGES = f"""
CREATE OR REPLACE TEMP TABLE pages AS
SELECT row_number() OVER (ORDER BY f.filename, number) AS page_id, h.source, h.account, endpoint,
       params::JSON AS params, ({QUOTED_BODY})::JSON AS body,
       received_at::TIMESTAMP AS received_at, as_of::TIMESTAMP AS as_of,
       lo::TIMESTAMP AS lo, hi::TIMESTAMP AS hi, f.filename AS file
FROM read_json(?, format = 'newline_delimited', compression = 'zstd', filename = true,
    maximum_object_size = 268435456, columns = {{kind: 'VARCHAR', number: 'INTEGER',
    endpoint: 'VARCHAR', params: 'VARCHAR', body: 'VARCHAR', received_at: 'VARCHAR',
    as_of: 'VARCHAR', lo: 'VARCHAR', hi: 'VARCHAR'}}) f
JOIN headers h ON h.file = f.filename
WHERE kind = 'page'
"""


def units_text(hex_units: str, decimals: str) -> str:
    """Exact decimal text of a hex count of base units: ("0x5f5e100", "8") → "1.00000000"."""
    return format(Decimal(int(hex_units, 16)).scaleb(-int(decimals), _EXACT), "f")


_EXACT = Context(prec=200)


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

    def plus(self, other: Loaded) -> Loaded:
        return Loaded(*(a + b for a, b in zip(self.counts(), other.counts())))

    def counts(self) -> tuple[int, ...]:
        return (self.files, self.rows, self.new, self.changed, self.same, self.stale,
                self.removed)


def load(con, root: Path, sources: dict[str, Source]) -> Loaded:
    """Load every waiting file of the landing at `root`, batch by batch; progress by log.

    A file that cannot be loaded keeps no other from it; at the end LoadFailed names the first.
    """
    total, failures = Loaded(), []
    for batch in batches(list(landing.waiting(root))):
        for part in (batch, *([f] for f in batch)):
            try:
                done = load_files(con, part, sources)
            except LoadFailed as error:
                if len(part) == 1:
                    failures.append(error)
                    if part is batch:
                        break
                continue
            for file in part:
                landing.archive(root, file)
            total = total.plus(done)
            log.info("loaded %d files: %d rows, %d new, %d changed, %d same, %d stale, "
                     "%d removed", *done.counts())
            if part is batch:
                break
    if failures:
        raise LoadFailed(f"{len(failures)} of the files could not be loaded. {failures[0]}")
    return total


def batches(files: Sequence[Path]) -> Iterable[list[Path]]:
    """Files of one source at a time, within the bounds of a batch."""
    for _, group in groupby(files, key=lambda f: f.name.split("~")[0]):
        batch, size = [], 0
        for file in group:
            if batch and (len(batch) >= FILES_A_BATCH or size > BYTES_A_BATCH):
                yield batch
                batch, size = [], 0
            batch.append(file)
            size += file.stat().st_size
        yield batch


def load_files(con, files: Sequence[Path], sources: dict[str, Source]) -> Loaded:
    """Load landed files of one source in one transaction.

    Raises LoadFailed, saying which files and why, with the transaction rolled back.
    """
    headers = [landing.header(file) for file in files]
    source = sources[headers[0]["source"]]
    batch_id = uuid4().hex
    total = Loaded(files=len(files))
    if not con.execute("SELECT count(*) FROM duckdb_functions() WHERE function_name = "
                       "'units_text'").fetchone()[0]:
        con.create_function("units_text", units_text, ["VARCHAR", "VARCHAR"], "VARCHAR")
    con.execute("BEGIN")
    try:
        _open_pages(con, files, headers)
        for name, dataset in DATASETS.items():
            if name in source.mappings:
                counts = merge(con, dataset, source.mappings[name], batch_id)
                _record_batch(con, batch_id, source.name, name, headers, counts)
                total = total.plus(Loaded(0, *counts))
        _record_coverage(con, headers, batch_id)
        con.execute("COMMIT")
    except Exception as error:
        con.execute("ROLLBACK")
        names = ", ".join(f.name for f in files[:3]) + (" …" if len(files) > 3 else "")
        raise LoadFailed(
            f"loading {source.name} ({names}): {error}. Nothing of this batch was written; the "
            "files wait in the landing's inbox and are tried again by the next load."
        ) from error
    return total


def _open_pages(con, files: Sequence[Path], headers: Sequence[dict]) -> None:
    con.execute("CREATE OR REPLACE TEMP TABLE headers (file VARCHAR, source VARCHAR, "
                "account VARCHAR)")
    for file, header in zip(files, headers):
        con.execute("INSERT INTO headers VALUES (?, ?, ?)",
                    [str(file), header["source"], header["account"]])
    con.execute(PAGES, [[str(file) for file in files]])


def _record_batch(con, batch_id, source, dataset, headers, counts) -> None:
    accounts = sorted({h["account"] for h in headers})
    runs = sorted({h.get("run_id", "") for h in headers})
    con.execute(
        "INSERT INTO ops.batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, now()::TIMESTAMP)",
        [batch_id, f"{len(headers)} files", source, ",".join(accounts), dataset,
         ",".join(runs), *counts])


def _record_coverage(con, headers: Sequence[dict], batch_id: str) -> None:
    for header in headers:
        for covered in header["covered"]:
            con.execute(
                "INSERT INTO ops.coverage VALUES (?, ?, ?, ?::TIMESTAMPTZ::TIMESTAMP, "
                "?::TIMESTAMPTZ::TIMESTAMP, ?, ?, ?, now()::TIMESTAMP)",
                [header["source"], header["account"], covered["dataset"], covered["start"],
                 covered["end"], covered["reason"], header.get("run_id", ""), batch_id])
