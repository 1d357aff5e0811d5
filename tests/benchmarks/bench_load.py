"""Loading landed records: against dlt, against pandas and a primary key, against bare DuckDB."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import count
from pathlib import Path
from statistics import median

from extract.core.datasets import EXCHANGES_LEDGER
from extract.core.records import QUOTED_BODY
from extract.fetch import landing
from extract.sources import all_sources
from ledgerhouse.load.loader import load
from ledgerhouse.warehouse.connection import connected
from ledgerhouse.warehouse.schema import create_all
from tests.benchmarks import data
from tests.benchmarks.measure import (
    ROOT,
    bench_var,
    cpu_seconds,
    interleaved,
    peak_mb,
    ratio,
    row,
    seconds,
    spread,
    tell,
)

START = datetime(2023, 1, 1, tzinfo=UTC)
RECORDS_A_FILE = 10_000
DLT_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
SOURCES = all_sources()
COPIES = count()


def landed(folder: Path, records: int, files: int) -> Path:
    """A landing with `records` ledger records in `files` fetches that follow each other in time."""
    if not folder.exists():
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.part-"))
        each = records // files
        for n in range(files):
            start = START + n * timedelta(days=900) / files
            data.coinbase(
                part, data.moments(start, start + timedelta(days=900) / files, each), seed=n
            )
        part.rename(folder)
    return folder


def fresh(landing_root: Path, work: Path) -> Path:
    """The same fetches once more, under new names, since a file is loaded once (hard links). The
    digest in a name stays: without it, as in 0.1, all of a file is read to see whether it is whole."""
    number = next(COPIES)
    shutil.rmtree(work, ignore_errors=True)
    (work / "inbox").mkdir(parents=True)
    for file in landing.waiting(landing_root):
        source, account, start, *rest = file.name.split("~")
        named = "~".join([source, account, f"{start[:8]}T{number:06}", *rest])
        (work / "inbox" / named).hardlink_to(file)
    return work


def connect(path: Path):
    import duckdb

    con = duckdb.connect(str(path))
    con.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return con


class Ours:
    """The product's load of a landing into a warehouse file that is new, or has it all."""

    def __init__(self, work: Path, landing_root: Path, records: int):
        self.work, self.landing, self.records = work, landing_root, records
        self.open = ExitStack()
        self.con = self.open.enter_context(connected(work / "ours.duckdb"))
        self.con.execute("SET enable_progress_bar = false")
        create_all(self.con)

    def load(self) -> None:
        loaded = load(self.con, fresh(self.landing, self.work / "landed"), SOURCES)
        if loaded.rows != self.records:
            raise RuntimeError(f"{loaded.rows} rows of {self.records} were loaded: {loaded}")

    def close(self) -> None:
        self.open.close()
        (self.work / "ours.duckdb").unlink()


COLUMNS = [c for c in EXCHANGES_LEDGER.columns if c.name != "kind"]


class Pandas:
    """What one would write first: DataFrame → CSV → INSERT OR REPLACE by a primary key."""

    def __init__(self, work: Path, landing_root: Path, records: int):
        self.work, self.files, self.records = work, list(landing.waiting(landing_root)), records
        self.con = connect(work / "pandas.duckdb")
        columns = ", ".join(f"{c.name} {c.type}" for c in COLUMNS)
        self.con.execute(f"""CREATE TABLE ledger ({columns},
            PRIMARY KEY ({", ".join(EXCHANGES_LEDGER.key)}))""")

    def load(self) -> None:
        import pandas

        frame = pandas.DataFrame(list(_flat_records(self.files)), columns=[c.name for c in COLUMNS])
        file = self.work / "ledger.csv"
        frame.to_csv(file, index=False)
        types = ", ".join(f"'{c.name}': '{c.type}'" for c in COLUMNS)
        self.con.execute(
            f"INSERT OR REPLACE INTO ledger SELECT * FROM read_csv('{file}', "
            f"header = true, columns = {{{types}}})"
        )
        (rows,) = self.con.execute("SELECT count(*) FROM ledger").fetchone()
        if rows != self.records:
            raise RuntimeError(f"{rows} rows of {self.records} were loaded")

    def close(self) -> None:
        self.con.close()
        (self.work / "pandas.duckdb").unlink()


