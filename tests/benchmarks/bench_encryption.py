"""What encryption at rest costs: loading, and a cycle, with a key and without, side by side."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from extract.fetch import encryption
from ledgerhouse.operate.encrypting import encrypt
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.transform.touched_days import transform
from ledgerhouse.warehouse import schema
from ledgerhouse.warehouse.connection import connected
from tests.benchmarks.bench_load import RECORDS_A_FILE, Ours, landed
from tests.benchmarks.bench_scale import Cycles
from tests.benchmarks.history import History, fill, living_in, snapshot
from tests.benchmarks.measure import bench_var, interleaved, ratio, row, seconds, spread, tell

STEPS = ("load", "transform", "check", "publish")
MODULE = (
    "AES-256-GCM by DuckDB's own module, without httpfs, and by cryptography; the key is in the "
    "environment"
)


@contextmanager
def key() -> Iterator[None]:
    """A process with a key."""
    os.environ[encryption.KEY] = base64.b64encode(b"benchmark key, of no other use.."[:32]).decode()
    try:
        yield
    finally:
        del os.environ[encryption.KEY]


def under_key(work: Callable[[], float]) -> Callable[[], float]:
    def done() -> float:
        with key():
            return work()

    return done


def rows(records: int = 100_000, history: int = 1_000_000, repeats: int = 5) -> list[dict]:
    """The table's rows on encryption; small numbers say nothing but run in a moment."""
    with tempfile.TemporaryDirectory(dir=bench_var()) as folder:
        return [loading(Path(folder), records, repeats), cycle(Path(folder), history, repeats)]


def loading(work: Path, records: int, repeats: int) -> dict:
    files = max(1, records // RECORDS_A_FILE)
    sources = {"plain": landed(work / "plain", records, files)}
    with key():
        sources["encrypted"] = landed(work / "encrypted", records, files)

    def load(side: str) -> Callable[[], float]:
        (work / f"of-{side}").mkdir()  # one folder is either encrypted or not

        def timed() -> float:
            loader = Ours(work / f"of-{side}", sources[side], records)
            try:
                return seconds(loader.load)
            finally:
                loader.close()

        return timed

    sides = {"plain": load("plain"), "encrypted": under_key(load("encrypted"))}
    for side in sides.values():  # imports
        side()
    times = interleaved(repeats, **sides)
    slower = ratio(times["encrypted"], times["plain"])
    tell(f"loading: {slower:.2f}×; {times}")
    return row(
        f"load {records:,} records from an encrypted landing into an encrypted warehouse, "
        "against both in plain text",
        f"**{slower:.2f}×**: {spread(times['encrypted'])} against {spread(times['plain'])}",
        "≤ 1.5×",
        "≤ 1.1×",
        slower <= 1.5,
        f"{RECORDS_A_FILE:,} Coinbase records a file, into an empty warehouse; {MODULE}; {repeats} "
        "rounds in turn",
    )


def cycle(work: Path, history: int, repeats: int) -> dict:
    plain = History(work / "history", "", {})
    plain.var.mkdir()
    with living_in(plain):
        with connected(plain.path) as con:
            con.execute("SET enable_progress_bar = false")
            schema.create_all(con)
            fill(con, history)
        transform(plain.path, owner="bench")
        with connected(plain.path) as con:
            con.execute("DELETE FROM ops.touched_days")
            snapshot(con)
    sealed = History(Path(shutil.copytree(plain.var, work / "sealed")), "", {})
    took: dict[str, list[dict[str, float]]] = {"plain": [], "encrypted": []}

    def sync(side: str, cycles: Cycles) -> Callable[[], float]:
        def timed() -> float:
            took[side].append(cycles.sync())
            return sum(took[side][-1][step] for step in STEPS)

        return timed

    with key():
        encrypt(sealed.var, off=False, owner="bench")
    sides = {
        "plain": sync("plain", Cycles(plain)),
        "encrypted": under_key(sync("encrypted", Cycles(sealed))),
    }
    for side in sides.values():  # the first publishes the whole history
        side()
    times = interleaved(repeats, **sides)
    slower = ratio(times["encrypted"], times["plain"])
    sizes = [(each.var / FILE).stat().st_size / 1e6 for each in (sealed, plain)]
    steps = ", ".join(
        f"{step} {median(one[step] for one in took['encrypted'][1:]):.2f} s against "
        f"{median(one[step] for one in took['plain'][1:]):.2f} s"
        for step in STEPS
    )
    tell(f"a cycle: {slower:.2f}×; {times}; {steps}; {sizes} MB")
    return row(
        f"database work of one sync cycle at {history:,} of history, encrypted against plain text",
        f"**{slower:.2f}×**: {spread(times['encrypted'])} against {spread(times['plain'])}: {steps}",
        "≤ 1.5×",
        "≤ 1.1×",
        slower <= 1.5,
        f"2,000 new rows loaded, transformed, checked and published, each step opening the file as "
        f"its task does; the models' state in the warehouse itself; {MODULE}; {repeats} rounds in "
        f"turn; files of {sizes[0]:.0f} MB and {sizes[1]:.0f} MB",
    )
