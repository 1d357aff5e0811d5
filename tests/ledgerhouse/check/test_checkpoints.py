"""Every expectation passes on a clean warehouse and fails, at its severity, on its own row."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html import unescape

import duckdb
import pytest

from extract.core.interval import Interval
from ledgerhouse.check import checkpoints, data_docs
from ledgerhouse.check import suites as suites_module
from ledgerhouse.check.checkpoints import (
    CheckResult,
    failed_critical,
    record,
    recorded,
    run_checkpoints,
)
from ledgerhouse.warehouse.schema import create_all

pytestmark = pytest.mark.slow  # importing Great Expectations alone takes 8 s

INTERVAL = Interval("2026-01-02T06:00:00Z", "2026-01-02T12:00:00Z")
SWAP, RECEIVED, SCAM, FAILED = ("0x" + c * 64 for c in "abcd")

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

# (table, expectation, severity, SQL that breaks it, what else that breaks in the same table)
IN = "entry_id = 'e2'"  # an entry within the interval
ROW = "txid = 'e2'"
LEG = f"txid = '{SWAP}' AND leg = 'out:2'"
DAY = "date = '2026-01-02' AND token = 'BTC'"
WEI = "0.000000000000000001"  # a literal with an exponent would be a DOUBLE
ADJUSTMENT = """
INSERT INTO raw.adjustments BY NAME SELECT 'a1' AS adjustment_id, 'coinbase' AS source,
  'main' AS account, 'BTC' AS token, TIMESTAMP '2026-01-02 07:00' AS ts, 'opening' AS kind,
  '1' AS amount_text, 1 AS amount, 'x' AS evidence, TIMESTAMP '2026-01-02' AS recorded_at"""
BROKEN = [
    (
        "raw.exchanges_ledger",
        "keys_unique",
        "critical",
        f"INSERT INTO raw.exchanges_ledger FROM raw.exchanges_ledger WHERE {IN}",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "batch_known",
        "warning",
        f"UPDATE raw.exchanges_ledger SET batch_id = NULL WHERE {IN}",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "amounts_fit",
        "warning",
        f"UPDATE raw.exchanges_ledger SET amount_text = '1e40', amount = NULL WHERE {IN}",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "amounts_fit",
        "warning",
        f"UPDATE raw.exchanges_ledger SET fee_text = '1e40' WHERE {IN}",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "entry_id_present",
        "critical",
        "ALTER TABLE raw.exchanges_ledger ALTER entry_id DROP NOT NULL; "
        f"UPDATE raw.exchanges_ledger SET entry_id = NULL WHERE {IN}",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "asset_present",
        "warning",
        f"UPDATE raw.exchanges_ledger SET asset = NULL WHERE {IN}",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "kind_present",
        "critical",
        f"UPDATE raw.exchanges_ledger SET kind = NULL WHERE {IN}",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "is_settled_present",
        "critical",
        f"UPDATE raw.exchanges_ledger SET is_settled = NULL WHERE {IN}",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "kind_known",
        "critical",
        f"UPDATE raw.exchanges_ledger SET kind = 'gift' WHERE {IN}",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "kind_understood",
        "warning",
        f"UPDATE raw.exchanges_ledger SET kind = 'unknown' WHERE {IN}",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "settled_entries_have_amounts",
        "warning",
        f"UPDATE raw.exchanges_ledger SET amount_text = NULL, amount = NULL WHERE {IN}",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "running_balances_follow",
        "critical",
        "INSERT INTO ops.chain_breaks BY NAME SELECT 'coinbase' AS source, 'main' AS account, 'w' AS "
        "wallet, 'BTC' AS token, TIMESTAMP '2020-01-02' AS ts, 'e1' AS entry_id, '1' AS missing_text, "
        "'skipped' AS suspect, 'long ago' AS explanation, ts AS found_at, 'b1' AS batch_id",
        (),
    ),
    (
        "raw.exchanges_ledger",
        "running_balances_there",
        "warning",
        "INSERT INTO ops.running_balances BY NAME SELECT 'coinbase' AS source, 'main' AS account, "
        "'w' AS wallet, 'BTC' AS token, 'no running balance' AS status, 'amount' AS convention, "
        "TIMESTAMP '2026-01-02' AS first_ts, 'e1' AS opening_ref, first_ts AS last_ts, 'b1' AS "
        "batch_id",
        (),
    ),
    (
        "raw.exchanges_trades",
        "keys_unique",
        "critical",
        "INSERT INTO raw.exchanges_trades FROM raw.exchanges_trades",
        (),
    ),
    (
        "raw.exchanges_trades",
        "side_present",
        "warning",
        "UPDATE raw.exchanges_trades SET side = NULL",
        (),
    ),
    (
        "raw.exchanges_trades",
        "side_known",
        "warning",
        "UPDATE raw.exchanges_trades SET side = 'BUY'",
        (),
    ),
    (
        "raw.exchanges_trades",
        "price_text_present",
        "warning",
        "UPDATE raw.exchanges_trades SET price_text = NULL",
        (),
    ),
    (
        "raw.exchanges_trades",
        "price_in_range",
        "warning",
        "UPDATE raw.exchanges_trades SET price = 0",
        (),
    ),
    (
        "raw.exchanges_trades",
        "amount_in_range",
        "warning",
        "UPDATE raw.exchanges_trades SET amount = -0.000000000000000001",
        (),
    ),
    (
        "raw.exchanges_trades",
        "amounts_fit",
        "warning",
        "UPDATE raw.exchanges_trades SET cost_text = '1e40'",
        (),
    ),
    (
        "raw.onchain_transactions",
        "keys_unique",
        "critical",
        "INSERT INTO raw.onchain_transactions FROM raw.onchain_transactions",
        (),
    ),
    (
        "raw.onchain_transactions",
        "tx_id_well_formed",
        "warning",
        f"UPDATE raw.onchain_transactions SET tx_id = tx_id || '0' WHERE tx_id = '{SWAP}'",
        (),
    ),
    (
        "raw.onchain_transactions",
        "status_known",
        "warning",
        f"UPDATE raw.onchain_transactions SET status = 2 WHERE tx_id = '{SWAP}'",
        (),
    ),
    (
        "raw.onchain_transactions",
        "gas_in_range",
        "warning",
        f"UPDATE raw.onchain_transactions SET gas = -1 WHERE tx_id = '{SWAP}'",
        (),
    ),
    (
        "raw.onchain_transactions",
        "gas_told",
        "info",
        f"UPDATE raw.onchain_transactions SET gas_text = NULL WHERE tx_id = '{SWAP}'",
        (),
    ),
    (
        "raw.onchain_transactions",
        "amounts_fit",
        "warning",
        f"UPDATE raw.onchain_transactions SET gas = NULL WHERE tx_id = '{SWAP}'",
        (),
    ),
    (
        "raw.onchain_transfers",
        "keys_unique",
        "critical",
        "INSERT INTO raw.onchain_transfers FROM raw.onchain_transfers "
        f"WHERE tx_id = '{SWAP}' AND direction = 'in'",
        ("legs_without_gaps",),
    ),
    (
        "raw.onchain_transfers",
        "tx_id_well_formed",
        "warning",
        f"UPDATE raw.onchain_transfers SET tx_id = 'abc' WHERE tx_id = '{SCAM}'",
        ("transaction_there",),
    ),
    (
        "raw.onchain_transfers",
        "token_present",
        "warning",
        f"UPDATE raw.onchain_transfers SET token = NULL WHERE tx_id = '{SCAM}'",
        (),
    ),
    (
        "raw.onchain_transfers",
        "amount_text_present",
        "warning",
        f"UPDATE raw.onchain_transfers SET amount_text = NULL WHERE tx_id = '{SCAM}'",
        (),
    ),
    (
        "raw.onchain_transfers",
        "direction_known",
        "critical",
        f"UPDATE raw.onchain_transfers SET direction = 'up' WHERE tx_id = '{SCAM}'",
        (),
    ),
    (
        "raw.onchain_transfers",
        "direction_present",
        "critical",
        "ALTER TABLE raw.onchain_transfers ALTER direction DROP NOT NULL; "
        f"UPDATE raw.onchain_transfers SET direction = NULL WHERE tx_id = '{SCAM}'",
        (),
    ),
    (
        "raw.onchain_transfers",
        "leg_in_range",
        "critical",
        f"UPDATE raw.onchain_transfers SET leg = 0 WHERE tx_id = '{SCAM}'",
        ("legs_without_gaps",),
    ),
    (
        "raw.onchain_transfers",
        "amount_in_range",
        "warning",
        f"UPDATE raw.onchain_transfers SET amount = -1 WHERE tx_id = '{SCAM}'",
        (),
    ),
    (
        "raw.onchain_transfers",
        "legs_without_gaps",
        "critical",
        f"DELETE FROM raw.onchain_transfers WHERE tx_id = '{SWAP}' AND leg = 1",
        (),
    ),
    (
        "raw.onchain_transfers",
        "transaction_there",
        "critical",
        f"DELETE FROM raw.onchain_transactions WHERE tx_id = '{SCAM}'",
        (),
    ),
    (
        "raw.onchain_transfers",
        "transaction_there",
        "critical",
        f"UPDATE raw.onchain_transactions SET ts = ts + INTERVAL 1 SECOND WHERE tx_id = '{SCAM}'",
        (),
    ),
    (
        "raw.onchain_transfers",
        "amounts_fit",
        "warning",
        f"UPDATE raw.onchain_transfers SET amount = NULL WHERE tx_id = '{SCAM}'",
        (),
    ),
    ("raw.balances", "keys_unique", "critical", "INSERT INTO raw.balances FROM raw.balances", ()),
    (
        "raw.balances",
        "amount_text_present",
        "warning",
        "UPDATE raw.balances SET amount_text = NULL",
        (),
    ),
    (
        "raw.balances",
        "amount_in_range",
        "warning",
        "UPDATE raw.balances SET amount = -0.000000000000000001",
        (),
    ),
    ("raw.balances", "amounts_fit", "warning", "UPDATE raw.balances SET amount = NULL", ()),
    (
        "raw.adjustments",
        "keys_unique",
        "critical",
        "INSERT INTO raw.adjustments FROM raw.adjustments",
        (),
    ),
    (
        "raw.adjustments",
        "token_present",
        "critical",
        "ALTER TABLE raw.adjustments ALTER token DROP NOT NULL; "
        "UPDATE raw.adjustments SET token = NULL",
        (),
    ),
    (
        "raw.adjustments",
        "amount_present",
        "warning",
        "UPDATE raw.adjustments SET amount = NULL",
        (),
    ),
    (
        "curated.tx_unified",
        "adjustments_complete",
        "critical",
        "DELETE FROM curated.tx_unified WHERE domain = 'adjustment'",
        (),
    ),
    (
        "curated.tx_unified",
        "nothing_invented",
        "critical",
        "UPDATE raw.adjustments SET amount_text = '3'",
        ("adjustments_complete",),
    ),
    (
        "curated.reconciliation",
        "adjustments_apply",
        "warning",
        "INSERT INTO ops.breaks BY NAME SELECT 'coinbase' AS source, 'main' AS account, 'BTC' AS "
        "token, TIMESTAMP '2026-01-02' AS first_bad_ts, first_bad_ts AS last_bad_ts, '1' AS "
        "step_text, '0' AS residual_text, 'adjustment' AS suspect, 'refused' AS explanation, "
        "first_bad_ts AS found_at",
        (),
    ),
    (
        "curated.tx_unified",
        "keys_unique",
        "critical",
        f"INSERT INTO curated.tx_unified FROM curated.tx_unified WHERE {ROW}",
        ("exchange_sums_kept",),
    ),
    (
        "curated.tx_unified",
        "domain_known",
        "critical",
        f"UPDATE curated.tx_unified SET domain = 'bank' WHERE {LEG}",
        ("legs_complete",),
    ),
    (
        "curated.tx_unified",
        "kind_present",
        "critical",
        f"UPDATE curated.tx_unified SET kind = NULL WHERE {ROW}",
        (),
    ),
    (
        "curated.tx_unified",
        "kind_known",
        "critical",
        f"UPDATE curated.tx_unified SET kind = 'gift' WHERE {ROW}",
        (),
    ),
    (
        "curated.tx_unified",
        "adjustments_complete",
        "critical",
        ADJUSTMENT,
        (),
    ),
    (
        "curated.tx_unified",
        "nothing_invented",
        "critical",
        "INSERT INTO curated.tx_unified SELECT * REPLACE ('adjustment' AS domain, "
        f"'opening' AS kind) FROM curated.tx_unified WHERE {ROW}",
        (),
    ),
    (
        "curated.tx_unified",
        "only_final_known_amounts_count",
        "critical",
        f"UPDATE curated.tx_unified SET kind = 'nft' WHERE {LEG}",
        (),
    ),
    (
        "curated.tx_unified",
        "token_present",
        "warning",
        f"UPDATE curated.tx_unified SET token = NULL WHERE {LEG}",
        (),
    ),
    (
        "curated.tx_unified",
        "counts_present",
        "critical",
        f"UPDATE curated.tx_unified SET counts = NULL WHERE {LEG}",
        ("only_final_known_amounts_count",),
    ),
    (
        "curated.tx_unified",
        "entries_complete",
        "critical",
        "DELETE FROM curated.tx_unified WHERE txid = 'e6'",
        (),
    ),
    (
        "curated.tx_unified",
        "entries_complete",
        "critical",
        "UPDATE curated.tx_unified SET ts = NULL WHERE txid = 'e6'",
        (),
    ),
    (
        "curated.tx_unified",
        "legs_complete",
        "critical",
        f"DELETE FROM curated.tx_unified WHERE {LEG}",
        (),
    ),
    (
        "curated.tx_unified",
        "legs_complete",
        "critical",
        f"DELETE FROM curated.tx_unified WHERE txid = '{FAILED}' AND leg = 'gas'",
        (),
    ),
    (
        "curated.tx_unified",
        "nothing_invented",
        "critical",
        f"INSERT INTO curated.tx_unified SELECT * REPLACE ('e9' AS txid, '0' AS amount_text, "
        f"0 AS amount) FROM curated.tx_unified WHERE {ROW}",
        (),
    ),
    (
        "curated.tx_unified",
        "nothing_invented",
        "critical",
        f"INSERT INTO curated.tx_unified SELECT * REPLACE ('out:3' AS leg) "
        f"FROM curated.tx_unified WHERE {LEG}",
        (),
    ),
    (
        "curated.tx_unified",
        "exchange_sums_kept",
        "critical",
        f"UPDATE curated.tx_unified SET amount = amount + 0.000000000000000001 WHERE {ROW}",
        (),
    ),
    (
        "curated.tx_unified",
        "transfer_amounts_kept",
        "critical",
        f"UPDATE curated.tx_unified SET amount = -amount WHERE {LEG}",
        (),
    ),
    (
        "curated.tx_unified",
        "transfer_amounts_kept",
        "critical",
        "UPDATE curated.tx_unified SET amount = 3999.999998 WHERE token = 'eth:0xusdc'",
        (),
    ),
    (
        "curated.tx_unified",
        "only_final_known_amounts_count",
        "critical",
        f"UPDATE curated.tx_unified SET counts = true WHERE txid = '{SCAM}'",
        (),
    ),
    (
        "curated.tx_unified",
        "only_final_known_amounts_count",
        "critical",
        f"UPDATE curated.tx_unified SET counts = false WHERE {LEG}",
        (),
    ),
    (
        "curated.tx_unified",
        "amounts_fit",
        "warning",
        "UPDATE curated.tx_unified SET is_overflow = true WHERE txid = 'e6'",
        (),
    ),
    (
        "curated.tx_unified",
        "conversions_paired",
        "warning",
        "DELETE FROM curated.tx_unified WHERE txid = 'e5'",
        (),
    ),
    (
        "curated.tx_unified",
        "conversions_paired",
        "warning",
        "UPDATE curated.tx_unified SET ref = NULL WHERE txid = 'e5'",
        (),
    ),
    (
        "curated.daily_flows",
        "keys_unique",
        "critical",
        f"INSERT INTO curated.daily_flows FROM curated.daily_flows WHERE {DAY}",
        (),
    ),
    (
        "curated.daily_flows",
        "inflow_in_range",
        "critical",
        f"UPDATE curated.daily_flows SET inflow = -1 WHERE {DAY}",
        ("net_adds_up", "equal_transactions"),
    ),
    (
        "curated.daily_flows",
        "outflow_in_range",
        "critical",
        f"UPDATE curated.daily_flows SET outflow = -1 WHERE {DAY}",
        ("net_adds_up", "equal_transactions"),
    ),
    (
        "curated.daily_flows",
        "net_adds_up",
        "critical",
        f"UPDATE curated.daily_flows SET net = net + 0.000000000000000001 WHERE {DAY}",
        (),
    ),
    (
        "curated.daily_flows",
        "equal_transactions",
        "critical",
        f"DELETE FROM curated.daily_flows WHERE {DAY}",
        (),
    ),
    (
        "curated.daily_flows",
        "equal_transactions",
        "critical",
        f"UPDATE curated.daily_flows SET inflow = inflow + {WEI}, net = net + {WEI}, "
        f"turnover = turnover + {WEI} WHERE {DAY}",
        (),
    ),
    (
        "curated.daily_flows",
        "equal_transactions",
        "critical",
        f"DELETE FROM curated.tx_unified WHERE {ROW}",
        (),
    ),
    (
        "curated.daily_balances",
        "keys_unique",
        "critical",
        f"INSERT INTO curated.daily_balances FROM curated.daily_balances WHERE {DAY}",
        ("balance_moves_by_net",),
    ),
    (
        "curated.daily_balances",
        "no_negative_balance",
        "warning",
        f"UPDATE curated.daily_balances SET balance = -0.000000000000000001 WHERE {DAY}",
        (),
    ),
    (
        "curated.daily_balances",
        "no_negative_balance",
        "warning",
        f"UPDATE curated.daily_balances SET balance = NULL, balance_wide = -1 WHERE {DAY}",
        (),
    ),
    (
        "curated.daily_balances",
        "flows_carried",
        "critical",
        f"DELETE FROM curated.daily_balances WHERE {DAY}",
        (),
    ),
    (
        "curated.daily_balances",
        "flows_carried",
        "critical",
        f"UPDATE curated.daily_balances SET net = 0 WHERE {DAY}",
        (),
    ),
    (
        "curated.reconciliation",
        "keys_unique",
        "critical",
        "INSERT INTO curated.reconciliation FROM curated.reconciliation",
        (),
    ),
    (
        "curated.reconciliation",
        "status_present",
        "critical",
        "UPDATE curated.reconciliation SET status = NULL",
        (),
    ),
    (
        "curated.reconciliation",
        "status_known",
        "critical",
        "UPDATE curated.reconciliation SET status = 'fine'",
        (),
    ),
    (
        "curated.reconciliation",
        "balances_reconcile",
        "warning",
        "UPDATE curated.reconciliation SET status = 'off'",
        (),
    ),
    (
        "curated.reconciliation",
        "coverage_awaited_briefly",
        "info",
        "UPDATE curated.reconciliation SET status = 'awaiting_coverage', "
        "snapshot_ts = '2025-12-20'",
        (),
    ),
    (
        "curated.assets",
        "keys_unique",
        "critical",
        "INSERT INTO curated.assets FROM curated.assets WHERE token = 'BTC'",
        (),
    ),
    (
        "curated.assets",
        "token_present",
        "critical",
        "UPDATE curated.assets SET token = NULL WHERE token = 'ETH'",
        ("tokens_described",),
    ),
    (
        "curated.assets",
        "tokens_described",
        "info",
        "DELETE FROM curated.assets WHERE token = 'BTC'",
        (),
    ),
]
for name in (
    "exchanges_ledger",
    "exchanges_trades",
    "onchain_transactions",
    "onchain_transfers",
    "balances",
):
    BROKEN += [
        (f"raw.{name}", "batch_known", "warning", f"UPDATE raw.{name} SET batch_id = 'who'", ()),
        (
            f"raw.{name}",
            "versions_in_order",
            "critical",
            f"UPDATE raw.{name} SET first_seen_at = '2026-02-01'",
            (),
        ),
        (
            f"raw.{name}",
            "no_future",
            "warning",
            f"UPDATE raw.{name} SET first_seen_at = '2026-01-01', changed_at = '2026-01-01'",
            (),
        ),
    ]
    if name != "balances":
        BROKEN.append(
            (
                f"raw.{name}",
                "nothing_vanished",
                "warning",
                f"UPDATE raw.{name} SET vanished_at = '2026-02-01'",
                (),
            )
        )


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


def run(path, interval=INTERVAL, docs_dir=None, run_id="r1", **more):
    return run_checkpoints(path, interval, run_id=run_id, docs_dir=docs_dir, **more)


def failures(results):
    return {(r.checkpoint, r.expectation, r.severity) for r in results if not r.success}


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


def test_rows_outside_the_interval_are_not_looked_at(warehouse):
    outside = "ts NOT BETWEEN TIMESTAMP '2026-01-01' AND TIMESTAMP '2026-01-03'"
    path = warehouse(f"""
        UPDATE raw.exchanges_ledger SET kind = 'gift', asset = NULL, batch_id = 'x'
          WHERE entry_id IN ('e0', 'e5', 'e7');
        UPDATE raw.exchanges_ledger SET amount = 4 WHERE entry_id = 'e7';
        UPDATE raw.onchain_transfers SET amount = -1 WHERE tx_id = '{RECEIVED}';
        UPDATE raw.onchain_transactions SET status = 7 WHERE tx_id = '{RECEIVED}';
        INSERT INTO curated.tx_unified FROM curated.tx_unified WHERE {outside};
        DELETE FROM curated.daily_flows WHERE date <> '2026-01-02';
        UPDATE curated.daily_balances SET balance = -9 WHERE date <> '2026-01-02';""")
    assert failures(run(path)) == set()


def test_of_scattered_days_only_those_are_looked_at(warehouse):
    """Late rows touch single days of years: what lies between is not read, what they touch is."""
    wide = Interval("2025-12-20T00:00:00Z", "2026-01-25T00:00:00Z")
    spans = (
        Interval("2025-12-20T00:00:00Z", "2025-12-21T00:00:00Z"),
        INTERVAL,
        Interval("2026-01-20T00:00:00Z", "2026-01-25T00:00:00Z"),
    )
    between = "UPDATE raw.exchanges_ledger SET kind = 'gift' WHERE entry_id IN ('e0', 'e5', 'e7');"
    assert failures(run(warehouse(between), wide, spans=spans)) == set()
    assert ("raw.exchanges_ledger", "kind_known", "critical") in failures(
        run(warehouse(between), wide)
    )
    inside = "UPDATE raw.exchanges_ledger SET kind = 'gift' WHERE entry_id = 'e1'"
    assert failures(run(warehouse(inside), wide, spans=spans)) == {
        ("raw.exchanges_ledger", "kind_known", "critical")
    }


def test_each_of_the_scattered_days_is_looked_at(warehouse, only):
    only("raw.exchanges_ledger")
    spans = [
        Interval(f"2026-01-0{day}T00:00:00Z", f"2026-01-0{day + 1}T00:00:00Z") for day in (1, 3)
    ]
    path = warehouse(
        "UPDATE raw.exchanges_ledger SET kind = 'gift' WHERE entry_id IN ('e0', 'e5', 'e7')"
    )  # on the first, the second and the third
    for count, checked_spans in ((1, spans[:1]), (2, spans), (1, spans[1:])):
        whole = Interval(checked_spans[0].start.isoformat(), checked_spans[-1].end.isoformat())
        (bad,) = [r for r in run(path, whole, spans=checked_spans) if not r.success]
        assert bad.expectation == "kind_known" and bad.observed.startswith(f"{count} of ")


def test_the_ends_of_the_interval_are_half_open(warehouse, only):
    only("raw.exchanges_ledger")
    path = warehouse("UPDATE raw.exchanges_ledger SET kind = 'gift' WHERE entry_id IN ('e1', 'e5')")
    (bad,) = [r for r in run(path) if not r.success]
    assert bad.observed.startswith("1 of ")  # e1 lies on the start, e5 on the end


def test_an_empty_interval_is_legal(warehouse):
    results = run(warehouse(), Interval("2031-05-01T00:00:00Z", "2031-05-01T06:00:00Z"))
    assert failures(results) == set()
    assert not any(r.error for r in results)


def test_an_empty_warehouse_is_legal(warehouse):
    tables = [s.table for s in suites_module.suites(INTERVAL)]
    results = run(warehouse("".join(f"DELETE FROM {t};" for t in tables)))
    assert failures(results) == set()


def test_an_expectation_that_raises_is_a_critical_failure(warehouse):
    path = warehouse(
        "ALTER TABLE ops.batches RENAME batch_id TO gone; "
        "ALTER TABLE curated.assets RENAME TO elsewhere;"
    )
    results = run(path)
    raised = [r for r in results if r.error]
    assert {r.severity for r in raised} == {"critical"} and not any(r.success for r in raised)
    assert {r.checkpoint for r in raised if r.expectation == "batch_known"} == {
        t
        for t in (s.table for s in suites_module.suites(INTERVAL))
        if t.startswith("raw.") and t != "raw.adjustments"
    }
    assert {r.expectation for r in raised if r.checkpoint == "curated.assets"} == {
        "keys_unique",
        "token_present",
        "tokens_described",
    }
    assert failed_critical(results) == raised
    assert "batch_id" in raised[0].error


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


@pytest.mark.parametrize("sql", ["", "DROP TABLE curated.assets"], ids=["clean", "raising"])
def test_every_handle_is_released(warehouse, tmp_path, sql):
    path = warehouse(sql)
    run(path, docs_dir=tmp_path / "docs")
    code = f"import duckdb; duckdb.connect({str(path)!r}).execute('CREATE TABLE t (i INT)')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with duckdb.connect(str(path)) as con:  # read-only handles of this process would forbid it
        con.execute("DROP TABLE t")


def test_a_missing_warehouse_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no warehouse at"):
        run(tmp_path / "warehouse.duckdb")


def test_recording_a_run_twice_replaces_it(warehouse):
    results = [
        CheckResult("raw.t", "a", "warning", False, "3 rows"),
        CheckResult("raw.t", "b", "critical", False, error="boom"),
        CheckResult("raw.t", "c", "info", True),
    ]
    with duckdb.connect(str(warehouse())) as con:
        record(con, results[:1], "other", INTERVAL)
        record(con, results, "r1", INTERVAL)
        record(con, results, "r1", INTERVAL)
        rows = con.execute(
            "SELECT checkpoint, expectation, severity, success, observed, start_ts::VARCHAR, "
            "end_ts::VARCHAR FROM ops.checkpoints WHERE run_id = 'r1' ORDER BY 2"
        ).fetchall()
        assert con.execute("SELECT count(*) FROM ops.checkpoints").fetchone() == (4,)
        record(con, [], "r1", INTERVAL)
        assert con.execute("SELECT count(*) FROM ops.checkpoints").fetchone() == (1,)
    span = ("2026-01-02 06:00:00", "2026-01-02 12:00:00")
    assert rows == [
        ("raw.t", "a", "warning", False, "3 rows", *span),
        ("raw.t", "b", "critical", False, "boom", *span),
        ("raw.t", "c", "info", True, None, *span),
    ]


OUTSIDE = re.compile(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//|url\(\s*["']?(?:https?:)?//""")
LOADS = re.compile(r"<(?:link|script|img|iframe|object)\b|@import|url\(")
LOADED = re.compile(r"""<(?:link|script|img|a)\b[^>]*?\b(?:src|href)="([^"#]+)\"""")