def _flat_records(files):
    import zstandard

    for file in files:
        with open(file, "rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            lines = io.TextIOWrapper(stream, encoding="utf-8")
            header = json.loads(next(lines))
            for page in map(json.loads, lines):
                if page["kind"] != "page":
                    continue
                wallet = json.loads(page["params"])["account_id"]
                for r in json.loads(page["body"])["data"]:
                    network, fill = r.get("network") or {}, r.get("advanced_trade_fill") or {}
                    fee = network.get("transaction_fee") or {}
                    money = r["amount"]["amount"]
                    fee_text = fee.get("amount") or fill.get("commission")
                    yield (
                        header["source"],
                        header["account"],
                        r["id"],
                        r["created_at"],
                        wallet,
                        r["type"],
                        r["status"],
                        r["status"] == "completed",
                        r["amount"]["currency"],
                        money,
                        money,
                        fee_text,
                        fee_text,
                        fee.get("currency") or (fill.get("product_id") or "-").split("-")[1],
                        network.get("network_name"),
                        network.get("hash"),
                        fill.get("order_id"),
                        (r.get("trade") or {}).get("id"),
                        json.dumps(r),
                    )


CREATE_TABLE_AS = f"""
CREATE OR REPLACE TABLE plain AS
WITH pages AS MATERIALIZED (
    SELECT row_number() OVER () AS page_id, 'coinbase' AS source, 'main' AS account, endpoint,
           params::JSON AS params, ({QUOTED_BODY})::JSON AS body,
           as_of::TIMESTAMP AS as_of
    FROM read_json(?, format = 'newline_delimited', compression = 'zstd',
        maximum_object_size = 268435456, columns = {{kind: 'VARCHAR', endpoint: 'VARCHAR',
        params: 'VARCHAR', body: 'VARCHAR', as_of: 'VARCHAR'}})
    WHERE kind = 'page'
), records_wallets AS ({SOURCES["coinbase"].records["wallets"].select()}
), records_ledger AS ({SOURCES["coinbase"].records["ledger"].select()}
), mapped AS MATERIALIZED ({SOURCES["coinbase"].mappings["exchanges_ledger"]})
SELECT * EXCLUDE (page_id, item) FROM mapped
"""


def rows(
    records: int = 100_000,
    repeats: int = 5,
    dlt_repeats: int = 3,
    memory: tuple[int, int] | None = (100_000, 1_000_000),
) -> list[dict]:
    """The table's rows on loading; a smaller `records` says nothing but runs in a moment."""
    with tempfile.TemporaryDirectory(dir=bench_var()) as folder:
        work = Path(folder)
        source = landed(work / "source", records, max(1, records // RECORDS_A_FILE))
        found = [
            *(against_dlt(work, source, records, dlt_repeats) if dlt_repeats else []),
            *against_pandas(work, source, records, repeats),
            against_create_table_as(work, source, records, repeats),
        ]
    if memory:
        found.append(memory_row(*memory))
    return found


def _new(kind, work: Path, source: Path, records: int) -> float:
    """Seconds to load into an empty warehouse (making it is not timed)."""
    loader = kind(work, source, records)
    try:
        return seconds(loader.load)
    finally:
        loader.close()


def against_dlt(work: Path, source: Path, records: int, repeats: int) -> list[dict]:
    what = f"load {records:,} records from landing against dlt's default merge into DuckDB"
    if not DLT_PYTHON.exists():
        return [row(what, "dlt is not installed: run `make bench`", "20×", "40×", None, "")]
    files = [str(file) for file in landing.waiting(source)]

    def dlt() -> float:
        shutil.rmtree(work / "dlt", ignore_errors=True)
        (work / "dlt").mkdir()
        done = subprocess.run(
            [
                str(DLT_PYTHON),
                str(Path(__file__).with_name("dlt_load.py")),
                str(work / "dlt"),
                *files,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"dlt failed: {done.stderr[-2000:]}")
        report = json.loads(done.stdout.splitlines()[-1])
        if report["rows"] != records:
            raise RuntimeError(f"dlt loaded {report['rows']} rows of {records}")
        return report["seconds"]

    _new(Ours, work, source, records)  # imports
    times = interleaved(repeats, ours=lambda: _new(Ours, work, source, records), dlt=dlt)
    faster = ratio(times["dlt"], times["ours"])
    tell(f"dlt: {faster:.1f}×; {times}")
    return [
        row(
            what,
            f"**{faster:.1f}×**: {spread(times['ours'])} against {spread(times['dlt'])}",
            "20×",
            "40×",
            faster >= 20,
            f"The same landing files ({RECORDS_A_FILE:,} Coinbase records each) into an empty file; dlt "
            f"reads them with zstandard and json and merges by primary key; {repeats} rounds in turn. "
            f"dlt as pinned in tests/benchmarks/requirements.txt, with duckdb {version('duckdb')} on "
            "both sides; imports and the making of dlt's pipeline are not timed",
        )
    ]


def against_pandas(work: Path, source: Path, records: int, repeats: int) -> list[dict]:
    ours, theirs = Ours(work, source, records), Pandas(work, source, records)
    ours.load(), theirs.load()
    again = interleaved(
        repeats, ours=lambda: seconds(ours.load), pandas=lambda: seconds(theirs.load)
    )
    ours.close(), theirs.close()
    empty = interleaved(
        repeats,
        ours=lambda: _new(Ours, work, source, records),
        pandas=lambda: _new(Pandas, work, source, records),
    )
    found = []
    for times, into, least, text in (
        (empty, "empty table", 2, "2×"),
        (again, "all duplicates", 3, "3×"),
    ):
        faster = ratio(times["pandas"], times["ours"])
        tell(f"pandas, {into}: {faster:.2f}×; {times}")
        found.append(
            row(
                f"the same against pandas → CSV → INSERT OR REPLACE with a primary key, {into}",
                f"**{faster:.1f}×**: {spread(times['ours'])} against {spread(times['pandas'])}",
                text,
                "5×",
                faster >= least,
                "The naive load reads the same files with zstandard and json, builds a DataFrame of "
                f"the same columns, writes a CSV and replaces by key; {repeats} rounds in turn",
            )
        )
    return found


def against_create_table_as(work: Path, source: Path, records: int, repeats: int) -> dict:
    files = [str(file) for file in landing.waiting(source)]

    def plain() -> float:
        con = connect(work / "plain.duckdb")
        try:
            return cpu_seconds(lambda: con.execute(CREATE_TABLE_AS, [files]))
        finally:
            con.close()
            (work / "plain.duckdb").unlink()

    def audited() -> float:
        loader = Ours(work, source, records)
        try:
            return cpu_seconds(loader.load)
        finally:
            loader.close()

    times = interleaved(repeats, plain=plain, audited=audited)
    share = 100 * ratio(times["plain"], times["audited"])
    tell(f"CREATE TABLE AS: {share:.0f} %; {times}")
    return row(
        "audited upsert against CREATE TABLE AS of the same rows (CPU)",
        f"**{share:.0f} %**: {spread(times['audited'])} against {spread(times['plain'])} of CPU",
        "40 %",
        "60 %",
        share >= 40,
        f"Records per CPU second of a whole load of {records:,} from landing (merge, history, "
        "coverage, touched days, uniqueness, one commit, files archived) as a share of those of "
        "one CREATE TABLE AS of the ledger mapping over the same files, parsed and gathered the same way; CPU of "
        f"all threads; {repeats} rounds in turn",
    )


LOAD = """
import sys, pathlib
from tests.benchmarks.bench_load import Ours
work, source, records = sys.argv[1:]
Ours(pathlib.Path(work), pathlib.Path(source), int(records)).load()
"""


def memory_row(few: int, many: int) -> dict:
    peaks: dict[str, list[float]] = {}
    for name, records in (("few", few), ("many", many)):
        source = landed(bench_var() / f"landing-{records}", records, records // RECORDS_A_FILE)
        for _ in range(3):
            with tempfile.TemporaryDirectory(dir=bench_var()) as work:
                peaks.setdefault(name, []).append(peak_mb(LOAD, work, str(source), str(records)))
    growth = median(peaks["many"]) / median(peaks["few"])
    tell(f"memory: {growth:.2f}×; {peaks}")
    return row(
        f"peak memory loading {many:,} records against {few:,}",
        f"**{growth:.2f}×**: {median(peaks['many']):.0f} MB against {median(peaks['few']):.0f} MB",
        "≤ 1.2×",
        "",
        growth <= 1.2,
        f"Peak resident memory of a fresh process that loads a landing of fetches of "
        f"{RECORDS_A_FILE:,} records; median of 3",
    )
