"""Figures of statuses, held accounts and breaks; books of an older version lack them."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from ledgerhouse.check.agreement import agreed_share
from ledgerhouse.operate.ui import figures
from ledgerhouse.warehouse.schema import create_all

OLD = """
CREATE SCHEMA curated;
CREATE TABLE curated.assets (token VARCHAR, symbol VARCHAR, name VARCHAR, chain VARCHAR, is_verified BOOLEAN);
CREATE TABLE curated.reconciliation (source VARCHAR, account VARCHAR, token VARCHAR,
    reported_text VARCHAR, computed_text VARCHAR, difference_text VARCHAR, status VARCHAR,
    is_exact BOOLEAN, snapshot_ts TIMESTAMP);
CREATE TABLE main.published AS SELECT 1 AS generation, now()::TIMESTAMP AS published_at, 'r' AS run_id;
"""
NEW = """
ALTER TABLE curated.reconciliation ADD COLUMN kind VARCHAR;
ALTER TABLE curated.reconciliation ADD COLUMN reason VARCHAR;
ALTER TABLE curated.reconciliation ADD COLUMN since TIMESTAMP;
ALTER TABLE curated.reconciliation ADD COLUMN price DECIMAL(38,18);
ALTER TABLE curated.reconciliation ADD COLUMN residual_value DECIMAL(38,18);
"""


@pytest.fixture
def con():
    with duckdb.connect() as connection:
        create_all(connection)
        connection.execute(OLD)
        yield connection


def judged(con, token, status, reported="1", price=None, kind=None):
    con.execute(
        "INSERT INTO curated.reconciliation BY NAME SELECT 'debank' AS source, '0xa' AS account, "
        "? AS token, ? AS status, ? AS reported_text, ?::DECIMAL(38,18) AS price, ? AS kind, "
        "TIMESTAMP '2026-01-02' AS since, TIMESTAMP '2026-01-03' AS snapshot_ts",
        [token, status, reported, price, kind],
    )


def test_the_head_says_since_when_no_sync_has_come(con):
    con.execute(NEW)
    con.execute("ALTER TABLE curated.assets ADD COLUMN is_spam BOOLEAN")

    def silent(now: str, hours: int = 12):
        overview = figures.overview(
            con, Path("none"), datetime.fromisoformat(now), timedelta(hours=hours)
        )
        return overview["silent_hours"]

    assert silent("2026-03-01T00:00:00") == "12", "nothing was ever read"
    con.execute(
        "INSERT INTO ops.coverage BY NAME SELECT 'debank' AS source, '0xa' AS account, "
        "'onchain_transactions' AS dataset, TIMESTAMP '2026-01-01' AS start_ts, "
        "TIMESTAMP '2026-03-01 06:00' AS end_ts, end_ts AS read_at, 'end' AS reason, "
        "'r' AS run_id, 'b' AS batch_id, end_ts AS recorded_at"
    )
    assert silent("2026-03-01T18:00:00") is None
    assert silent("2026-03-01T18:00:01") == "12"
    assert silent("2026-03-01T18:00:01", 13) is None


def test_the_share_of_value_that_agrees_is_exact_and_never_rounded_up(con):
    con.execute(NEW)
    assert agreed_share(con) is None, "nothing has a price"
    judged(con, "a", "exact", "99999999999999999999.999999999999999999", "1000000")
    judged(con, "b", "explained", "1", "1e15", "spam")
    assert agreed_share(con) == Decimal(100)
    judged(con, "c", "off", "0.000000000000000001", "0.5")
    assert agreed_share(con) == Decimal("99.9"), "what is off is never rounded away"
    con.execute("DELETE FROM curated.reconciliation WHERE token = 'a'")
    assert agreed_share(con) == 0, "spam has no value, whatever its price"


def test_statuses_kinds_held_accounts_and_breaks_are_shown(con):
    con.execute(NEW)
    judged(con, "a", "exact")
    judged(con, "b", "explained", kind="rebase")
    judged(con, "c", "settling")
    judged(con, "d", "off")
    con.execute(
        "INSERT INTO ops.held_accounts VALUES ('debank', '0xa', '2026-01-02', 'r', 'raw.x law')"
    )
    con.execute(
        "INSERT INTO ops.breaks BY NAME SELECT 'debank' AS source, '0xa' AS account, unnest(["
        "'a', 'd']) AS token, TIMESTAMP '2026-01-02' AS first_bad_ts, first_bad_ts AS last_bad_ts, "
        "'1' AS step_text, '1' AS residual_text, 'unknown' AS suspect, '<b>' AS explanation, "
        "first_bad_ts AS found_at"
    )
    head = figures.overview(con, Path("/nowhere"))
    assert (head["agreed"], head["off"], head["balances"]) == (2, 1, 4)
    assert head["statuses"] == {"exact": 1, "explained": 1, "settling": 1, "off": 1}
    assert head["kinds"] == {"rebase": 1}
    (held,) = head["held"]
    assert (held["account"], held["since"][:10]) == ("0xa", "2026-01-02")
    found = figures.breaks(con)
    assert [(r["token"], r["status"]) for r in found["rows"]] == [("d", "off"), ("a", "exact")]
    assert found["total"] == 2 and found["rows"][0]["after"] is None
    rows = figures.reconciliation(con, "", "", "", 25, 0)["rows"]
    assert [r["status"] for r in rows] == ["off", "settling", "exact", "explained"]
    assert rows[3]["kind"] == "rebase" and rows[0]["since"][:10] == "2026-01-02"


def test_books_of_an_older_version_are_shown_without_them(con):
    con.execute("DROP TABLE ops.held_accounts; DROP TABLE ops.breaks")
    con.execute(
        "INSERT INTO curated.reconciliation BY NAME SELECT 'reconciled' AS status, 't' AS token"
    )
    head = figures.overview(con, Path("/nowhere"))
    assert (head["agreed"], head["balances"], head["share"]) == (1, 1, None)
    assert head["held"] == [] and head["kinds"] == {}
    assert figures.breaks(con) == {"rows": [], "total": 0}
    (row,) = figures.reconciliation(con, "", "", "", 25, 0)["rows"]
    assert (row["kind"], row["since"], row["value"]) == (None, None, None)
