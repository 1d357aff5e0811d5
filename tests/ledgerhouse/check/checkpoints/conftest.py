"""A clean warehouse to break, and one suite at a time."""

from __future__ import annotations

import shutil

import duckdb
import pytest

from ledgerhouse.check import suites as suites_module
from ledgerhouse.warehouse.schema import create_all
from tests.ledgerhouse.check.checkpoints.clean import FAILED, RECEIVED, SCAM, SWAP

RAW = f"""
INSERT INTO ops.batches BY NAME SELECT 'b1' AS batch_id, 'f' AS file, 'coinbase' AS source,
  'main' AS account, 'exchanges_ledger' AS dataset, 'r' AS run_id, 1 AS rows, 1 AS new,
  0 AS changed, 0 AS same, 0 AS stale, 0 AS removed, 0 AS vanished, TIMESTAMP '2026-01-02' AS loaded_at;

INSERT INTO raw.exchanges_ledger BY NAME
SELECT 'coinbase' AS source, 'main' AS account, entry_id, ts::TIMESTAMP AS ts, kind AS type, kind,
  settled AS is_settled, asset, amount AS amount_text, amount::DECIMAL(38, 18) AS amount,
  order_id, trade_id, 1 AS row_hash, ts::TIMESTAMP AS first_seen_at, ts::TIMESTAMP AS changed_at,
  'b1' AS batch_id
FROM (VALUES
  ('e0', '2026-01-01 10:00', 'deposit', true, 'ETH', '5', NULL, NULL),
  ('e1', '2026-01-02 06:00', 'deposit', true, 'BTC', '1.500000000000000001', NULL, NULL),
  ('e2', '2026-01-02 07:00', 'trade', true, 'BTC', '-0.5', 'o1', NULL),
  ('e3', '2026-01-02 07:00', 'trade', true, 'USD', '20000', 'o1', NULL),
  ('e4', '2026-01-02 11:59', 'conversion', true, 'ETH', '-1', NULL, 'c1'),
  ('e5', '2026-01-02 12:00', 'conversion', true, 'USDC', '3000', NULL, 'c1'),
  ('e6', '2026-01-02 08:00', 'deposit', false, 'BTC', '9', NULL, NULL),
  ('e7', '2026-01-03 01:00', 'reward', true, 'ETH', '0.01', NULL, NULL)
) AS t(entry_id, ts, kind, settled, asset, amount, order_id, trade_id);

INSERT INTO raw.exchanges_trades BY NAME
SELECT 'coinbase' AS source, 'main' AS account, 'BTC/USD' AS symbol, 't1' AS trade_id,
  TIMESTAMP '2026-01-02 07:00' AS ts, 'o1' AS order_id, 'sell' AS side, '40000' AS price_text,
  40000 AS price, '0.5' AS amount_text, 0.5 AS amount, 1 AS row_hash,
  ts AS first_seen_at, ts AS changed_at, 'b1' AS batch_id;

INSERT INTO raw.onchain_tokens BY NAME
SELECT 'debank' AS source, 'eth' AS chain, token, token AS symbol, decimals, true AS is_verified,
  1 AS row_hash, TIMESTAMP '2026-01-01' AS changed_at, 'b1' AS batch_id
FROM (VALUES ('eth', 18), ('0xusdc', 6)) AS t(token, decimals);

INSERT INTO raw.onchain_transactions BY NAME
SELECT 'debank' AS source, '0xme' AS account, 'eth' AS chain, tx_id, ts::TIMESTAMP AS ts,
  category, status, scam AS is_scam, pays AS pays_gas, gas AS gas_text,
  gas::DECIMAL(38, 18) AS gas, 1 AS row_hash, ts::TIMESTAMP AS first_seen_at,
  ts::TIMESTAMP AS changed_at, 'b1' AS batch_id
FROM (VALUES
  ('{RECEIVED}', '2026-01-01 09:00', 'receive', 1, false, false, NULL),
  ('{SWAP}', '2026-01-02 09:00', NULL, 1, false, true, '0.002'),
  ('{SCAM}', '2026-01-02 09:30', 'receive', NULL, true, false, NULL),
  ('{FAILED}', '2026-01-02 10:00', NULL, 0, false, true, '0.001')
) AS t(tx_id, ts, category, status, scam, pays, gas);

INSERT INTO raw.onchain_transfers BY NAME
SELECT 'debank' AS source, '0xme' AS account, 'eth' AS chain, tx_id, direction, leg,
  ts::TIMESTAMP AS ts, token, amount AS amount_text, amount::DECIMAL(38, 18) AS amount,
  scam AS is_scam, settled AS is_settled, 1 AS row_hash, ts::TIMESTAMP AS first_seen_at,
  ts::TIMESTAMP AS changed_at, 'b1' AS batch_id
FROM (VALUES
  ('{RECEIVED}', 'in', 1, '2026-01-01 09:00', 'eth', '10', false, true),
  ('{SWAP}', 'out', 1, '2026-01-02 09:00', 'eth', '1', false, true),
  ('{SWAP}', 'out', 2, '2026-01-02 09:00', 'eth', '0.5', false, true),
  ('{SWAP}', 'in', 1, '2026-01-02 09:00', '0xusdc', '3999.999999999998', false, true),
  ('{SCAM}', 'in', 1, '2026-01-02 09:30', '0xspam', '1000000', true, true),
  ('{FAILED}', 'out', 1, '2026-01-02 10:00', 'eth', '3', false, false)
) AS t(tx_id, direction, leg, ts, token, amount, scam, settled);

INSERT INTO raw.balances BY NAME
SELECT 'coinbase' AS source, 'main' AS account, 'w1' AS wallet, 'BTC' AS token,
  TIMESTAMP '2026-01-02 11:00' AS ts, '1.000000000000000001' AS amount_text,
  1.000000000000000001 AS amount, 1 AS row_hash, ts AS first_seen_at, ts AS changed_at,
  'b1' AS batch_id;

INSERT INTO raw.adjustments BY NAME
SELECT 'a1' AS adjustment_id, 'debank' AS source, '0xme' AS account, 'eth:0xold' AS token,
  TIMESTAMP '2026-01-02 08:00' AS ts, 'opening_inferred' AS kind, '2' AS amount_text, 2 AS amount,
  'a snapshot' AS evidence, ts AS recorded_at;
"""

