"""Checkpoints: the checks of raw and curated before anybody reads them, by Great Expectations.

One checkpoint a table (`ledgerhouse.check.suites` says what each expects), bounded to the interval, so a
run reads a few days and not the history. Every expectation has a severity:

critical   a row is lost, doubled or wrong: its account's days are not published
warning    exactly as in the API response but worth a look (an unknown kind, an amount that does not fit)
info       worth knowing

A critical failure names the accounts whose rows broke it, all of them; what cannot be attributed
holds back everything (`ledgerhouse.publish.gate`).

Great Expectations calls a run failed on a warning alone, so the verdict here is made of severity
and success. An expectation that *raised* proved nothing and counts as a critical failure,
whatever its severity. **An empty interval is legal** and passes: no expectation asks for rows
(whether data is missing is coverage's question, answered by `ops.coverage`).

Great Expectations 1.24 has no DuckDB source: https://github.com/leonardovida/duckdb-sqlalchemy
and the listener below make it one. Importing it takes seconds, a run less than two.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.core.interval import UTC, Interval
from extract.fetch import encryption
from ledgerhouse.check.date_filter import temporary_table
from ledgerhouse.config import MEMORY_LIMIT
from ledgerhouse.process import gc_paused, quiet
from ledgerhouse.warehouse import encrypted
from ledgerhouse.warehouse.transaction import transaction

if TYPE_CHECKING:
    import duckdb

    from ledgerhouse.check.suites import Suite

log = logging.getLogger(__name__)

Account = tuple[str, str]  # source, account

SAMPLE_ROWS = 5  # unexpected rows quoted in a result
# Great Expectations reads 200 rows of a result at most, and asks for the whole batch only to
# learn its column names; DuckDB streams, so what is not fetched is never read.
BUFFERED_ROWS = 200
MOST_ACCOUNTS = 100_000  # that one expectation names; past it everybody is held


@dataclass(frozen=True)
class CheckResult:
    """One expectation of one run.

    `description` says in words what is expected; `observed` counts what was unexpected, in words;
    `unexpected_sample` is up to SAMPLE_ROWS of it, rows by column or the column's own values as
    text; `error` is the exception's message where the expectation raised, and then `severity` is
    critical and `success` false. `accounts` are those whose rows failed a critical expectation;
    None where that is not known: it raised, or its rows belong to no account.
    """

    checkpoint: str
    expectation: str
    severity: str
    success: bool
    observed: str | None = None
    unexpected_sample: tuple[Mapping[str, Any] | str, ...] = ()
    error: str | None = None
    description: str = ""
    accounts: tuple[Account, ...] | None = None

    def __str__(self) -> str:
        sample = map(_quote, self.unexpected_sample)
        observed = self.error or "; ".join([self.observed or "", *sample])
        verdict = "passed" if self.success else "FAILED"
        return f"{self.checkpoint}: {self.expectation} {verdict} ({self.severity}): {observed}"


def run_checkpoints(
    path: Path,
    interval: Interval,
    *,
    run_id: str,
    docs_dir: Path | None,
    keep: int = 20,
    spans: Sequence[Interval] = (),
) -> list[CheckResult]:
    """Run every checkpoint over `interval` and write its Data Docs; results in suite order.

    Several `spans`, disjoint parts of the interval, are all that is checked.

    The caller holds the warehouse file (`ledgerhouse.warehouse.connection.hold`) and has no connection to it
    open: the file is read read-only, and every handle is released on return, also by an error.
    Data Docs of the newest `keep` runs stay under `docs_dir`; None writes none. With an encryption
    key no result has a sample.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    from ledgerhouse.check import data_docs
    from ledgerhouse.check.suites import suites

    results = []
    with (
        gc_paused(),
        quiet("great_expectations"),
        _warehouse(gx, Path(path)) as (context, warehouse),
    ):
        for suite in suites(interval, spans):
            validation, error = _run(gx, context, warehouse, suite)
            results += _attribute(warehouse, suite, _judge(suite, validation, error))
    if encryption.current():  # samples are rows, and would be plain text in Data Docs and logs
        results = [replace(result, unexpected_sample=()) for result in results]
    if docs_dir is not None:
        data_docs.write(Path(docs_dir), run_id, interval, results, keep=keep, spans=spans)
    return results


def failed_critical(results: Iterable[CheckResult]) -> list[CheckResult]:
    """The results that hold back the days of accounts: critical expectations that failed."""
    return [r for r in results if not r.success and r.severity == "critical"]


