"""SQL that maps DeBank's records to datasets: transactions, their legs, tokens and balances."""

from __future__ import annotations

from extract.sources._sql import decimal, decimal_of_float, seconds
from extract.sources.debank.calls import CHAIN_HISTORY, HISTORY

_LEG = """{"amount": "VARCHAR", "token_id": "VARCHAR", "to_addr": "VARCHAR",
    "from_addr": "VARCHAR"}"""
HISTORY_FIELDS = f"""{{"chain": "VARCHAR", "id": "VARCHAR", "time_at": "VARCHAR", "is_scam": "VARCHAR",
    "cate_id": "VARCHAR", "other_addr": "VARCHAR", "project_id": "VARCHAR", "cex_id": "VARCHAR",
    "tx": {{"status": "VARCHAR", "name": "VARCHAR", "from_addr": "VARCHAR",
           "to_addr": "VARCHAR", "eth_gas_fee": "VARCHAR"}},
    "token_approve": {{"token_id": "VARCHAR", "spender": "VARCHAR", "value": "VARCHAR"}},
    "sends": [{_LEG}], "receives": [{_LEG}]}}"""

# One row a transaction of a page; its legs are unnested below.
_ITEMS = f"""
SELECT page_id, item, source, account, row, row.chain AS chain, row.id AS tx_id,
       {seconds("row.time_at")} AS ts, coalesce(row.is_scam, 'false') = 'true' AS is_scam,
       TRY_CAST(row.tx.status AS INTEGER) AS status, payload
FROM records_history
"""

# Gas and sender are the account's only where it is the sender; an address compares
# without its checksum's capitals.
TRANSACTIONS = f"""
SELECT page_id, item, source, account, chain, tx_id, ts, row.cate_id AS category,
       row.tx.name AS method, status, is_scam,
       row.tx.from_addr AS from_addr, row.tx.to_addr AS to_addr,
       row.other_addr AS other_addr, row.project_id AS project, row.cex_id AS cex,
       coalesce(lower(row.tx.from_addr) = lower(account), false) AS pays_gas,
       row.tx.eth_gas_fee AS gas_text, {decimal_of_float("row.tx.eth_gas_fee")} AS gas,
       row.token_approve.token_id AS approve_token,
       row.token_approve.spender AS approve_spender,
       row.token_approve.value AS approve_text, payload
FROM ({_ITEMS})
"""

TRANSFERS = f"""
SELECT page_id, item, source, account, chain, tx_id, direction,
       (row_number() OVER (PARTITION BY page_id, item, direction
           ORDER BY token, counterparty, amount, amount_text, n))::INTEGER AS leg,
       ts, token, counterparty, amount_text, amount, is_scam,
       coalesce(status, 1) = 1 AS is_settled, payload
FROM (
    SELECT * EXCLUDE (legs, texts, leg), leg.token_id AS token, leg.amount AS amount_text,
           {decimal_of_float("leg.amount")} AS amount, coalesce(leg.to_addr, leg.from_addr) AS counterparty
    FROM (
        SELECT *, generate_subscripts(legs, 1) AS n, unnest(legs) AS leg,
               unnest(from_json(texts, '["JSON"]'))::VARCHAR AS payload
        FROM (
            SELECT * EXCLUDE (row, payload), 'out' AS direction, row.sends AS legs,
                   payload->'$.sends' AS texts FROM ({_ITEMS}) WHERE len(row.sends) > 0
            UNION ALL
            SELECT * EXCLUDE (row, payload), 'in', row.receives, payload->'$.receives'
            FROM ({_ITEMS}) WHERE len(row.receives) > 0)))
"""

# Keyed by token id alone, a token of the same address on two chains collides in the
# dictionary: each entry names its own chain, and only that counts.
TOKENS = f"""
SELECT page_id, row_number() OVER (PARTITION BY page_id) AS item, source, row->>'$.chain' AS chain,
       row->>'$.id' AS token, coalesce(row->>'$.optimized_symbol', row->>'$.symbol') AS symbol,
       row->>'$.name' AS name, TRY_CAST(row->>'$.decimals' AS INTEGER) AS decimals,
       (row->>'$.is_verified') = 'true' AS is_verified
FROM (
    SELECT page_id, source, unnest(map_values(CAST(coalesce(
               body->'$.token_dict', body->'$.token_uuid_dict') AS MAP(VARCHAR, JSON)))) AS row
    FROM pages WHERE endpoint IN ('{HISTORY}', '{CHAIN_HISTORY}')
    UNION ALL
    SELECT page_id, source, payload::JSON FROM records_tokens)
WHERE (row->>'$.chain') IS NOT NULL AND (row->>'$.id') IS NOT NULL
  AND TRY_CAST(row->>'$.decimals' AS INTEGER) IS NOT NULL
"""

# raw_amount is a JSON number that has lost digits where it is long; the hex text is exact.
TOKEN_FIELDS = """{"chain": "VARCHAR", "id": "VARCHAR", "raw_amount_hex_str": "VARCHAR",
    "decimals": "VARCHAR", "amount": "VARCHAR", "price": "VARCHAR", "is_verified": "VARCHAR"}"""
BALANCES = f"""
SELECT page_id, item, source, account, chain AS wallet, chain || ':' || token AS token, ts,
       amount_text,
       CASE WHEN is_exact THEN {decimal("amount_text")}
           ELSE {decimal_of_float("amount_text")} END AS amount, payload,
       price_text, {decimal_of_float("price_text")} AS price, is_verified = 'true' AS is_verified
FROM (
    SELECT page_id, item, source, account, row.chain AS chain, row.id AS token, as_of AS ts,
           payload, row.price AS price_text, row.is_verified AS is_verified,
           units_text(row.raw_amount_hex_str, row.decimals) IS NOT NULL AS is_exact,
           coalesce(units_text(row.raw_amount_hex_str, row.decimals), row.amount) AS amount_text
    FROM records_tokens)
"""
