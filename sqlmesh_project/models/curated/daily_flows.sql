MODEL (
  name curated.daily_flows,
  kind INCREMENTAL_BY_TIME_RANGE (
    time_column date,
    partition_by_time_column FALSE
  ),
  description 'What moved per UTC day, account and token. Balances are sums of this table, not of transactions. A token whose only legs do not count has a row of zeros.',
  grain (date, domain, source, account, token),
  column_descriptions (
    date = 'UTC day',
    domain = 'exchange or onchain; an adjustment is in that of its account',
    source = 'the API the rows came from',
    account = 'account name, or wallet address',
    token = 'asset code, or chain:token id',
    inflow = 'sum of counting amounts above zero; NULL when it overflows DECIMAL(38,18)',
    outflow = 'sum of counting amounts below zero, as a positive number; NULL when it overflows',
    net = 'inflow - outflow; NULL when it overflows',
    turnover = 'inflow + outflow; NULL when it overflows',
    net_wide = 'settled legs that are no scam, overflowing ones included, to six digits',
    turnover_wide = 'sum of the absolute amounts behind net_wide',
    legs = 'legs that count',
    overflow_legs = 'settled legs, no scam, no NFT, whose amount does not fit: in net_wide only',
    unsettled_legs = 'legs not settled, no scam',
    scam_legs = 'legs the source calls a scam',
    scam_net_wide = 'what these would have moved, to six digits; NULL where it does not fit',
    unknown_legs = 'settled legs, no scam, whose amount is not known: in no sum'
  ),
  audits (
    not_null_non_blocking(columns := (date, domain, source, account, token, legs)),
    unique_combination_of_columns_non_blocking(columns := (date, domain, source, account, token)),
    flows_are_positive,
    flows_equal_transactions
  )
);

WITH legs AS (
  SELECT
    CAST(ts AS DATE) AS date,
    /* Exchange assets have no colon: see token_key. */
    CASE
      WHEN domain <> 'adjustment' THEN domain
      WHEN CONTAINS(token, ':') THEN 'onchain'
      ELSE 'exchange'
    END AS domain,
    source, account,
    COALESCE(token, '') AS token,
    amount, amount_wide, counts, is_overflow, is_settled, is_scam,
    COALESCE(kind = 'nft', FALSE) AS is_nft,
    counts OR (is_overflow AND is_settled AND NOT is_scam AND COALESCE(kind <> 'nft', TRUE)) AS moves
  FROM @touched_rows(curated.tx_unified, ts) AS t
), sums AS (
  SELECT
    date, domain, source, account, token,
    @exact_sum(amount, counts AND amount > 0) AS inflow,
    @exact_sum(-amount, counts AND amount < 0) AS outflow,
    @wide_sum(amount_wide, moves) AS net_wide,
    @wide_sum(ABS(amount_wide), moves) AS turnover_wide,
    COUNT(*) FILTER(WHERE counts) AS legs,
    COUNT(*) FILTER(WHERE moves AND NOT counts) AS overflow_legs,
    COUNT(*) FILTER(WHERE NOT is_settled AND NOT is_scam AND NOT is_nft) AS unsettled_legs,
    @wide_sum(amount_wide, is_scam AND is_settled) AS scam_net_wide,
    COUNT(*) FILTER(WHERE is_scam) AS scam_legs,
    COUNT(*) FILTER(
      WHERE is_settled AND NOT is_scam AND NOT is_nft AND amount_wide IS NULL
    ) AS unknown_legs
  FROM legs
  GROUP BY
    date, domain, source, account, token
)
SELECT
  CAST(date AS DATE) AS date,
  CAST(domain AS VARCHAR) AS domain,
  CAST(source AS VARCHAR) AS source,
  CAST(account AS VARCHAR) AS account,
  CAST(token AS VARCHAR) AS token,
  CAST(inflow AS DECIMAL(38, 18)) AS inflow,
  CAST(outflow AS DECIMAL(38, 18)) AS outflow,
  CAST(TRY(inflow - outflow) AS DECIMAL(38, 18)) AS net,
  CAST(TRY(inflow + outflow) AS DECIMAL(38, 18)) AS turnover,
  CAST(net_wide AS DECIMAL(38, 6)) AS net_wide,
  CAST(turnover_wide AS DECIMAL(38, 6)) AS turnover_wide,
  CAST(legs AS BIGINT) AS legs,
  CAST(overflow_legs AS BIGINT) AS overflow_legs,
  CAST(unsettled_legs AS BIGINT) AS unsettled_legs,
  CAST(scam_legs AS BIGINT) AS scam_legs,
  CAST(scam_net_wide AS DECIMAL(38, 6)) AS scam_net_wide,
  CAST(unknown_legs AS BIGINT) AS unknown_legs
FROM sums