# What the models make of it, written down without them: the columns the suites read.
CURATED = """
CREATE SCHEMA curated;
CREATE TABLE curated.tx_unified AS
SELECT 'exchange' AS domain, source, account, '' AS chain, entry_id AS txid, 'entry' AS leg, ts,
  kind, asset AS token, asset AS symbol, amount, amount_text,
  amount_text::DECIMAL(38, 6) AS amount_wide, false AS is_overflow, is_settled,
  false AS is_scam, is_settled AS counts, coalesce(trade_id, order_id) AS ref
FROM raw.exchanges_ledger
UNION ALL
SELECT 'onchain', source, account, chain, tx_id, direction || ':' || leg, ts, 'trade',
  chain || ':' || token, token,
  (if(direction = 'in', 1, -1) * if(token = '0xusdc', round(amount, 6), amount))::DECIMAL(38, 18),
  if(direction = 'in', '', '-') || amount_text,
  (if(direction = 'in', 1, -1) * amount)::DECIMAL(38, 6),
  false, is_settled, is_scam, is_settled AND NOT is_scam, tx_id
FROM raw.onchain_transfers
UNION ALL
SELECT 'onchain', source, account, chain, tx_id, 'gas', ts, 'fee', 'eth:eth', 'eth', -gas,
  '-' || gas_text, -gas::DECIMAL(38, 6), false, true, is_scam, NOT is_scam, tx_id
FROM raw.onchain_transactions WHERE pays_gas
UNION ALL
SELECT 'adjustment', source, account, '', adjustment_id, 'entry', ts, kind, token, NULL, amount,
  amount_text, amount::DECIMAL(38, 6), false, true, false, true, evidence
FROM raw.adjustments;

CREATE TABLE curated.daily_flows AS
SELECT ts::DATE AS date, if(domain = 'adjustment', 'onchain', domain) AS domain, source, account, token,
  coalesce(sum(amount) FILTER (WHERE counts AND amount > 0), 0)::DECIMAL(38, 18) AS inflow,
  coalesce(-sum(amount) FILTER (WHERE counts AND amount < 0), 0)::DECIMAL(38, 18) AS outflow,
  (inflow - outflow)::DECIMAL(38, 18) AS net, (inflow + outflow)::DECIMAL(38, 18) AS turnover,
  net::DECIMAL(38, 6) AS net_wide, count(*) FILTER (WHERE counts) AS legs, 0 AS overflow_legs
FROM curated.tx_unified GROUP BY ALL;

CREATE TABLE curated.daily_balances AS
SELECT d::DATE AS date, k.domain, k.source, k.account, k.token,
  coalesce(f.net, 0)::DECIMAL(38, 18) AS net,
  sum(coalesce(f.net, 0)) OVER (PARTITION BY k.domain, k.source, k.account, k.token
                                ORDER BY d)::DECIMAL(38, 18) AS balance,
  balance::DECIMAL(38, 6) AS balance_wide, true AS is_exact
FROM (SELECT DISTINCT domain, source, account, token FROM curated.daily_flows WHERE legs > 0) k
CROSS JOIN generate_series(TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-04', INTERVAL 1 DAY) AS g(d)
LEFT JOIN curated.daily_flows f ON f.date = d::DATE AND f.domain = k.domain
  AND f.source = k.source AND f.account = k.account AND f.token = k.token;

CREATE TABLE curated.reconciliation AS
SELECT 'exchange' AS domain, 'coinbase' AS source, 'main' AS account, 'BTC' AS token,
  TIMESTAMP '2026-01-02 11:00' AS snapshot_ts, '1.000000000000000001' AS reported_text,
  '1.000000000000000001' AS computed_text, '0' AS difference_text,
  0::DECIMAL(38, 18) AS tolerance, true AS is_exact, 'exact' AS status;

CREATE TABLE curated.assets AS
SELECT DISTINCT token, symbol, symbol AS name, 18 AS decimals FROM curated.tx_unified;
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A warehouse in which everything holds; copy it before you break it."""
    path = tmp_path_factory.mktemp("clean") / "warehouse.duckdb"
    with duckdb.connect(str(path)) as con:
        create_all(con)
        con.execute(RAW)
        con.execute(CURATED)
    return path


@pytest.fixture
def warehouse(clean, tmp_path):
    """warehouse(sql) → the path of a copy of the clean warehouse after `sql`."""

    def make(sql: str = ""):
        path = tmp_path / "warehouse.duckdb"
        shutil.copyfile(clean, path)
        with duckdb.connect(str(path)) as con:
            con.execute(sql)
        return path

    return make


@pytest.fixture
def only(monkeypatch):
    """only(table): run that table's suite alone."""
    real = suites_module.suites

    def choose(*tables):
        monkeypatch.setattr(
            suites_module, "suites", lambda *bounds: [s for s in real(*bounds) if s.table in tables]
        )

    return choose