def test_data_docs_load_nothing_from_outside(warehouse, tmp_path):
    docs = tmp_path / "docs"
    run(
        warehouse(
            "DROP TABLE curated.assets; "
            f"UPDATE raw.exchanges_ledger SET asset = NULL WHERE {IN}; "
            "DELETE FROM curated.tx_unified WHERE txid = 'e6'"
        ),
        docs_dir=docs,
        run_id="manual__2026-01-02T06:00:00+00:00/<b>",
    )
    pages = [docs / "index.html", *docs.glob("runs/*/*.html")]
    assert len(pages) == 1 + 11
    for page in pages:
        html = page.read_text()
        assert not OUTSIDE.search(html), f"{page.name} loads {OUTSIDE.search(html)}"
        for link in LOADED.findall(html):
            assert (page.parent / link).exists(), f"{page.name} links {link}, which is not there"
        assert "<style>" in html and not LOADS.search(html), f"{page.name}: {LOADS.search(html)}"
    index = (docs / "index.html").read_text()
    assert "&lt;b&gt;" in index and "asset_present" in index
    assert {page.suffix for page in docs.rglob("*.*") if page.is_file()} == {".html", ".json"}


def test_data_docs_quote_what_a_stranger_may_name(warehouse, tmp_path):
    evil = "<script>alert(1)</script>"
    docs = tmp_path / "docs"
    results = run(
        warehouse(
            f"UPDATE raw.exchanges_ledger SET kind = '{evil}' WHERE {IN}; "
            f"INSERT INTO curated.assets SELECT '{evil}', 's', 'n', 1 FROM range(2); "
            f"INSERT INTO curated.reconciliation SELECT * REPLACE ('{evil}' AS token, 'off' AS status)"
            " FROM curated.reconciliation"
        ),
        docs_dir=docs,
    )
    assert sum(evil in str(r) for r in results) >= 3
    for page in docs.rglob("*.html"):
        assert evil not in page.read_text(), f"{page.name} would run what a token is called"


