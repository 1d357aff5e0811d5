MODEL (
  name curated.tx_unified,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column ts,
    partition_by_time_column FALSE
  ),
  description 'Every movement of every account, exchange and on-chain alike, one row per leg, and the adjustments of raw.adjustments, which no vendor lists. Nothing is dropped: scam, failed, pending and overflowing legs are kept and do not count.',
  grain (domain, source, account, chain, txid, leg),
  column_descriptions (
    domain = 'exchange or onchain; adjustment for rows of raw.adjustments',
    source = 'the API the row came from',
    account = 'account name, or wallet address',
    chain = 'blockchain; empty on exchanges',
    txid = 'ledger entry id, transaction hash, or adjustment id',
    leg = 'entry on exchanges and of adjustments; in:1, out:2, … or gas on chains',
    ts = 'when it happened, UTC',
    kind = 'trade, deposit, withdrawal, conversion, reward, transfer, fee, nft or unknown; of adjustments opening, opening_inferred, reward (growth of a rebasing token) or adjustment',
    token = 'asset code, or chain:token id; see curated.assets',
    symbol = 'ticker, when known',
    amount = 'signed token units; NULL when it overflows DECIMAL(38,18)',
    amount_text = 'the same exactly as in the API response, signed',
    amount_wide = 'signed token units to six digits, up to 1e32; NULL when even that overflows',
    is_overflow = 'the API response has an amount that does not fit DECIMAL(38,18)',
    is_settled = 'final: it moves the balance',
    is_scam = 'the source calls it a scam',
    counts = 'settled, no scam, and its amount is known and fits: it is summed into balances',
    status = 'status word of the source; of adjustments their own kind',
    price = 'quote units per base unit, when all fills of the order have one price',
    fee = 'fee contained in amount, in fee_token units',
    fee_token = 'asset of the fee',
    counterparty = 'the other address',
    ref = 'trade, order or blockchain transaction it belongs to; of adjustments their evidence',
    fills = 'fills of the order'
  ),
  audits (
    not_null_non_blocking(columns := (domain, source, account, chain, txid, leg, ts, kind, counts)),
    unique_combination_of_columns_non_blocking(columns := (domain, source, account, chain, txid, leg)),
    accepted_values_non_blocking(column := domain, is_in := ('exchange', 'onchain', 'adjustment')),
    accepted_values_non_blocking(column := kind, is_in := ('trade', 'deposit', 'withdrawal', 'conversion', 'reward', 'transfer', 'fee', 'nft', 'opening', 'opening_inferred', 'adjustment', 'unknown')),
    only_known_amounts_count,
    sign_follows_direction
  )
);

WITH all_domains AS (
  SELECT
    domain, source, account, chain, txid, leg, ts, kind, token, symbol, amount, amount_text,
    is_overflow, is_settled, is_scam, counts, status, price, fee, fee_token, counterparty, ref,
    fills
  FROM @touched_rows(curated.staged_exchanges, ts) AS e
  UNION ALL
  SELECT
    domain, source, account, chain, txid, leg, ts, kind, token, symbol, amount, amount_text,
    is_overflow, is_settled, is_scam, counts, status, price, fee, fee_token, counterparty, ref,
    fills
  FROM curated.staged_onchain
  WHERE
    @touched(ts)
  UNION ALL
  SELECT
    'adjustment' AS domain,
    a.source, a.account,
    '' AS chain,
    a.adjustment_id AS txid,
    'entry' AS leg,
    a.ts,
    CASE
      WHEN a.kind IN ('opening', 'opening_inferred') THEN a.kind
      WHEN a.kind IN ('rebase', 'reward') THEN 'reward'
      ELSE 'adjustment'
    END AS kind,
    a.token,
    NULL AS symbol,
    a.amount, a.amount_text,
    a.amount IS NULL AS is_overflow,
    TRUE AS is_settled,
    FALSE AS is_scam,
    NOT a.amount IS NULL AS counts,
    a.kind AS status,
    NULL AS price,
    NULL AS fee,
    NULL AS fee_token,
    NULL AS counterparty,
    a.evidence AS ref,
    0 AS fills
  FROM raw.adjustments AS a
  WHERE
    @touched(a.ts)
)
SELECT
  CAST(domain AS VARCHAR) AS domain,
  CAST(source AS VARCHAR) AS source,
  CAST(account AS VARCHAR) AS account,
  CAST(chain AS VARCHAR) AS chain,
  CAST(txid AS VARCHAR) AS txid,
  CAST(leg AS VARCHAR) AS leg,
  CAST(ts AS TIMESTAMP) AS ts,
  CAST(kind AS VARCHAR) AS kind,
  CAST(token AS VARCHAR) AS token,
  CAST(symbol AS VARCHAR) AS symbol,
  CAST(amount AS DECIMAL(38, 18)) AS amount,
  CAST(amount_text AS VARCHAR) AS amount_text,
  COALESCE(TRY_CAST(amount AS DECIMAL(38, 6)), TRY_CAST(amount_text AS DECIMAL(38, 6)))
    AS amount_wide,
  CAST(is_overflow AS BOOLEAN) AS is_overflow,
  CAST(is_settled AS BOOLEAN) AS is_settled,
  CAST(is_scam AS BOOLEAN) AS is_scam,
  CAST(counts AS BOOLEAN) AS counts,
  CAST(status AS VARCHAR) AS status,
  CAST(price AS DECIMAL(38, 18)) AS price,
  CAST(fee AS DECIMAL(38, 18)) AS fee,
  CAST(fee_token AS VARCHAR) AS fee_token,
  CAST(counterparty AS VARCHAR) AS counterparty,
  CAST(ref AS VARCHAR) AS ref,
  CAST(fills AS INT) AS fills
FROM all_domains
ORDER BY
  ts
