"""SQL that maps DeBank's records to datasets: transactions, their legs, tokens and balances."""

from __future__ import annotations

from extract.core.sql import decimal, decimal_of_float, seconds
from extract.sources.debank.calls import CHAIN_HISTORY, HISTORY

_LEG = """{"amount": "VARCHAR", "token_id": "VARCHAR", "to_addr": "VARCHAR",
    "from_addr": "VARCHAR"}"""
HISTORY_FIELDS = f"""{{"chain": "VARCHAR", "id": "VARCHAR", "time_at": "VARCHAR", "is_scam": "VARCHAR",
    "cate_id": "VARCHAR", "other_addr": "VARCHAR", "project_id": "VARCHAR", "cex_id": "VARCHAR",
    "tx": {{"status": "VARCHAR", "name": "VARCHAR", "from_addr": "VARCHAR",
           "to_addr": "VARCHAR", "eth_gas_fee": "VARCHAR"}},
    "token_approve": {{"token_id": "VARCHAR", "spender": "VARCHAR", "value": "VARCHAR"}},
    "sends": [{_LEG}], "receives": [{_LEG}]}}"""

# One row a record; its legs are unnested below. A page may list a hash in several records (`idx`
# tells them apart): `first` is the number of the first, `of` counts them. The very same record twice
# is one.
_ITEMS = f"""
SELECT h.page_id, coalesce(d.first, h.item) AS item, h.item AS record, coalesce(d.of, 1) AS of,
       h.source, h.account, h.row, h.row.chain AS chain, h.row.id AS tx_id,
       {seconds("h.row.time_at")} AS ts, coalesce(h.row.is_scam, 'false') = 'true' AS is_scam,
       TRY_CAST(h.row.tx.status AS INTEGER) AS status, h.payload
FROM records_history h
LEFT JOIN (
    SELECT page_id, chain, tx_id, min(item) AS first, count(*) AS of,
           list(item) AS items
    FROM (
        SELECT page_id, row.chain AS chain, row.id AS tx_id, payload, min(item) AS item
        FROM records_history SEMI JOIN (
            SELECT page_id, row.chain AS chain, row.id AS tx_id FROM records_history
            GROUP BY ALL HAVING count(*) > 1
        ) s ON s.page_id = records_history.page_id AND s.chain = records_history.row.chain
            AND s.tx_id = records_history.row.id
        GROUP BY ALL)
    GROUP BY page_id, chain, tx_id
) d ON d.page_id = h.page_id AND d.chain = h.row.chain AND d.tx_id = h.row.id
WHERE d.items IS NULL OR list_contains(d.items, h.item)
"""

# The records of one hash are one transaction: its gas and its status once, all of its records in
# the payload, a scam where one of them is.
_TRANSACTIONS = f"""
SELECT * EXCLUDE (record, of) FROM ({_ITEMS}) WHERE of = 1
UNION ALL BY NAME
SELECT page_id, item, any_value(source) AS source, any_value(account) AS account,
       first(row ORDER BY row.tx.from_addr IS NULL, row.tx.eth_gas_fee IS NULL, record) AS row,
       chain, tx_id, min(ts) AS ts, bool_or(is_scam) AS is_scam,
       first(status ORDER BY status IS NULL, record) AS status,
       '[' || string_agg(payload, ',' ORDER BY payload) || ']' AS payload
FROM ({_ITEMS}) WHERE of > 1 GROUP BY page_id, item, chain, tx_id
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
FROM ({_TRANSACTIONS})
"""

TRANSFERS = f"""
SELECT page_id, item, source, account, chain, tx_id, direction,
       (row_number() OVER (PARTITION BY page_id, item, direction
           ORDER BY token, counterparty, amount, amount_text, record, n))::INTEGER AS leg,
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
    SELECT page_id, source, unnest(map_values(TRY_CAST(coalesce(
               nullif(body->'$.token_dict', 'null'), body->'$.token_uuid_dict')
               AS MAP(VARCHAR, JSON)))) AS row
    FROM pages WHERE endpoint IN ('{HISTORY}', '{CHAIN_HISTORY}')
    UNION ALL
    SELECT page_id, source, payload::JSON FROM records_tokens)
WHERE (row->>'$.chain') IS NOT NULL AND (row->>'$.id') IS NOT NULL
  AND TRY_CAST(row->>'$.decimals' AS INTEGER) IS NOT NULL
"""

# raw_amount is a JSON number that has lost digits where it is long; the hex text is exact. An
# infinite balance is no number that can be held: its text is kept.
TOKEN_FIELDS = """{"chain": "VARCHAR", "id": "VARCHAR", "raw_amount_hex_str": "VARCHAR",
    "decimals": "VARCHAR", "amount": "VARCHAR", "price": "VARCHAR", "is_verified": "VARCHAR",
    "is_infinity": "VARCHAR"}"""
