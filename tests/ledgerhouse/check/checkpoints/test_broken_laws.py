"""Every expectation passes on a clean warehouse, and each fails where its law is broken."""

from __future__ import annotations

import duckdb
import pytest

from extract.core.interval import Interval
from ledgerhouse.check import checkpoints
from ledgerhouse.check import suites as suites_module
from ledgerhouse.check.checkpoints import (
    failed_critical,
    record,
    recorded,
)
from tests.ledgerhouse.check.checkpoints.broken_curated import BROKEN_CURATED, DAY
from tests.ledgerhouse.check.checkpoints.broken_raw import BROKEN_RAW
from tests.ledgerhouse.check.checkpoints.clean import IN, INTERVAL, SWAP, failures, run

pytestmark = pytest.mark.slow  # importing Great Expectations alone takes 8 s

BROKEN = [*BROKEN_RAW, *BROKEN_CURATED]


def test_a_clean_warehouse_passes_every_expectation(warehouse):
    results = run(warehouse())
    assert [str(r) for r in results if not r.success] == []
    assert len(results) >= 16
    assert len({r.checkpoint for r in results}) == 11
    assert len({(r.checkpoint, r.expectation) for r in results}) == len(results)


@pytest.mark.parametrize(
    "table, expectation, severity, sql, also",
    BROKEN,
    ids=[f"{table}-{name}-{n}" for n, (table, name, *_) in enumerate(BROKEN)],
)
def test_a_broken_law_is_caught(warehouse, only, table, expectation, severity, sql, also):
    only(table)
    results = run(warehouse(sql))
    assert (table, expectation, severity) in failures(results)
    assert {name for _, name, _ in failures(results)} == {expectation, *also}
    assert not any(r.error for r in results)
    (failed,) = [r for r in results if r.expectation == expectation]
    assert failed.unexpected_sample and not failed.observed.startswith("0 ")
    assert bool(failed_critical([failed])) == (severity == "critical")
    if severity == "critical" and table != "curated.assets":
        ((source, account),) = failed.accounts
        assert (source, account) in {("coinbase", "main"), ("debank", "0xme")}
    else:
        assert failed.accounts is None, "a warning holds back nobody; an asset is nobody's"


def test_a_failure_names_all_accounts_whose_rows_break_it_and_no_others(warehouse, only):
    only("raw.exchanges_ledger")
    sql = (
        "INSERT INTO raw.exchanges_ledger SELECT l.* REPLACE ('a' || i AS account, "
        "CASE WHEN i < 700 THEN NULL ELSE kind END AS kind) "
        f"FROM raw.exchanges_ledger l, range(900) t(i) WHERE {IN}"
    )
    path = warehouse(sql)
    (failed,) = failed_critical(run(path))
    assert set(failed.accounts) == {("coinbase", f"a{i}") for i in range(700)}
    with duckdb.connect(str(path)) as con:
        record(con, [failed], "r1", INTERVAL)
        assert recorded(con, "r1")[0].accounts == failed.accounts


def test_a_leg_whose_neighbour_was_rejected_holds_back_nobody(warehouse, only):
    only("raw.onchain_transfers")
    rejected = (
        "INSERT INTO raw.rejected VALUES ('debank', '0xme', 'onchain_transfers', 'e', 'f', 0, 1, "
        "'no token', '{}', TIMESTAMP '2026-01-02', 'b1'); "
    )
    assert not run_fails(warehouse, rejected)
    assert run_fails(warehouse, "")


def run_fails(warehouse, sql):
    return failed_critical(
        run(
            warehouse(f"{sql} DELETE FROM raw.onchain_transfers WHERE tx_id = '{SWAP}' AND leg = 1")
        )
    )


def test_every_expectation_has_a_row_that_breaks_it():
    broken = {(table, name) for table, name, *_ in BROKEN}
    broken.add(("curated.daily_balances", "balance_moves_by_net"))  # takes two days: below
    for suite in suites_module.suites(INTERVAL):
        for expectation in suite.expectations:
            name = expectation.meta["name"]
            assert (suite.table, name) in broken, f"nothing breaks {name} of {suite.table}: add it"


def test_balances_that_do_not_move_by_their_net_are_caught(warehouse, only):
    only("curated.daily_balances")
    path = warehouse(f"UPDATE curated.daily_balances SET balance = 7 WHERE {DAY}")
    two_days = Interval("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z")
    assert failures(run(path, two_days)) == {
        ("curated.daily_balances", "balance_moves_by_net", "critical")
    }


@pytest.mark.parametrize("seconds, paired", [(0, True), (60, True), (61, False)])
def test_the_entries_of_a_wrap_are_paired_by_their_time(warehouse, only, seconds, paired):
    only("curated.tx_unified")
    path = warehouse(
        "UPDATE curated.tx_unified SET ref = NULL WHERE txid IN ('e4', 'e5'); UPDATE "
        "curated.tx_unified SET ts = (SELECT ts FROM curated.tx_unified WHERE txid = 'e4') "
        f"+ INTERVAL {seconds} SECOND WHERE txid = 'e5'"
    )
    found = {r.expectation for r in run(path) if not r.success}
    assert ("conversions_paired" not in found) == paired


def test_counts_are_whole_where_samples_are_cut(warehouse, only):
    only("raw.exchanges_ledger")
    path = warehouse(
        "INSERT INTO raw.exchanges_ledger SELECT l.* REPLACE ('x' || i AS entry_id, "
        "NULL AS asset, NULL AS amount) FROM raw.exchanges_ledger l, range(5000) t(i) "
        f"WHERE {IN}"
    )
    failed = {r.expectation: r for r in run(path) if not r.success}
    assert failed["asset_present"].observed == "5000 of 5005 rows"
    assert failed["amounts_fit"].observed == "5000 rows"
    assert len(failed["amounts_fit"].unexpected_sample) == checkpoints.SAMPLE_ROWS
