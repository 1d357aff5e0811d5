MODEL (
  name curated.daily_balances,
  kind VIEW,
  description 'What was held at the end of each UTC day: a row for every day from the first movement of a token to the last day covered. A window over daily_flows, never over transactions. Where the variable balances_since is set, only the rows from that day on are computed, from what was held then.',
  grain (date, domain, source, account, token),
  /* A view's audits scan all of it; daily_flows, its only source of amounts, is audited. */
  ignored_rules ['nomissingaudits'],
  column_descriptions (
    date = 'UTC day; the balance is that at its end',
    domain = 'exchange or onchain',
    source = 'the API the rows came from',
    account = 'account name, or wallet address',
    token = 'asset code, or chain:token id; see curated.assets',
    net = 'change of the day; 0 on days without movement',
    balance = 'sum of net so far, overflowing legs left out; NULL when the sum does not fit DECIMAL(38,18)',
    balance_wide = 'sum of net_wide so far: six digits, overflowing legs included',
    is_exact = 'no leg and no sum has overflowed so far: balance is the truth'
  )
);

WITH horizon AS (
  SELECT CAST(MAX(end_ts) - INTERVAL '1' MICROSECOND AS DATE) AS last_day FROM ops.coverage
  UNION ALL
  SELECT MAX(date) AS last_day FROM curated.daily_flows
), last AS (
  SELECT MAX(last_day) AS last_day FROM horizon
), moves AS (
  SELECT
    date, domain, source, account, token, net,
    @whole(net) AS whole,
    @part(net, 18) AS part,
    @whole(net_wide) AS wide_whole,
    @part(net_wide, 6) AS wide_part,
    CASE WHEN net IS NULL THEN 1 ELSE 0 END AS lost,
    CASE WHEN overflow_legs > 0 THEN 1 ELSE 0 END AS overflowed
  FROM curated.daily_flows
  WHERE
    legs + overflow_legs > 0
), bounded AS (
  SELECT
    date, domain, source, account, token, net, whole, part, wide_whole, wide_part, lost, overflowed
  FROM moves
  WHERE
    date >= COALESCE(CAST(GETVARIABLE('balances_since') AS DATE), CAST('0001-01-01' AS DATE))
  UNION ALL
  /* What was held when they begin, as one move of the day before. */
  SELECT
    CAST(GETVARIABLE('balances_since') AS DATE) - 1 AS date, domain, source, account, token,
    0 AS net, SUM(whole) AS whole, SUM(part) AS part, SUM(wide_whole) AS wide_whole,
    SUM(wide_part) AS wide_part, SUM(lost) AS lost, SUM(overflowed) AS overflowed
  FROM moves
  WHERE
    date < CAST(GETVARIABLE('balances_since') AS DATE)
  GROUP BY
    domain, source, account, token
), running AS (
  SELECT
    b.date, b.domain, b.source, b.account, b.token, b.net,
    SUM(b.whole) OVER so_far AS whole,
    SUM(b.part) OVER so_far AS part,
    SUM(b.wide_whole) OVER so_far AS wide_whole,
    SUM(b.wide_part) OVER so_far AS wide_part,
    SUM(b.lost) OVER so_far AS lost_sums,
    SUM(b.overflowed) OVER so_far AS overflow_days,
    COALESCE(LEAD(b.date) OVER so_far, l.last_day + 1) AS until
  FROM bounded AS b
  CROSS JOIN last AS l
  WINDOW so_far AS (PARTITION BY b.domain, b.source, b.account, b.token ORDER BY b.date)
), dense AS (
  /* Each balance is repeated up to the day before the next movement. */
  SELECT
    UNNEST(GENERATE_SERIES(date, until - 1, INTERVAL '1' DAY)) AS day,
    date, domain, source, account, token, net, lost_sums, overflow_days,
    @joined(whole, part, 18) AS balance,
    @joined(wide_whole, wide_part, 6) AS balance_wide
  FROM running
)
SELECT
  CAST(day AS DATE) AS date,
  CAST(domain AS VARCHAR) AS domain,
  CAST(source AS VARCHAR) AS source,
  CAST(account AS VARCHAR) AS account,
  CAST(token AS VARCHAR) AS token,
  CAST(CASE WHEN day = date THEN net ELSE 0 END AS DECIMAL(38, 18)) AS net,
  CAST(CASE WHEN lost_sums = 0 THEN balance END AS DECIMAL(38, 18)) AS balance,
  CAST(balance_wide AS DECIMAL(38, 6)) AS balance_wide,
  CAST(lost_sums = 0 AND overflow_days = 0 AND NOT balance IS NULL AS BOOLEAN) AS is_exact
FROM dense
WHERE
  day >= COALESCE(CAST(GETVARIABLE('balances_since') AS DATE), CAST('0001-01-01' AS DATE))
