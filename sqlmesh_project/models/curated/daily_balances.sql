MODEL (
  name curated.daily_balances,
  kind VIEW,
  description 'What was held at the end of each UTC day: a row for every day from the first movement of a token to the last day covered. A window over daily_flows, never over transactions.',
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
), running AS (
  SELECT
    f.date, f.domain, f.source, f.account, f.token, f.net,
    @exact_sum(f.net, TRUE, so_far) AS balance,
    @wide_sum(f.net_wide, TRUE, so_far) AS balance_wide,
    COUNT(*) FILTER(WHERE f.net IS NULL) OVER so_far AS lost_sums,
    COUNT(*) FILTER(WHERE f.overflow_legs > 0) OVER so_far AS overflow_days,
    COALESCE(LEAD(f.date) OVER so_far, l.last_day + 1) AS until
  FROM curated.daily_flows AS f
  CROSS JOIN last AS l
  WHERE
    f.legs + f.overflow_legs > 0
  WINDOW so_far AS (PARTITION BY f.domain, f.source, f.account, f.token ORDER BY f.date)
), dense AS (
  /* Each balance is repeated up to the day before the next movement. */
  SELECT
    UNNEST(GENERATE_SERIES(date, until - 1, INTERVAL '1' DAY)) AS day,
    date, domain, source, account, token, net, balance, balance_wide, lost_sums, overflow_days
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
