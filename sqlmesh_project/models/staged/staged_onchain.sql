MODEL (
  name curated.staged_onchain,
  kind VIEW,
  description 'Every transfer of every wallet, plus one gas leg per transaction the wallet sent, failed ones included. A view: a filter on ts reaches the raw tables (test_models.py holds it).',
  grain (source, account, chain, txid, leg),
  /* A view's audits scan all of it; tx_unified audits the same rows, bounded to the interval. */
  ignored_rules ['nomissingaudits'],
  column_descriptions (
    domain = 'onchain',
    source = 'the API the row came from',
    account = 'wallet address',
    chain = 'blockchain',
    txid = 'transaction hash',
    leg = 'in:1, out:2, … or gas',
    ts = 'when it happened, UTC',
    kind = 'deposit, withdrawal, trade (both directions), fee (gas), nft (its id is 32 hex digits, no token) or unknown',
    token = 'chain:token id',
    symbol = 'ticker of the token, when known',
    amount = 'signed token units at the scale of the token; NULL when it overflows',
    amount_text = 'the same exactly as in the API response, signed, not rounded',
    is_overflow = 'the API response has an amount that does not fit DECIMAL(38,18)',
    is_settled = 'it moves the balance; false for legs of failed transactions (true for their gas) and for what the source no longer lists',
    is_scam = 'the source calls the transaction a scam; false for gas, which the wallet paid all the same',
    counts = 'settled, no scam, no NFT, and its amount is known and fits: it is summed into balances',
    status = 'succeeded or failed; vanished when the source no longer lists it',
    price = 'NULL',
    fee = 'NULL: gas is a leg of its own',
    fee_token = 'NULL',
    counterparty = 'the other address; for gas, what was called',
    ref = 'transaction hash, equal to the ref of the exchange entry at the other end',
    fills = '0'
  )
);

WITH transfers AS (
  SELECT
    t.source, t.account, t.chain, t.tx_id, t.direction, t.leg, t.ts, t.token, t.counterparty,
    t.amount_text, t.amount,
    COALESCE(t.is_scam, FALSE) AS is_scam,
    COALESCE(t.is_settled, FALSE) AND t.vanished_at IS NULL AS is_settled,
    NOT t.vanished_at IS NULL AS is_vanished,
    /* All legs of a transaction share ts; it is here so that a filter on ts passes the window. */
    COUNT(*) FILTER(WHERE t.direction = 'in') OVER transaction AS legs_in,
    COUNT(*) FILTER(WHERE t.direction = 'out') OVER transaction AS legs_out
  FROM raw.onchain_transfers AS t
  WINDOW transaction AS (PARTITION BY t.source, t.account, t.chain, t.tx_id, t.ts)
), legs AS (
  SELECT
    t.source, t.account, t.chain, t.tx_id,
    CONCAT(t.direction, ':', t.leg) AS leg,
    t.ts,
    CASE
      WHEN LENGTH(t.token) = 32 AND REGEXP_FULL_MATCH(t.token, '[0-9a-f]+') THEN 'nft'
      WHEN t.legs_in > 0 AND t.legs_out > 0 THEN 'trade'
      WHEN x.category = 'receive' AND t.legs_out = 0 THEN 'deposit'
      WHEN x.category = 'send' AND t.legs_in = 0 THEN 'withdrawal'
      ELSE 'unknown'
    END AS kind,
    t.token,
    t.direction = 'out' AS is_negative,
    t.amount_text, t.amount, t.is_settled, t.is_scam,
    CASE
      WHEN t.is_vanished THEN 'vanished'
      WHEN t.is_settled THEN 'succeeded'
      ELSE 'failed'
    END AS status,
    t.counterparty
  FROM transfers AS t
  LEFT JOIN raw.onchain_transactions AS x
    ON x.source = t.source AND x.account = t.account AND x.chain = t.chain
    AND x.tx_id = t.tx_id AND x.ts = t.ts
  UNION ALL
  SELECT
    x.source, x.account, x.chain, x.tx_id,
    'gas' AS leg,
    x.ts,
    'fee' AS kind,
    COALESCE(n.native_token, x.chain) AS token, /* mostly named as the chain: eth, bsc, arb */
    TRUE AS is_negative,
    x.gas_text AS amount_text,
    x.gas AS amount,
    x.vanished_at IS NULL AS is_settled,
    FALSE AS is_scam, /* whatever was called, the wallet paid for it */
    CASE
      WHEN NOT x.vanished_at IS NULL THEN 'vanished'
      WHEN x.status = 1 THEN 'succeeded'
      WHEN x.status = 0 THEN 'failed'
    END AS status,
    x.to_addr AS counterparty
  FROM raw.onchain_transactions AS x
  LEFT JOIN raw.onchain_chains AS n
    ON n.source = x.source AND n.chain = x.chain
  WHERE
    x.pays_gas AND (x.gas > 0 OR (x.gas IS NULL AND NOT x.gas_text IS NULL))
), scaled AS (
  SELECT
    l.source, l.account, l.chain, l.tx_id, l.leg, l.ts, l.kind,
    @token_key(l.chain, l.token) AS token,
    k.symbol,
    l.is_negative,
    @rounded(l.amount, k.decimals) AS size,
    l.amount_text, l.is_settled, l.is_scam, l.status, l.counterparty
  FROM legs AS l
  LEFT JOIN raw.onchain_tokens AS k
    ON k.source = l.source AND k.chain = l.chain AND k.token = l.token
)
SELECT
  CAST('onchain' AS VARCHAR) AS domain,
  CAST(s.source AS VARCHAR) AS source,
  CAST(s.account AS VARCHAR) AS account,
  CAST(s.chain AS VARCHAR) AS chain,
  CAST(s.tx_id AS VARCHAR) AS txid,
  CAST(s.leg AS VARCHAR) AS leg,
  CAST(s.ts AS TIMESTAMP) AS ts,
  CAST(s.kind AS VARCHAR) AS kind,
  CAST(s.token AS VARCHAR) AS token,
  CAST(s.symbol AS VARCHAR) AS symbol,
  CAST(CASE WHEN s.is_negative THEN -s.size ELSE s.size END AS DECIMAL(38, 18)) AS amount,
  CAST(CASE WHEN s.is_negative THEN '-' || s.amount_text ELSE s.amount_text END AS VARCHAR)
    AS amount_text,
  CAST(s.size IS NULL AND NOT s.amount_text IS NULL AS BOOLEAN) AS is_overflow,
  CAST(s.is_settled AS BOOLEAN) AS is_settled,
  CAST(s.is_scam AS BOOLEAN) AS is_scam,
  CAST(s.is_settled AND NOT s.is_scam AND NOT s.size IS NULL AND s.kind <> 'nft' AS BOOLEAN)
    AS counts,
  CAST(s.status AS VARCHAR) AS status,
  CAST(NULL AS DECIMAL(38, 18)) AS price,
  CAST(NULL AS DECIMAL(38, 18)) AS fee,
  CAST(NULL AS VARCHAR) AS fee_token,
  CAST(s.counterparty AS VARCHAR) AS counterparty,
  CAST(s.tx_id AS VARCHAR) AS ref,
  CAST(0 AS INT) AS fills
FROM scaled AS s