def record(
    con: duckdb.DuckDBPyConnection, results: Iterable[CheckResult], run_id: str, interval: Interval
) -> None:
    """Write `results` as the rows of `run_id` in ops.checkpoints, in a transaction of its own."""
    rows = list(results)
    with transaction(con):
        con.execute("DELETE FROM ops.checkpoints WHERE run_id = ?", [run_id])
        con.execute(
            "INSERT INTO ops.checkpoints BY NAME SELECT $run AS run_id, "
            "unnest($checkpoint::VARCHAR[]) AS checkpoint, "
            "unnest($expectation::VARCHAR[]) AS expectation, "
            "unnest($severity::VARCHAR[]) AS severity, unnest($success::BOOLEAN[]) AS success, "
            "unnest($observed::VARCHAR[]) AS observed, unnest($accounts::VARCHAR[]) AS accounts, $start::TIMESTAMP AS start_ts, "
            "$end::TIMESTAMP AS end_ts, (now() AT TIME ZONE 'UTC')::TIMESTAMP AS checked_at",
            {
                "run": run_id,
                "checkpoint": [r.checkpoint for r in rows],
                "expectation": [r.expectation for r in rows],
                "severity": [r.severity for r in rows],
                "success": [r.success for r in rows],
                "observed": [r.error or r.observed for r in rows],
                "accounts": [None if r.accounts is None else json.dumps(r.accounts) for r in rows],
                "start": interval.start.astimezone(UTC).replace(tzinfo=None),
                "end": interval.end.astimezone(UTC).replace(tzinfo=None),
            },
        )


def recorded(con: duckdb.DuckDBPyConnection, run_id: str) -> list[CheckResult]:
    """The results of `run_id` as ops.checkpoints has them: without samples, an error is observed."""
    return [
        CheckResult(
            *row, accounts=None if accounts is None else tuple(map(tuple, json.loads(accounts)))
        )
        for *row, accounts in con.execute(
            "SELECT checkpoint, expectation, severity, success, observed, accounts "
            "FROM ops.checkpoints WHERE run_id = ? ORDER BY ALL",
            [run_id],
        ).fetchall()
    ]


@contextmanager
def _warehouse(gx: Any, path: Path) -> Iterator[tuple[Any, Any]]:
    """An ephemeral context and the warehouse as its data source; all handles closed at the end."""
    from duckdb_sqlalchemy import ConnectionWrapper, Dialect
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )
    from sqlalchemy import event
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy

    if not path.exists():
        raise FileNotFoundError(f"no warehouse at {path}: load something first")
    engines = set()

    def note_engine(conn):
        if conn.dialect.name == "duckdb":
            engines.add(conn.engine)

    def buffer_rows(conn, cursor, statement, parameters, context, executemany):
        # Great Expectations fetches after it has closed the connection.
        if conn.dialect.name == "duckdb" and getattr(cursor, "description", None):
            whole = conn.get_execution_options().get("whole_result", False)
            rows = cursor.fetchall() if whole else cursor.fetchmany(BUFFERED_ROWS)
            context.cursor_fetch_strategy = FullyBufferedCursorFetchStrategy(
                cursor, initial_buffer=rows
            )

    def open_encrypted(dialect, record, arguments, options):
        # The dialect opens a file by its path, which takes no key.
        if encrypted.is_encrypted(path):
            limit = {"memory_limit": MEMORY_LIMIT}
            return ConnectionWrapper(encrypted.connect(path, read_only=True, config=limit))
        return None

    event.listen(Dialect, "do_connect", open_encrypted)
    event.listen(Engine, "engine_connect", note_engine)
    event.listen(Engine, "after_cursor_execute", buffer_rows)
    try:
        context = gx.get_context(
            mode="ephemeral",
            project_config=DataContextConfig(
                store_backend_defaults=InMemoryStoreBackendDefaults(),
                progress_bars=ProgressBarsConfig(globally=False),
            ),
        )
        url = URL.create("duckdb", database=str(path.resolve()))
        yield (
            context,
            context.data_sources.add_or_update_sql(
                "warehouse",
                connection_string=url.render_as_string(),
                create_temp_table=False,
                kwargs={
                    "connect_args": {"read_only": True, "config": {"memory_limit": MEMORY_LIMIT}}
                },
            ),
        )
    finally:
        event.remove(Engine, "after_cursor_execute", buffer_rows)
        event.remove(Engine, "engine_connect", note_engine)
        event.remove(Dialect, "do_connect", open_encrypted)
        for engine in engines:
            engine.dispose()


