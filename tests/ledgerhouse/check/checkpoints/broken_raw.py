"""How each expectation about raw tables is broken: (table, expectation, severity, the SQL that breaks it, what else that
breaks in the same table)."""

from __future__ import annotations

from tests.ledgerhouse.check.checkpoints.clean import IN, SCAM, SWAP

BROKEN_RAW = [
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
]
for name in (
    "exchanges_ledger",
    "exchanges_trades",
    "onchain_transactions",
    "onchain_transfers",
    "balances",
):
    BROKEN_RAW += [
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
        BROKEN_RAW.append(
            (
                f"raw.{name}",
                "nothing_vanished",
                "warning",
                f"UPDATE raw.{name} SET vanished_at = '2026-02-01'",
                (),
            )
        )
