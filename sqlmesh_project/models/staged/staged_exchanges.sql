MODEL (
  name curated.staged_exchanges,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column ts,
    partition_by_time_column FALSE
  ),
  description 'Every entry of every exchange ledger, with what its fills tell. The ledger is the authority on balances: a fill enriches an entry of its order, made within a day of it, and never adds one.',
  grain (source, account, txid),
  column_descriptions (
    domain = 'exchange',
    source = 'the API the row came from',
    account = 'account within the source',
    chain = 'empty',
    txid = 'the ledger entry id',
    leg = 'entry',
    ts = 'when it happened, UTC',
    kind = 'trade, deposit, withdrawal, conversion, reward, transfer, fee or unknown',
    token = 'asset code',
    symbol = 'asset code',
    amount = 'signed change of the balance in token units, fees included; NULL when it overflows',
    amount_text = 'the same exactly as in the API response',
    is_overflow = 'the API response has an amount that does not fit DECIMAL(38,18)',
    is_settled = 'final: it moves the balance; false for entries the exchange no longer lists',
    is_scam = 'false',
    counts = 'settled, and its amount is known and fits: it is summed into balances',
    status = 'the status word of the exchange; vanished when it no longer lists the entry',
    price = 'quote units per base unit, when all fills of the order have one price',
    fee = 'fee contained in amount, in fee_token units',
    fee_token = 'asset of the fee',
    counterparty = 'NULL',
    ref = 'trade, order or blockchain transaction the entry belongs to',
    fills = 'fills of the order from the day before to the day after'
  ),
  audits (
    not_null_non_blocking(columns := (source, account, txid, ts, kind, counts)),
    unique_combination_of_columns_non_blocking(columns := (source, account, txid)),
    accepted_values_non_blocking(column := kind, is_in := ('trade', 'deposit', 'withdrawal', 'conversion', 'reward', 'transfer', 'fee', 'unknown')),
    only_known_amounts_count
  )
);

WITH entries AS (
  SELECT
    l.source, l.account, l.entry_id, l.ts, l.kind, l.asset, l.amount, l.amount_text,
    COALESCE(l.is_settled, FALSE) AND l.vanished_at IS NULL AS is_settled,
    CASE WHEN l.vanished_at IS NULL THEN l.status ELSE 'vanished' END AS status,
    l.fee, l.fee_asset, l.order_id, l.trade_id, l.tx_hash,
    CAST(l.ts AS DATE) AS day
  FROM @touched_rows(raw.exchanges_ledger, ts) AS l
), orders AS (
  SELECT DISTINCT source, account, order_id, day FROM entries WHERE NOT order_id IS NULL
), fills AS (
  /* A day either side of the entry's own day, not of the interval: a row must not depend on
     how many days are transformed together. */
  SELECT
    o.source, o.account, o.order_id, o.day,
    COUNT(*) AS fills,
    CASE
      WHEN MIN(t.price) = MAX(t.price) AND COUNT(t.price) = COUNT(*) THEN MIN(t.price)
    END AS price
  FROM orders AS o
  JOIN @touched_rows(raw.exchanges_trades, ts, 1) AS t
    ON t.source = o.source AND t.account = o.account AND t.order_id = o.order_id
    AND t.ts >= o.day - INTERVAL '1' DAY AND t.ts < o.day + INTERVAL '2' DAY
  WHERE
    t.vanished_at IS NULL
  GROUP BY
    o.source, o.account, o.order_id, o.day
)
SELECT
  CAST('exchange' AS VARCHAR) AS domain,
  CAST(e.source AS VARCHAR) AS source,
  CAST(e.account AS VARCHAR) AS account,
  CAST('' AS VARCHAR) AS chain,
  CAST(e.entry_id AS VARCHAR) AS txid,
  CAST('entry' AS VARCHAR) AS leg,
  CAST(e.ts AS TIMESTAMP) AS ts,
  CAST(CASE
    WHEN e.kind IN ('trade', 'deposit', 'withdrawal', 'conversion', 'reward', 'transfer', 'fee')
    THEN e.kind
    ELSE 'unknown'
  END AS VARCHAR) AS kind,
  CAST(e.asset AS VARCHAR) AS token,
  CAST(e.asset AS VARCHAR) AS symbol,
  CAST(e.amount AS DECIMAL(38, 18)) AS amount,
  CAST(e.amount_text AS VARCHAR) AS amount_text,
  CAST(e.amount IS NULL AND NOT e.amount_text IS NULL AS BOOLEAN) AS is_overflow,
  CAST(e.is_settled AS BOOLEAN) AS is_settled,
  CAST(FALSE AS BOOLEAN) AS is_scam,
  CAST(e.is_settled AND NOT e.amount IS NULL AS BOOLEAN) AS counts,
  CAST(e.status AS VARCHAR) AS status,
  CAST(f.price AS DECIMAL(38, 18)) AS price,
  CAST(e.fee AS DECIMAL(38, 18)) AS fee,
  CAST(e.fee_asset AS VARCHAR) AS fee_token,
  CAST(NULL AS VARCHAR) AS counterparty,
  CAST(COALESCE(e.trade_id, e.order_id, e.tx_hash) AS VARCHAR) AS ref,
  CAST(COALESCE(f.fills, 0) AS INT) AS fills
FROM entries AS e
LEFT JOIN fills AS f
  ON f.source = e.source AND f.account = e.account AND f.order_id = e.order_id AND f.day = e.day
