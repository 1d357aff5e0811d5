"""SQL that turns landed pages of Coinbase into rows.

The ledger is the authority: v2 amounts include fees, and their sum is the balance. Fills only
enrich it.
"""

from __future__ import annotations

from extract.sources._sql import decimal, time

# v2 types: https://docs.cdp.coinbase.com/coinbase-app/track-apis/transactions#transaction-types
# and those that people have met beside them. A new one is `unknown`, counts all the same, and is
# reported by a check.
_BY_SIGN = "CASE WHEN starts_with(amount_text, '-') THEN 'withdrawal' ELSE 'deposit' END"
KINDS = {
    "'trade'": "advanced_trade_fill buy sell derivatives_settlement",
    "'conversion'": "trade wrap_asset unwrap_asset asset_migration retail_simple_dust "
    "fcm_futures_usdc_sell fcm_futures_usdc_sell_additional_encumberment_rollup",
    "'deposit'": "fiat_deposit exchange_deposit",
    "'withdrawal'": "fiat_withdrawal exchange_withdrawal",
    _BY_SIGN: "send receive request tx onchain_deposit onchain_withdrawal unsupported_asset_recovery",
    "'reward'": "staking_reward inflation_reward interest earn_payout incentives_rewards_payout "
    "learning_reward cardbuyback subscription_rebate retail_simple_price_improvement clawback "
    "incentives_shared_clawback",
    "'transfer'": "staking_transfer unstaking_transfer retail_instant_unstaking "
    "retail_eth2_deprecation pro_deposit pro_withdrawal vault_withdrawal transfer intx_deposit "
    "intx_withdrawal sweep_deposit sweep_withdrawal",
    "'fee'": "subscription subscription_fee cardspend fee",
}
_KIND = " ".join(
    [
        "CASE",
        *(
            f"WHEN type IN ({', '.join(repr(t) for t in types.split())}) THEN {kind}"
            for kind, types in KINDS.items()
        ),
        "ELSE 'unknown' END",
    ]
)

# Each record is read into its fields once (a path at a time is four times slower), and kept as
# text beside them.
ENTRY_FIELDS = """{"id": "VARCHAR", "type": "VARCHAR", "status": "VARCHAR", "created_at": "VARCHAR",
    "amount": {"amount": "VARCHAR", "currency": "VARCHAR"},
    "network": {"hash": "VARCHAR", "network_name": "VARCHAR",
                "transaction_fee": {"amount": "VARCHAR", "currency": "VARCHAR"}},
    "advanced_trade_fill": {"commission": "VARCHAR", "product_id": "VARCHAR",
                            "order_id": "VARCHAR"},
    "trade": {"id": "VARCHAR", "fee": {"amount": "VARCHAR", "currency": "VARCHAR"}}}"""
FILL_FIELDS = """{"entry_id": "VARCHAR", "trade_id": "VARCHAR", "trade_type": "VARCHAR",
    "trade_time": "VARCHAR", "order_id": "VARCHAR", "product_id": "VARCHAR", "side": "VARCHAR", "price": "VARCHAR", "size": "VARCHAR",
    "size_in_quote": "VARCHAR", "commission": "VARCHAR", "liquidity_indicator": "VARCHAR"}"""
WALLET_FIELDS = '{"id": "VARCHAR", "balance": {"amount": "VARCHAR", "currency": "VARCHAR"}}'

# A fee is listed in each of the two wallets of an exchange, and stated once: a commission in the one
# that is not the product's base, since it is part of that amount; a conversion's in the one that
# gives. An old entry may lack its amount; its asset is its wallet's.
LEDGER = f"""
SELECT page_id, item, source, account, entry_id, ts, wallet, type, {_KIND} AS kind, status,
       status = 'completed' AS is_settled, asset,
       amount_text, {decimal("amount_text")} AS amount,
       fee_text, {decimal("fee_text")} AS fee, fee_asset, network, tx_hash, order_id,
       trade_id, payload, NULL::VARCHAR AS balance_text, NULL::DECIMAL(38,18) AS balance
FROM (
    SELECT page_id, item, source, account, row.id AS entry_id,
           {time("row.created_at")} AS ts,
           wallet, row.type AS type,
           row.status AS status, coalesce(row.amount.currency, currency) AS asset,
           row.amount.amount AS amount_text,
           coalesce(row.network.transaction_fee.amount,
               CASE WHEN pays_commission THEN row.advanced_trade_fill.commission END,
               CASE WHEN gives THEN row.trade.fee.amount END) AS fee_text,
           coalesce(row.network.transaction_fee.currency,
               CASE WHEN pays_commission THEN row.amount.currency END,
               CASE WHEN gives THEN row.trade.fee.currency END) AS fee_asset,
           row.network.network_name AS network, row.network.hash AS tx_hash,
           row.advanced_trade_fill.order_id AS order_id, row.trade.id AS trade_id, payload
    FROM (
        SELECT l.*, w.currency, starts_with(row.amount.amount, '-') AS gives,
               row.advanced_trade_fill.commission IS NOT NULL AND row.amount.currency
                   <> split_part(row.advanced_trade_fill.product_id, '-', 1) AS pays_commission
        FROM (SELECT *, params->>'$.account_id' AS wallet FROM records_ledger) l
        LEFT JOIN (
            SELECT source, account, row.id AS wallet, max(row.balance.currency) AS currency
            FROM records_wallets GROUP BY ALL) w USING (source, account, wallet)))
"""