_HEX = """CASE WHEN regexp_full_match(row.raw_amount_hex_str, '0x[0-9a-fA-F]{1,64}')
    THEN row.raw_amount_hex_str END"""
_DECIMALS = """CASE WHEN TRY_CAST(row.decimals AS INTEGER) BETWEEN 0 AND 120
    THEN TRY_CAST(row.decimals AS INTEGER)::VARCHAR END"""
_INFINITE = "row.is_infinity = 'true' OR lower(row.raw_amount_hex_str) = '0x' || repeat('f', 64)"
BALANCES = f"""
SELECT page_id, item, source, account, chain AS wallet, chain || ':' || token AS token, ts,
       amount_text, CASE WHEN is_infinite THEN NULL WHEN is_exact THEN {decimal("amount_text")}
           ELSE {decimal_of_float("amount_text")} END AS amount, payload,
       price_text, {decimal_of_float("price_text")} AS price, is_verified = 'true' AS is_verified
FROM (
    SELECT page_id, item, source, account, row.chain AS chain, row.id AS token, as_of AS ts,
           payload, row.price AS price_text, row.is_verified AS is_verified,
           coalesce({_INFINITE}, false) AS is_infinite,
           units_text({_HEX}, {_DECIMALS}) IS NOT NULL AS is_exact,
           coalesce(units_text({_HEX}, {_DECIMALS}), row.amount) AS amount_text
    FROM records_tokens)
"""

CHAIN_FIELDS = """{"id": "VARCHAR", "name": "VARCHAR", "native_token_id": "VARCHAR",
    "wrapped_token_id": "VARCHAR"}"""
CHAINS = """
SELECT page_id, item, source, row.id AS chain, row.name AS name,
       nullif(row.native_token_id, '') AS native_token,
       nullif(row.wrapped_token_id, '') AS wrapped_token
FROM records_chains
"""

_HELD = """[{"id": "VARCHAR", "chain": "VARCHAR", "amount": "VARCHAR", "price": "VARCHAR",
    "symbol": "VARCHAR", "optimized_symbol": "VARCHAR"}]"""
# The lists of tokens of a position that the vendor knows, and what they are to the account.
_ROLES = {
    "supply_token_list": "supply",
    "collateral_token_list": "supply",
    "borrow_token_list": "borrow",
    "reward_token_list": "reward",
    "token_list": "reward",
}
_LISTS = ", ".join(f'"{name}": {_HELD}' for name in _ROLES)
PROTOCOL_FIELDS = f"""{{"id": "VARCHAR", "chain": "VARCHAR", "portfolio_item_list": [
    {{"name": "VARCHAR", "detail": {{{_LISTS}}}}}]}}"""
_HELD_OF_EACH = " UNION ALL BY NAME ".join(
    f"SELECT * EXCLUDE (part, text), part.name AS name, '{role}' AS role, '{name}' AS list, "
    f"generate_subscripts(part.detail.{name}, 1) AS place, unnest(part.detail.{name}) AS held, "
    f"unnest(from_json(text->'$.detail.{name}', '[\"JSON\"]'))::VARCHAR AS payload "
    f"FROM parts WHERE len(part.detail.{name}) > 0"
    for name, role in _ROLES.items()
)
# A position is named by its protocol and its number there; a token that it has twice in one role
# is distinguished by a further number.
POSITIONS = f"""
WITH parts AS (
    SELECT page_id, item, source, account, as_of AS ts, row.id AS protocol, row.chain AS home,
           generate_subscripts(row.portfolio_item_list, 1) AS number,
           unnest(row.portfolio_item_list) AS part,
           unnest(from_json(payload->'$.portfolio_item_list', '["JSON"]')) AS text
    FROM records_protocols WHERE len(row.portfolio_item_list) > 0
), held AS (
    SELECT page_id, item, source, account, ts, protocol, number, name, payload,
           CASE WHEN role = 'supply' AND lower(name) = 'staked' THEN 'staked' ELSE role END AS role,
           coalesce(held.chain, home) AS chain, held.id AS token, list, place,
           coalesce(held.optimized_symbol, held.symbol) AS symbol, held.amount AS amount_text,
           held.price AS price_text
    FROM ({_HELD_OF_EACH})
), numbered AS (
    SELECT *, row_number() OVER (
        PARTITION BY page_id, item, number, role, chain, token ORDER BY list, place) AS again
    FROM held
)
SELECT page_id, item, source, account,
       protocol || ':' || number || CASE WHEN again > 1 THEN ':' || again ELSE '' END AS position,
       role, chain || ':' || token AS token, ts, chain, protocol, name, symbol, amount_text,
       {decimal_of_float("amount_text")} AS amount, price_text, {decimal_of_float("price_text")} AS price, payload
FROM numbered
"""