def test_data_docs_say_in_words_what_was_expected_and_what_was_observed(warehouse, tmp_path, only):
    """Every expectation with its words, severity and count, and the rows that break it."""
    only("raw.exchanges_ledger")
    docs = tmp_path / "docs"
    rest = Interval("2026-01-02T12:00:00Z", "2026-01-02T12:30:30Z")
    results = run(
        warehouse(
            f"UPDATE raw.exchanges_ledger SET kind = 'gift' WHERE {IN}; "
            "UPDATE raw.exchanges_ledger SET vanished_at = '2026-02-01' WHERE entry_id = 'e2'"
        ),
        Interval("2026-01-02T06:00:00Z", "2026-01-02T12:30:30Z"),
        docs_dir=docs,
        spans=[INTERVAL, rest],
    )
    folder = docs / "runs" / data_docs.folder_of("r1")
    page = (folder / "raw.exchanges_ledger.html").read_text()
    text = unescape(
        re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.S))
    )
    for result in results:
        assert result.description and " — " not in result.description
        assert f"{result.description} {result.expectation}" in text
        assert result.observed in text
    failed, passed = text.index(" Failed "), text.index(" Passed ")
    order = [text.index(f" {r.expectation} ") for r in results if not r.success]
    assert len(order) == 2 and all(failed < place < passed for place in order)
    assert text.index("kind_known") < text.index("nothing_vanished"), "critical before warning"
    assert "critical kind is one of trade" in text and "gift" in text[failed:passed]
    assert "2026-02-01 00:00:00" in text[failed:passed] and "1 critical 1 warning" in text
    assert "2026-01-02 06:00 to 2026-01-02 12:30:30 UTC" in text
    assert "2 spans alone: 2026-01-02 06:00 to 2026-01-02 12:00, 2026-01-02 12:00 to" in text


