MODEL (
  name curated.assets,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key token
  ),
  description 'What can be held: on-chain tokens whose raw row changed in the interval, and every asset code met in an exchange ledger. Small; a row is replaced, never removed.',
  grain token,
  column_descriptions (
    token = 'chain:token id, or the exchange asset code; the token column of every curated table',
    symbol = 'ticker; chosen by the token maker, so not unique',
    name = 'name; chosen by the token maker',
    decimals = 'digits after the point that the token can hold; NULL when unknown',
    is_verified = 'the source verified the token; true for exchange assets',
    kind = 'onchain or exchange',
    chain = 'blockchain; empty for exchange assets'
  ),
  audits (
    not_null_non_blocking(columns := (token, kind, chain)),
    unique_values_non_blocking(columns := (token))
  )
);

WITH onchain AS (
  SELECT
    @token_key(t.chain, t.token) AS token,
    t.symbol AS symbol,
    t.name AS name,
    t.decimals AS decimals,
    COALESCE(t.is_verified, FALSE) AS is_verified,
    'onchain' AS kind,
    t.chain AS chain
  FROM raw.onchain_tokens AS t
  WHERE
    t.changed_at BETWEEN @start_ts AND @end_ts
  /* Two sources may know one token: the latest word wins. */
  QUALIFY
    ROW_NUMBER() OVER (
      PARTITION BY t.chain, t.token
      ORDER BY t.changed_at DESC, t.source ASC
    ) = 1
), exchange AS (
  /* By event time, not changed_at: the ledger's marks carry the day of the event, and an asset
     code has no other attribute that could change. */
  SELECT DISTINCT
    l.asset AS token,
    l.asset AS symbol,
    l.asset AS name,
    CAST(NULL AS INT) AS decimals,
    TRUE AS is_verified,
    'exchange' AS kind,
    '' AS chain
  FROM raw.exchanges_ledger AS l
  WHERE
    l.ts BETWEEN @start_ts AND @end_ts AND NOT l.asset IS NULL
), both_kinds AS (
  SELECT token, symbol, name, decimals, is_verified, kind, chain FROM onchain
  UNION ALL
  SELECT token, symbol, name, decimals, is_verified, kind, chain FROM exchange
)
SELECT
  CAST(token AS VARCHAR) AS token,
  CAST(symbol AS VARCHAR) AS symbol,
  CAST(name AS VARCHAR) AS name,
  CAST(decimals AS INT) AS decimals,
  CAST(is_verified AS BOOLEAN) AS is_verified,
  CAST(kind AS VARCHAR) AS kind,
  CAST(chain AS VARCHAR) AS chain
FROM both_kinds