PRODUCT_FIELDS = """{"product_id": "VARCHAR", "base_currency_id": "VARCHAR",
    "quote_currency_id": "VARCHAR", "future_product_details": {"contract_root_unit": "VARCHAR",
        "contract_size": "VARCHAR"}}"""

# What is traded and paid is stated by the vendor's list of products. The symbol, a part of the key,
# follows from the name alone, so that a row is the same with and without the list: A/B of A-B,
# and as ccxt has it ADA/USDC:USDC of the perpetual ADA-PERP-INTX. The venues of contracts settle in
# one currency each. A contract of another size than 1 is no unit of its root: it is its own base.
# The id of a trade is one fill's, but adjusted fills (reversals, corrections) share it.
TRADES = f"""
SELECT page_id, item, source, account,
       CASE WHEN plain THEN parts[1] || '/' || parts[2]
            WHEN swap THEN parts[1] || '/USDC:USDC' ELSE product END AS symbol,
       row.trade_id || CASE WHEN shares_id THEN ':' || row.entry_id ELSE '' END AS trade_id,
       {time("row.trade_time")} AS ts, row.order_id AS order_id, base, quote,
       CASE WHEN row.side <> 'UNKNOWN_ORDER_SIDE' THEN lower(row.side) END AS side,
       row.price AS price_text, {decimal("row.price")} AS price,
       CASE WHEN NOT in_quote THEN row.size END AS amount_text,
       CASE WHEN NOT in_quote THEN {decimal("row.size")} END AS amount,
       CASE WHEN in_quote THEN row.size END AS cost_text,
       CASE WHEN in_quote THEN {decimal("row.size")} END AS cost,
       row.commission AS fee_text, {decimal("row.commission")} AS fee,
       quote AS fee_asset, lower(row.liquidity_indicator) AS liquidity, payload
FROM (
    SELECT *, coalesce(nullif(listed.base_currency_id, ''),
                   CASE WHEN TRY_CAST(contract.contract_size AS DECIMAL(38,18)) = 1
                       THEN contract.contract_root_unit END,
                   CASE WHEN plain OR swap THEN parts[1] ELSE product END) AS base,
           coalesce(nullif(listed.quote_currency_id, ''),
               CASE WHEN plain THEN parts[2] WHEN venue = 'INTX' THEN 'USDC'
                   WHEN venue = 'CDE' THEN 'USD' END) AS quote
    FROM (
        SELECT f.*, p.listed, p.listed.future_product_details AS contract,
               len(parts) = 2 AS plain, len(parts) = 3 AND parts[2] = 'PERP' AS swap,
               CASE WHEN len(parts) = 3 THEN parts[3] END AS venue
        FROM (
            SELECT *, row.product_id AS product, string_split(row.product_id, '-') AS parts,
                   coalesce(row.size_in_quote, 'false') = 'true' AS in_quote,
                   coalesce(row.trade_type, 'FILL') <> 'FILL' OR row.entry_id <> min(row.entry_id)
                       FILTER (coalesce(row.trade_type, 'FILL') = 'FILL')
                       OVER (PARTITION BY page_id, row.trade_id) AS shares_id
            FROM records_fills) f
        LEFT JOIN (
            SELECT source, account, row.product_id AS product, max_by(row, page_id) AS listed
            FROM records_products GROUP BY ALL) p USING (source, account, product)))
"""

BALANCES = f"""
SELECT page_id, item, source, account, row.id AS wallet, row.balance.currency AS token,
       as_of AS ts, row.balance.amount AS amount_text,
       {decimal("row.balance.amount")} AS amount, payload,
       NULL::VARCHAR AS price_text, NULL::DECIMAL(38,18) AS price, NULL::BOOLEAN AS is_verified
FROM records_wallets WHERE as_of IS NOT NULL
"""
