"""Sums by whole days and single legs are those of all legs, whatever falls on which day."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from decimal import Decimal, localcontext

import duckdb
import pytest

from ledgerhouse.transform import openings
from ledgerhouse.transform.openings import forbidden
from ledgerhouse.transform.residuals import PRECISION, Residual, residuals
from ledgerhouse.transform.whole_days import MAX_SPANS, odd_legs
from ledgerhouse.warehouse.schema import create_all

BEGIN, HOUR, DAY = datetime(2024, 3, 1), timedelta(hours=1), timedelta(days=1)
ACCOUNTS = (("coinbase", "main"), ("debank", "0xab"))
TOKENS = {"main": ("BTC", "EUR", ""), "0xab": ("eth:eth", "eth:0x1", "eth:0xspam")}
COLUMNS = (
    "domain, source, account, ts, kind, token, amount, amount_text, amount_wide, is_overflow, "
    "is_settled, is_scam, counts"
)
# As the model curated.daily_flows has them.
FLOWS = """
    SELECT CAST(ts AS DATE) AS date, source, account, coalesce(token, '') AS token,
        sum(amount) FILTER (counts) AS net,
        sum(abs(amount)) FILTER (counts) AS turnover,
        count(*) FILTER (counts) AS legs,
        count(*) FILTER (is_overflow AND is_settled AND NOT is_scam AND kind <> 'nft')
            AS overflow_legs,
        count(*) FILTER (NOT is_settled AND NOT is_scam AND kind <> 'nft') AS unsettled_legs,
        count(*) FILTER (is_scam) AS scam_legs,
        count(*) FILTER (is_settled AND NOT is_scam AND kind <> 'nft' AND amount_wide IS NULL)
            AS unknown_legs
    FROM curated.tx_unified GROUP BY ALL"""


def leg(rng: random.Random, source: str, account: str) -> tuple:
    """A row of tx_unified: of any kind, and of amounts that fit, do not, or are not known."""
    token = rng.choice(TOKENS[account])
    is_spam = token.endswith("spam") and rng.random() < 0.9
    text = rng.choice(
        [f"{rng.randrange(-9, 9)}.{rng.randrange(10**18):018d}"] * 12 + ["9e22", None]
    )
    wide = amount = None if text is None else Decimal(text)
    if amount is not None and abs(amount) >= 10**20:
        amount, text = None, f"{wide:f}"
    kind = rng.choice(["trade"] * 8 + ["nft"] if ":" in token else ["trade"])
    is_adjustment = amount is not None and rng.random() < 0.05
    is_settled, is_scam = rng.random() < 0.9, not is_adjustment and is_spam
    if is_adjustment:
        kind, is_settled = "adjustment", True
    domain = "adjustment" if is_adjustment else "onchain" if ":" in token else "exchange"
    counts = is_settled and not is_scam and amount is not None and kind != "nft"
    hours = rng.choice([rng.randrange(24 * 12), 24 * rng.randrange(12)])  # often at midnight
    return (
        *(domain, source, account, BEGIN + hours * HOUR, kind, token or None, amount, text, wide),
        *(amount is None and text is not None, is_settled, is_scam, counts),
    )


@pytest.fixture(scope="module")
def con():
    with duckdb.connect() as con:
        create_all(con)
        con.execute("CREATE SCHEMA IF NOT EXISTS curated")
        con.execute(
            "CREATE TABLE curated.tx_unified (domain VARCHAR, source VARCHAR, account VARCHAR, "
            "ts TIMESTAMP, kind VARCHAR, token VARCHAR, amount DECIMAL(38, 18), "
            "amount_text VARCHAR, amount_wide DECIMAL(38, 6), is_overflow BOOLEAN, "
            "is_settled BOOLEAN, is_scam BOOLEAN, counts BOOLEAN)"
        )
        yield con


def fill(con: duckdb.DuckDBPyConnection, rows: list[tuple]) -> None:
    for table in ("curated.tx_unified", "raw.adjustments", "raw.balances"):
        con.execute(f"DELETE FROM {table}")
    con.executemany(
        f"INSERT INTO curated.tx_unified ({COLUMNS}) VALUES ({', '.join('?' * 13)})", rows
    )
    con.execute(f"CREATE OR REPLACE TABLE curated.daily_flows AS {FLOWS}")
    con.execute(
        "INSERT INTO raw.adjustments (adjustment_id, source, account, token, ts, kind, amount_text, "
        "evidence, recorded_at) SELECT row_number() OVER ()::VARCHAR, source, account, "
        "coalesce(token, ''), ts, 'entry', amount_text, '', ts FROM curated.tx_unified "
        "WHERE domain = 'adjustment'"
    )


def expected(rows: list[tuple], key: tuple, ts: datetime, bare: bool) -> Residual:
    """What moved before `ts`, leg by leg."""
    computed, turnover, lost = Decimal(0), Decimal(0), 0
    for domain, source, account, at, kind, token, _, text, wide, _, settled, scam, _ in rows:
        if (source, account, token) != key or at >= ts or (bare and domain == "adjustment"):
            continue
        if settled and not scam and kind != "nft":
            if text is None:
                lost += 1
            else:
                with localcontext(prec=PRECISION):
                    computed, turnover = computed + wide, turnover + abs(wide)
    return Residual(ts, Decimal(0), computed, turnover, lost, ":" in key[2])


@pytest.mark.parametrize("seed", range(12))
def test_residuals_are_those_of_every_leg(con, seed):
    rng = random.Random(seed)
    rows = [leg(rng, *who) for who in ACCOUNTS for _ in range(rng.choice([5, 150]))]
    fill(con, rows)
    tokens = [(*who, token) for who in ACCOUNTS for token in TOKENS[who[1]]]
    instants = {
        who: sorted({BEGIN + rng.choice([1, 24]) * n * HOUR for n in rng.sample(range(13), 4)})
        for who in ACCOUNTS
    }
    for bare in (False, True):
        found = residuals(con, tokens, instants, bare=bare)
        assert found == {
            key: [expected(rows, key, ts, bare) for ts in instants[key[:2]]] for key in tokens
        }


@pytest.mark.parametrize("seed", range(12))
def test_an_opening_is_forbidden_as_by_every_leg(con, seed, monkeypatch):
    rng = random.Random(100 + seed)
    rows = [leg(rng, *who) for who in ACCOUNTS for _ in range(rng.choice([4, 12, 60]))]
    fill(con, rows)
    ts = BEGIN + rng.choice([24 * 6, 24 * 6 + 5]) * HOUR
    for source, account in ACCOUNTS:
        con.executemany(
            "INSERT INTO raw.balances (source, account, wallet, token, ts, amount_text, amount, "
            "is_verified, row_hash, first_seen_at, changed_at, batch_id) "
            "VALUES (?, ?, '', ?, ?, '3', 3, ?, 0, now(), now(), '')",
            [
                (source, account, token, ts, rng.choice([None, True, False]))
                for token in TOKENS[account]
                if token
            ],
        )
    some = sorted(forbidden(con, dict.fromkeys(ACCOUNTS, ts)))

    every = openings.ODD.rpartition("WHERE date = first_day OR")[0]  # the same, of all days
    monkeypatch.setattr(openings, "ODD", every)
    assert some == sorted(forbidden(con, dict.fromkeys(ACCOUNTS, ts)))
    for source, account in ACCOUNTS:
        assert {t for *who, t, _, _ in some if who == [source, account]} >= set(TOKENS[account]) - {
            ""
        }


def test_a_whole_day_is_read_from_its_flows_and_only_the_rest_by_legs(con):
    who, rows = ACCOUNTS[0], []
    for hour in range(24 * 5):
        text = f"{hour + 1}.5"
        rows.append(
            ("exchange", *who, BEGIN + hour * HOUR, "trade", "BTC", Decimal(text), text)
            + (Decimal(text), False, True, False, True)
        )
    fill(con, rows)
    at = BEGIN + 3 * DAY + 5 * HOUR
    (before,) = residuals(con, [(*who, "BTC")], {who: [at]})[*who, "BTC"]
    assert before == expected(rows, (*who, "BTC"), at, bare=False)
    con.execute("DELETE FROM curated.tx_unified WHERE ts < ?", [BEGIN + 3 * DAY])
    assert residuals(con, [(*who, "BTC")], {who: [at]})[*who, "BTC"] == [before]
    con.execute("DELETE FROM curated.tx_unified WHERE ts = ?", [at - HOUR])
    (after,) = residuals(con, [(*who, "BTC")], {who: [at]})[*who, "BTC"]
    assert before.computed - after.computed == Decimal(3 * 24 + 5) + Decimal("0.5")


def test_more_odd_days_than_spans_are_read_all_the_same(con):
    rows = []
    for day in range(0, 2 * (MAX_SPANS + 10), 2):
        rows.append(
            ("exchange", *ACCOUNTS[0], BEGIN + day * DAY, "trade", "BTC", Decimal(1), "1")
            + (Decimal(1), False, True, False, True)
        )
    fill(con, rows)
    legs = odd_legs(con, "SELECT source, account, token, date FROM curated.daily_flows", {})
    assert con.execute(f"SELECT count(*) FROM {legs}").fetchone() == (len(rows),)