def test_the_index_lists_runs_that_an_older_version_wrote(warehouse, tmp_path, only):
    """They keep their pages until newer runs take their places."""
    only("raw.balances")
    path, docs = warehouse(), tmp_path / "docs"
    older = docs / "runs" / "older-0a1b2c3d"
    older.mkdir(parents=True)
    (older / "raw.balances.html").write_text("<h1>as it was rendered then</h1>")
    counts = {"passed": 6, "critical": 0, "warning": 1, "info": 0}
    numbers = {
        "run_id": "an older run",
        "start": "2026-01-01T00:00:00Z",
        "end": "2026-01-01T06:00:00Z",
        "checked_at": "2026-01-01T06:01:02.345678Z",
        "tables": {"raw.balances": counts},
        "failed": ["raw.balances: nothing_vanished FAILED (warning): 1 rows"],
    }
    (older / "run.json").write_text(json.dumps(numbers))
    run(path, docs_dir=docs, keep=2)
    index = (docs / "index.html").read_text()
    assert "an older run" in index and "runs/older-0a1b2c3d/raw.balances.html" in index
    assert (older / "raw.balances.html").exists()
    run(path, docs_dir=docs, run_id="r2", keep=2)
    assert "an older run" not in (docs / "index.html").read_text() and not older.exists()


def test_data_docs_keep_the_newest_runs(warehouse, tmp_path, only):
    only("raw.balances")
    path, docs = warehouse(), tmp_path / "docs"
    for run_id in ("a", "b", "c", "a", "d"):
        run(path, docs_dir=docs, run_id=run_id, keep=3)
    kept = {data_docs.folder_of(r) for r in "cad"}
    assert {p.name for p in (docs / "runs").iterdir()} == kept
    index = (docs / "index.html").read_text()
    assert [index.index(data_docs.folder_of(r)) for r in "dac"] == sorted(
        index.index(data_docs.folder_of(r)) for r in "dac"
    )
    with pytest.raises(ValueError, match="keep=0"):
        run(path, docs_dir=docs, keep=0)
