-- The tables as the first version of ledgerhouse/warehouse/schema.py made them (24 November 2026).
CREATE SCHEMA raw;
CREATE SCHEMA ops;
CREATE TABLE ops.api_calls (call_id VARCHAR NOT NULL, called_at TIMESTAMP NOT NULL, dag_id
    VARCHAR, run_id VARCHAR, task_id VARCHAR, map_index INTEGER, try_number INTEGER, source
    VARCHAR NOT NULL, account VARCHAR NOT NULL, endpoint VARCHAR NOT NULL, status INTEGER,
    duration_ms INTEGER NOT NULL, rows INTEGER, units INTEGER NOT NULL, units_left BIGINT, error
    VARCHAR);
CREATE TABLE ops.batches (batch_id VARCHAR NOT NULL, file VARCHAR NOT NULL, source VARCHAR NOT
    NULL, account VARCHAR NOT NULL, dataset VARCHAR NOT NULL, run_id VARCHAR NOT NULL, rows BIGINT
    NOT NULL, new BIGINT NOT NULL, changed BIGINT NOT NULL, same BIGINT NOT NULL, stale BIGINT NOT
    NULL, removed BIGINT NOT NULL, loaded_at TIMESTAMP NOT NULL);
CREATE TABLE ops.checkpoints (run_id VARCHAR NOT NULL, checkpoint VARCHAR NOT NULL, expectation
    VARCHAR NOT NULL, severity VARCHAR NOT NULL, success BOOLEAN NOT NULL, observed VARCHAR,
    start_ts TIMESTAMP, end_ts TIMESTAMP, checked_at TIMESTAMP NOT NULL);
CREATE TABLE ops.coverage (source VARCHAR NOT NULL, account VARCHAR NOT NULL, dataset VARCHAR NOT
    NULL, start_ts TIMESTAMP NOT NULL, end_ts TIMESTAMP NOT NULL, reason VARCHAR NOT NULL, run_id
    VARCHAR NOT NULL, batch_id VARCHAR NOT NULL, recorded_at TIMESTAMP NOT NULL);
CREATE TABLE ops.sync_runs (dag_id VARCHAR NOT NULL, run_id VARCHAR NOT NULL, run_type VARCHAR,
    task_id VARCHAR NOT NULL, map_index INTEGER NOT NULL, try_number INTEGER NOT NULL, source
    VARCHAR, account VARCHAR, interval_start TIMESTAMP, interval_end TIMESTAMP, state VARCHAR,
    rows BIGINT, calls BIGINT, units BIGINT, started TIMESTAMP, ended TIMESTAMP, error VARCHAR,
    mirrored_at TIMESTAMP NOT NULL);
CREATE TABLE ops.touched_days (dataset VARCHAR NOT NULL, day DATE NOT NULL, batch_id VARCHAR NOT
    NULL);
CREATE TABLE raw.balances (source VARCHAR NOT NULL, account VARCHAR NOT NULL, wallet VARCHAR NOT
    NULL, token VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, amount_text VARCHAR, amount
    DECIMAL(38,18), payload VARCHAR, row_hash UBIGINT, first_seen_at TIMESTAMP, changed_at
    TIMESTAMP, batch_id VARCHAR);
CREATE TABLE raw.exchanges_ledger (source VARCHAR NOT NULL, account VARCHAR NOT NULL, entry_id
    VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, wallet VARCHAR, type VARCHAR, kind VARCHAR, status
    VARCHAR, is_settled BOOLEAN, asset VARCHAR, amount_text VARCHAR, amount DECIMAL(38,18),
    fee_text VARCHAR, fee DECIMAL(38,18), fee_asset VARCHAR, network VARCHAR, tx_hash VARCHAR,
    order_id VARCHAR, trade_id VARCHAR, payload VARCHAR, row_hash UBIGINT, first_seen_at
    TIMESTAMP, changed_at TIMESTAMP, batch_id VARCHAR);
CREATE TABLE raw.exchanges_trades (source VARCHAR NOT NULL, account VARCHAR NOT NULL, symbol
    VARCHAR NOT NULL, trade_id VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, order_id VARCHAR, base
    VARCHAR, quote VARCHAR, side VARCHAR, price_text VARCHAR, price DECIMAL(38,18), amount_text
    VARCHAR, amount DECIMAL(38,18), cost_text VARCHAR, cost DECIMAL(38,18), fee_text VARCHAR, fee
    DECIMAL(38,18), fee_asset VARCHAR, liquidity VARCHAR, payload VARCHAR, row_hash UBIGINT,
    first_seen_at TIMESTAMP, changed_at TIMESTAMP, batch_id VARCHAR);
CREATE TABLE raw.history (dataset VARCHAR NOT NULL, key VARCHAR NOT NULL, ts TIMESTAMP, row_hash
    UBIGINT NOT NULL, valid_from TIMESTAMP NOT NULL, valid_to TIMESTAMP NOT NULL, change VARCHAR
    NOT NULL, batch_id VARCHAR NOT NULL, row VARCHAR NOT NULL);
CREATE TABLE raw.onchain_tokens (source VARCHAR NOT NULL, chain VARCHAR NOT NULL, token VARCHAR
    NOT NULL, symbol VARCHAR, name VARCHAR, decimals INTEGER, is_verified BOOLEAN, row_hash
    UBIGINT, first_seen_at TIMESTAMP, changed_at TIMESTAMP, batch_id VARCHAR);
CREATE TABLE raw.onchain_transactions (source VARCHAR NOT NULL, account VARCHAR NOT NULL, chain
    VARCHAR NOT NULL, tx_id VARCHAR NOT NULL, ts TIMESTAMP NOT NULL, category VARCHAR, method
    VARCHAR, status INTEGER, is_scam BOOLEAN, from_addr VARCHAR, to_addr VARCHAR, other_addr
    VARCHAR, project VARCHAR, cex VARCHAR, pays_gas BOOLEAN, gas_text VARCHAR, gas DECIMAL(38,18),
    approve_token VARCHAR, approve_spender VARCHAR, approve_text VARCHAR, payload VARCHAR,
    row_hash UBIGINT, first_seen_at TIMESTAMP, changed_at TIMESTAMP, batch_id VARCHAR);
CREATE TABLE raw.onchain_transfers (source VARCHAR NOT NULL, account VARCHAR NOT NULL, chain
    VARCHAR NOT NULL, tx_id VARCHAR NOT NULL, direction VARCHAR NOT NULL, leg INTEGER NOT NULL, ts
    TIMESTAMP NOT NULL, token VARCHAR, counterparty VARCHAR, amount_text VARCHAR, amount
    DECIMAL(38,18), is_scam BOOLEAN, is_settled BOOLEAN, payload VARCHAR, row_hash UBIGINT,
    first_seen_at TIMESTAMP, changed_at TIMESTAMP, batch_id VARCHAR);