def _run(gx: Any, context: Any, warehouse: Any, suite: Suite) -> tuple[Any, str | None]:
    """(the suite's validation result, None), or (None, why there is none)."""
    try:
        query = _materialize(warehouse, suite) if suite.materialized else suite.query
        batch = warehouse.add_query_asset(suite.table, query=query)
        expected = gx.ExpectationSuite(suite.table, expectations=list(suite.expectations))
        definition = gx.ValidationDefinition(
            name=suite.table,
            data=batch.add_batch_definition_whole_table("interval"),
            suite=context.suites.add(expected),
        )
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name=suite.table,
                validation_definitions=[context.validation_definitions.add(definition)],
                result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
            )
        )
        (validation,) = checkpoint.run().run_results.values()
        return validation, None
    except Exception as error:
        log.warning("checkpoint %s raised: %s", suite.table, error)
        return None, _first_line(error)


def _materialize(warehouse: Any, suite: Suite) -> str:
    """A query for the rows of `suite.query`, computed once into a temporary table.

    It belongs to the one connection in the pool that all expectations use in turn.
    """
    name = temporary_table(suite.table)
    with warehouse.get_execution_engine().engine.begin() as con:
        for variable, value in suite.variables.items():
            con.exec_driver_sql(f"SET VARIABLE {variable} = {value}")
        con.exec_driver_sql(f"CREATE TEMP TABLE {name} AS {suite.query}")
        for variable in suite.variables:
            con.exec_driver_sql(f"RESET VARIABLE {variable}")
    return f"SELECT * FROM {name}"


def _judge(suite: Suite, validation: Any, error: str | None) -> list[CheckResult]:
    """The results of a suite, in its order; what gave none or raised is a critical failure."""
    by_name = {}
    if validation is not None:
        by_name = {r.expectation_config.meta["name"]: r for r in validation.results}
    results = []
    for expectation in suite.expectations:
        name = expectation.meta["name"]
        check = CheckResult(
            suite.table,
            name,
            str(expectation.severity.value),
            False,
            description=expectation.description,
        )
        result = by_name.get(name)
        raised = error if result is None else _raised(result)
        if raised or result is None:
            check = replace(check, severity="critical", error=raised or "it gave no result")
        else:
            check = replace(check, success=bool(result.success), **_observed(result.result))
        results.append(check)
    return results


def _attribute(warehouse: Any, suite: Suite, results: list[CheckResult]) -> list[CheckResult]:
    """The results, the accounts of whose rows a failed critical one names.

    Great Expectations quotes 200 rows at most, so they are asked for again; None where a row has
    no account, or the rows cannot be selected.
    """
    offending = {e.meta["name"]: e.meta["offending"] for e in suite.expectations}
    batch = f"(FROM {temporary_table(suite.table)})" if suite.materialized else f"({suite.query})"
    attributed = []
    for result in results:
        query = offending[result.expectation]
        if not result.success and result.severity == "critical" and not result.error and query:
            try:
                with warehouse.get_execution_engine().engine.connect() as con:
                    con = con.execution_options(whole_result=True)
                    rows = con.exec_driver_sql(
                        "SELECT DISTINCT source, account FROM "
                        f"({query.format(batch=batch)}) ORDER BY ALL LIMIT {MOST_ACCOUNTS}"
                    ).fetchall()
            except Exception as error:
                log.warning("%s: %s: %s", result.checkpoint, result.expectation, error)
                rows = []
            accounts = tuple((source, account) for source, account in rows)
            if accounts and len(accounts) < MOST_ACCOUNTS and all(s and a for s, a in accounts):
                result = replace(result, accounts=accounts)
        attributed.append(result)
    return attributed


def _raised(result: Any) -> str | None:
    """The message of the exception that kept an expectation from being judged, or None."""
    info = result.exception_info or {}
    # One exception, or one for each metric that raised, by the metric's id.
    for exception in [info] if "raised_exception" in info else info.values():
        if exception.get("raised_exception"):
            return _first_line(exception.get("exception_message")) or "it raised"
    return None


def _observed(result: Mapping[str, Any]) -> dict[str, Any]:
    """What was unexpected, as fields of a CheckResult."""
    if "unexpected_count" in result:
        count, sample = result["unexpected_count"], result["partial_unexpected_list"]
        observed = f"{count} of {result['element_count']} rows"
    else:
        sample = result.get("details", {}).get("unexpected_rows", [])
        observed = f"{result.get('observed_value')} rows"
    return {
        "observed": observed,
        "unexpected_sample": tuple(
            row if isinstance(row, Mapping) else str(row) for row in sample[:SAMPLE_ROWS]
        ),
    }


def _quote(row: Mapping[str, Any] | str) -> str:
    if isinstance(row, str):
        return row
    return ", ".join(f"{column}={value}" for column, value in row.items())


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0][:500]
