"""Books of four accounts, made once, and the command line over them."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from extract.core.interval import iso, utc
from extract.sources import all_sources
from ledgerhouse.operate.commands import backfill as backfilling
from ledgerhouse.operate.commands import follow as following
from ledgerhouse.plan.estimate import Known, planned, simulate
from ledgerhouse.publish.publish import publish
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.transform.touched_days import transform
from ledgerhouse.warehouse.connection import open_warehouse
from sandbox.accounts import accounts_toml
from sandbox.server import serve
from tests.helpers.books import VENDORS, Books, Hurried
from tests.helpers.once import made_once
from tests.ledgerhouse.operate.commands.scene import (
    ACCOUNTS,
    BROKEN,
    DAY,
    HOLE,
    NOW,
    OTHER,
    SOURCES,
    START,
    TRIES,
)

RUN = "manual__of_these_tests"


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Books of four accounts, of which BROKEN has a hole; and what filling it really took."""
    made, known = made_once(tmp_path_factory, "commands", fill)
    var = tmp_path_factory.mktemp("commands") / "var"
    shutil.copytree(made, var)
    return SimpleNamespace(var=var, **known)


def fill(var) -> dict:
    """Make the books in `var`: the calls they took, what was tried, and the sandbox's truth."""
    with serve(seed=5, now=NOW, start=START) as url:
        url.app.lift_limits()
        books = Books(url, var / "landing", path=str(var / FILE), clock=Hurried())
        for account in ACCOUNTS:
            if account is BROKEN:
                books.sync(START, HOLE.start, accounts=[account])
                books.sync(HOLE.end, NOW, accounts=[account])
            else:
                books.sync(START, NOW, accounts=[account], snapshot=True)
        put_calls(books.con, books.calls)
        books.con.execute(
            "INSERT INTO ops.sync_runs BY NAME SELECT 'sync' AS dag_id, 'r1' AS run_id, "
            "'fetch_debank' AS task_id, 0 AS map_index, 1 AS try_number, 'debank' AS source, "
            "? AS account, 'failed' AS state, now()::TIMESTAMP AS started, 'HTTP 500 six times' AS "
            "error, now()::TIMESTAMP AS mirrored_at",
            [OTHER.account],
        )
        books.con.close()
        transform(var / FILE, owner="test")
        with open_warehouse(var / FILE, owner="test") as con:
            publish(con, var / "published", [], run_id=RUN)
        with TemporaryDirectory() as folder:
            return {
                "calls": list(books.calls),
                "tried": tried(url, var, Path(folder)),
                "truth": {at: url.world.balances(iso(at), NOW, SOURCES) for at in MIDNIGHTS},
            }


MIDNIGHTS = [utc(START) + n * DAY for n in (5, 20)]


def put_calls(con, calls) -> None:
    for call in calls:
        con.execute(
            "INSERT INTO ops.api_calls BY NAME SELECT ? AS call_id, ?::TIMESTAMPTZ::"
            "TIMESTAMP AS called_at, ? AS source, ? AS account, ? AS endpoint, "
            "0 AS duration_ms, ?::INTEGER AS units",
            [
                call["call_id"],
                str(call["called_at"]),
                call["source"],
                call["account"],
                call["endpoint"],
                call["units"],
            ],
        )


LATE = "2024-11-22 00:00"  # in "of late", as if OTHER had been read up to then, and by then


def tried(url, var, folder) -> dict[str, SimpleNamespace]:
    """Of each try: the jobs and costs estimated, and those of the runs then made, in a copy."""
    sources, results = all_sources(), {}
    for name, (intervals, accounts, refetch) in TRIES.items():
        path = folder / f"{name.replace(' ', '_')}.duckdb"
        shutil.copy(var / FILE, path)
        books = Books(url, folder / name, path=str(path), clock=Hurried())
        if name == "of late":
            books.con.execute(
                f"UPDATE ops.coverage SET end_ts = '{LATE}', read_at = '{LATE}' "
                "WHERE account = ? AND dataset NOT IN ('balances', 'positions')",
                [OTHER.account],
            )
        known = Known.read(books.con, sources, ACCOUNTS, utc(NOW))
        options = {"refetch": refetch}
        jobs = [[] for _ in intervals]
        for number, job in planned(known, sources, accounts, intervals, utc(NOW), **options):
            jobs[number].append(job)
        result = results[name] = SimpleNamespace(
            jobs=jobs,
            costs=simulate(known, sources, accounts, intervals, utc(NOW), **options),
            planned=[],
            paid=[],
        )
        for interval in intervals:
            before = len(books.calls)
            result.planned.append(
                books.plan(interval.start, interval.end, accounts, refetch=refetch)
            )
            books.sync(interval.start, interval.end, accounts=accounts, refetch=refetch)
            paid = {}
            for call in books.calls[before:]:
                calls, units = paid.get(call["source"], (0, 0))
                paid[call["source"]] = (calls + 1, units + call["units"])
            result.paid.append(paid)
        books.con.close()
    return results


@pytest.fixture
def airflow(kept, monkeypatch, capsys):
    """airflow("warehouse", "status", …) → (exit code, stdout, stderr), on these books."""
    from airflow.cli import cli_parser

    listed = kept.var / "accounts.toml"
    listed.write_text(accounts_toml(VENDORS[source] for source in SOURCES))
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(kept.var))
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(listed))

    def run(*argv: str):
        try:
            args = cli_parser.get_parser().parse_args(list(argv))
            args.func(args)
            code = 0
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def run(airflow, monkeypatch):
    """run(fake, "-s", …) → (exit code, stdout, stderr) of `airflow dags backfill`."""
    monkeypatch.setattr(backfilling, "POLL_S", 0)
    monkeypatch.setattr(following, "POLL_S", 0)

    def run(fake, *argv):
        monkeypatch.setattr(backfilling, "connect", lambda: fake)
        return airflow("dags", "backfill", *argv)

    return run
