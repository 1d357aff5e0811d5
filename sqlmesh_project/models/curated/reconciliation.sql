MODEL (
  name curated.reconciliation,
  kind VIEW,
  description 'Reported against computed, per account and token, at the newest balance snapshot that the history reaches without a hole. Exchanges must agree to the last digit; on-chain amounts arrive as double-precision JSON numbers and may be off by what those lose.',
  grain (source, account, token),
  /* A view's audits scan all of it; the checkpoint of reconciliation reads it once a run. */
  ignored_rules ['nomissingaudits'],
  column_descriptions (
    domain = 'exchange or onchain',
    source = 'the API that reported',
    account = 'account name, or wallet address',
    token = 'asset code, or chain:token id; see curated.assets',
    snapshot_ts = 'instant of the snapshot, UTC; movements before it are summed',
    covered_to = 'end of the account history without a hole, UTC; NULL when there is none',
    reported = 'sum over the wallets of the snapshot; 0 when absent; NULL when it overflows',
    computed = 'sum of counting legs before the snapshot; NULL when it overflows',
    difference = 'reported - computed; NULL when one overflows',
    reported_text = 'reported as text without trailing zeros; to six digits when not exact',
    computed_text = 'computed as text, likewise',
    difference_text = 'difference as text, likewise',
    tolerance = 'largest difference that is no error: 0 on exchanges; on chains 3e-16 of the turnover; when not exact also half of the sixth digit per amount',
    is_exact = 'nothing overflowed; otherwise the six-digit wide sums (up to 1e32) are compared',
    status = 'exact, within_tolerance, explained (kind says by what), settling (off since less than a day: sources index late), off, awaiting_coverage (what it needs of the history is not read), or not_reconcilable',
    kind = 'what explains it: opening_inferred, rebase, spam or a kind of adjustments.toml, several joined by +, with unread where some of the history could not be read; NULL otherwise',
    reason = 'why it is not explained, in words; NULL otherwise',
    since = 'first snapshot that shows the difference (ops.breaks), UTC; NULL where there is none',
    price = 'of a unit at the snapshot, as the source says, USD; NULL or 0 where it knows none',
    residual_value = 'difference times price, USD; NULL where one is not known'
  )
);

WITH spans AS (
  SELECT
    source, account, dataset, start_ts, end_ts,
    MAX(end_ts) OVER (
      PARTITION BY source, account, dataset
      ORDER BY start_ts, end_ts
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS reached
  FROM ops.coverage
  WHERE
    dataset IN ('exchanges_ledger', 'onchain_transactions')
), histories AS (
  /* reached only grows, so its least value before a hole is where the first hole begins. */
  SELECT
    source, account, dataset,
    COALESCE(MIN(reached) FILTER(WHERE start_ts > reached), MAX(end_ts)) AS covered_to
  FROM spans
  GROUP BY
    source, account, dataset
), newest AS (
  SELECT
    s.source, s.account, s.start_ts AS ts, CAST(s.start_ts AS DATE) AS day, h.covered_to,
    COALESCE(s.start_ts <= h.covered_to, FALSE) AS is_covered,
    CASE h.dataset WHEN 'exchanges_ledger' THEN 'exchange' WHEN 'onchain_transactions' THEN 'onchain' END
      AS domain
  FROM ops.coverage AS s
  LEFT JOIN histories AS h
    ON h.source = s.source AND h.account = s.account
  WHERE
    s.dataset = 'balances'
  QUALIFY
    ROW_NUMBER() OVER (
      PARTITION BY s.source, s.account
      ORDER BY COALESCE(s.start_ts <= h.covered_to, FALSE) DESC, s.start_ts DESC
    ) = 1
), snapshots AS (
  SELECT
    b.source, b.account, b.token,
    @exact_sum(b.amount, TRUE) AS reported,
    @wide_sum(
      COALESCE(TRY_CAST(b.amount AS DECIMAL(38, 6)), TRY_CAST(b.amount_text AS DECIMAL(38, 6))),
      TRUE
    ) AS reported_wide,
    COUNT(*) FILTER(WHERE b.amount IS NULL) AS lost,
    COUNT(*) FILTER(
      WHERE b.amount IS NULL AND TRY_CAST(b.amount_text AS DECIMAL(38, 6)) IS NULL
    ) AS unheld,
    MAX(b.price) AS price,
    COALESCE(BOOL_OR(NOT b.is_verified), FALSE) AS is_unverified,
    COUNT(*) AS wallets
  FROM raw.balances AS b
  JOIN newest AS n
    ON n.source = b.source AND n.account = b.account AND n.ts = b.ts
  GROUP BY
    b.source, b.account, b.token
), movements AS (
  SELECT
    f.source, f.account, f.token, f.net, f.turnover, f.net_wide, f.turnover_wide,
    f.overflow_legs + CASE WHEN f.net IS NULL OR f.turnover IS NULL THEN 1 ELSE 0 END AS lost,
    f.legs + f.overflow_legs AS legs,
    f.legs + f.overflow_legs + f.unsettled_legs + f.unknown_legs AS honest_legs,
    f.scam_legs, f.scam_net_wide, f.unknown_legs
  FROM curated.daily_flows AS f
  JOIN newest AS n
    ON n.source = f.source AND n.account = f.account AND f.date < n.day
  UNION ALL
  SELECT
    u.source, u.account, COALESCE(u.token, '') AS token,
    CASE WHEN u.counts THEN u.amount ELSE 0 END AS net,
    CASE WHEN u.counts THEN ABS(u.amount) ELSE 0 END AS turnover,
    CASE WHEN u.is_settled AND NOT u.is_scam THEN u.amount_wide ELSE 0 END AS net_wide,
    CASE WHEN u.is_settled AND NOT u.is_scam THEN ABS(u.amount_wide) ELSE 0 END AS turnover_wide,
    CASE WHEN u.is_overflow AND u.is_settled AND NOT u.is_scam THEN 1 ELSE 0 END AS lost,
    CASE WHEN u.is_settled AND NOT u.is_scam THEN 1 ELSE 0 END AS legs,
    CASE WHEN u.is_scam THEN 0 ELSE 1 END AS honest_legs,
    CASE WHEN u.is_scam THEN 1 ELSE 0 END AS scam_legs,
    CASE WHEN u.is_scam AND u.is_settled THEN u.amount_wide ELSE 0 END AS scam_net_wide,
    CASE WHEN u.is_settled AND NOT u.is_scam AND u.amount_wide IS NULL THEN 1 ELSE 0 END
      AS unknown_legs
  FROM curated.tx_unified AS u
  JOIN newest AS n
    ON n.source = u.source AND n.account = u.account AND u.ts >= n.day AND u.ts < n.ts
  WHERE
    COALESCE(u.kind <> 'nft', TRUE)
    AND u.ts >= (SELECT MIN(day) FROM newest) AND u.ts < (SELECT MAX(ts) FROM newest)
), computations AS (
  SELECT
    source, account, token,
    @exact_sum(net, TRUE) AS computed,
    @exact_sum(turnover, TRUE) AS turnover,
    @wide_sum(net_wide, TRUE) AS computed_wide,
    @wide_sum(turnover_wide, TRUE) AS turnover_wide,
    SUM(lost) AS lost,
    SUM(legs) AS legs,
    SUM(honest_legs) AS honest_legs,
    SUM(scam_legs) AS scam_legs,
    @wide_sum(scam_net_wide, TRUE) AS scam_net_wide,
    SUM(unknown_legs) AS unknown_legs
  FROM movements
  GROUP BY
    source, account, token
), paired AS (
  SELECT
    COALESCE(s.source, c.source) AS source,
    COALESCE(s.account, c.account) AS account,
    COALESCE(s.token, c.token) AS token,
    CASE WHEN s.token IS NULL THEN 0 ELSE s.reported END AS reported,
    CASE WHEN s.token IS NULL THEN 0 ELSE s.reported_wide END AS reported_wide,
    CASE WHEN c.token IS NULL THEN 0 ELSE c.computed END AS computed,
    CASE WHEN c.token IS NULL THEN 0 ELSE c.computed_wide END AS computed_wide,
    CASE WHEN c.token IS NULL THEN 0 ELSE c.turnover END AS turnover,
    CASE WHEN c.token IS NULL THEN 0 ELSE c.turnover_wide END AS turnover_wide,
    COALESCE(s.lost, 0) + COALESCE(c.lost, 0) AS lost,
    COALESCE(s.wallets, 0) + COALESCE(c.legs, 0) AS amounts,
    s.price,
    COALESCE(s.unheld, 0) AS unheld,
    COALESCE(c.unknown_legs, 0) AS unknown_legs,
    COALESCE(c.honest_legs, 0) AS honest_legs,
    /* Flags of a token and of its transactions need not agree. A verified token is spam only where
       all that is reported came by transactions that are a scam: of real tokens, too, transfers of
       nothing are sent to poison a history. */
    NOT s.token IS NULL
    AND CASE
      WHEN s.is_unverified
      THEN COALESCE(c.scam_legs, 0) > 0 OR COALESCE(c.honest_legs, 0) = 0
      ELSE COALESCE(c.scam_legs, 0) > 0 AND c.honest_legs = 0
      AND COALESCE(
        ABS(s.reported_wide - c.scam_net_wide)
          <= CAST(
            CAST(ABS(s.reported_wide) AS DECIMAL(33, 0)) * CAST(0.0000000000000003 AS DECIMAL(16, 16))
            AS DECIMAL(38, 6)
          ) + CAST(0.00001 AS DECIMAL(6, 5)),
        FALSE
      )
    END AS is_spam,
    s.token IS NULL AS is_unlisted
  FROM snapshots AS s
  FULL JOIN computations AS c
    ON c.source = s.source AND c.account = s.account AND c.token = s.token
  WHERE
    NOT s.token IS NULL OR c.honest_legs > 0
), explained AS (
  SELECT
    a.source, a.account, a.token,
    STRING_AGG(DISTINCT a.kind, '+' ORDER BY a.kind) AS kind
  FROM raw.adjustments AS a
  JOIN newest AS n
    ON n.source = a.source AND n.account = a.account AND a.ts < n.ts
  GROUP BY
    a.source, a.account, a.token
), unread AS (
  /* A part is a wallet of the exchange, or a chain. */
  SELECT
    p.source, p.account, p.token,
    MIN(CONCAT(u.part, ': ', u.reason)) AS reason
  FROM paired AS p
  JOIN newest AS n
    ON n.source = p.source AND n.account = p.account
  JOIN ops.unread_parts AS u
    ON u.source = p.source AND u.account = p.account AND u.start_ts < n.ts
  LEFT JOIN raw.balances AS b
    ON b.source = p.source AND b.account = p.account AND b.token = p.token AND b.ts = n.ts
  WHERE
    u.part = b.wallet OR (CONTAINS(p.token, ':') AND u.part = SPLIT_PART(p.token, ':', 1))
  GROUP BY
    p.source, p.account, p.token
), broken AS (
  SELECT
    source, account, token,
    MIN(first_bad_ts) AS since,
    ARG_MIN(explanation, first_bad_ts) AS explanation
  FROM ops.breaks
  WHERE
    suspect <> 'adjustment'
  GROUP BY
    source, account, token
), compared AS (
  SELECT
    COALESCE(n.domain, CASE WHEN CONTAINS(p.token, ':') THEN 'onchain' ELSE 'exchange' END) AS domain,
    p.source, p.account, p.token, n.ts, n.covered_to, n.is_covered,
    p.reported, p.computed, p.reported_wide, p.computed_wide,
    TRY(p.reported - p.computed) AS difference,
    TRY(p.reported_wide - p.computed_wide) AS difference_wide,
    p.turnover, p.turnover_wide, p.amounts, p.price, p.unheld, p.unknown_legs, p.honest_legs,
    p.is_spam, p.is_unlisted,
    p.lost = 0 AND NOT p.turnover IS NULL AND NOT TRY(p.reported - p.computed) IS NULL AS is_exact,
    e.kind, r.reason AS unread, k.since, k.explanation,
    CASE WHEN NOT o.reconcilable THEN o.why END AS incomplete
  FROM paired AS p
  JOIN newest AS n
    ON n.source = p.source AND n.account = p.account
  LEFT JOIN explained AS e
    ON e.source = p.source AND e.account = p.account AND e.token = p.token
  LEFT JOIN unread AS r
    ON r.source = p.source AND r.account = p.account AND r.token = p.token
  LEFT JOIN broken AS k
    ON k.source = p.source AND k.account = p.account AND k.token = p.token
  LEFT JOIN ops.sources AS o
    ON o.source = p.source
), judged AS (
  SELECT
    domain, source, account, token, ts, covered_to, is_covered, is_exact,
    reported, computed, difference, price, unknown_legs, honest_legs, is_spam, is_unlisted, kind,
    unread, since, explanation, incomplete,
    unheld > 0 OR reported_wide IS NULL OR computed_wide IS NULL AS is_unheld,
    CASE WHEN is_exact THEN @plain(reported) ELSE @plain(reported_wide) END AS reported_text,
    CASE WHEN is_exact THEN @plain(computed) ELSE @plain(computed_wide) END AS computed_text,
    CASE WHEN is_exact THEN @plain(difference) ELSE @plain(difference_wide) END AS difference_text,
    CASE
      WHEN is_exact AND domain = 'exchange' THEN 0
      WHEN is_exact
      THEN (CAST(turnover AS DECIMAL(22, 2)) + 0.01) * CAST(0.0000000000000003 AS DECIMAL(16, 16))
      ELSE CASE domain
        WHEN 'onchain'
        THEN CAST(turnover_wide AS DECIMAL(33, 0)) * CAST(0.0000000000000003 AS DECIMAL(16, 16))
        ELSE 0
      END + CAST(amounts AS DECIMAL(18, 0)) * CAST(0.0000005 AS DECIMAL(7, 7))
    END AS tolerance,
    CASE
      WHEN is_exact THEN ABS(CAST(difference AS DECIMAL(38, 18)))
      ELSE TRY_CAST(ABS(difference_wide) AS DECIMAL(38, 18))
    END AS distance
  FROM compared
), decided AS (
  SELECT
    domain, source, account, token, ts, covered_to, is_covered, is_exact, reported, computed,
    difference, price, unknown_legs, honest_legs, is_spam, is_unlisted, kind, unread, since,
    explanation, incomplete, is_unheld, reported_text, computed_text, difference_text, tolerance, distance,
    CASE
      WHEN NOT is_covered THEN 'awaiting_coverage'
      WHEN is_unheld THEN 'not_reconcilable'
      WHEN COALESCE(distance <= tolerance, FALSE)
      THEN CASE
        WHEN unknown_legs > 0 AND unknown_legs = honest_legs THEN 'not_reconcilable'
        WHEN NOT kind IS NULL THEN 'explained'
        WHEN is_exact AND distance = 0 THEN 'exact'
        ELSE 'within_tolerance'
      END
      WHEN is_spam THEN 'explained'
      WHEN NOT unread IS NULL THEN 'awaiting_coverage'
      WHEN NOT incomplete IS NULL THEN 'not_reconcilable'
      WHEN since > ts - INTERVAL '1' DAY THEN 'settling'
      ELSE 'off'
    END AS status
  FROM judged
)
SELECT
  CAST(domain AS VARCHAR) AS domain,
  CAST(source AS VARCHAR) AS source,
  CAST(account AS VARCHAR) AS account,
  CAST(token AS VARCHAR) AS token,
  CAST(ts AS TIMESTAMP) AS snapshot_ts,
  CAST(covered_to AS TIMESTAMP) AS covered_to,
  CAST(CASE WHEN is_exact THEN reported END AS DECIMAL(38, 18)) AS reported,
  CAST(CASE WHEN is_exact THEN computed END AS DECIMAL(38, 18)) AS computed,
  CAST(CASE WHEN is_exact THEN difference END AS DECIMAL(38, 18)) AS difference,
  CAST(reported_text AS VARCHAR) AS reported_text,
  CAST(computed_text AS VARCHAR) AS computed_text,
  CAST(difference_text AS VARCHAR) AS difference_text,
  CAST(tolerance AS DECIMAL(38, 18)) AS tolerance,
  CAST(is_exact AS BOOLEAN) AS is_exact,
  CAST(status AS VARCHAR) AS status,
  CAST(CASE
    WHEN status <> 'explained' THEN NULL
    WHEN COALESCE(distance <= tolerance, FALSE)
    THEN CONCAT(kind, CASE WHEN NOT unread IS NULL THEN '+unread' ELSE '' END)
    ELSE 'spam'
  END AS VARCHAR) AS kind,
  CAST(CASE
    WHEN status IN ('exact', 'within_tolerance', 'explained') THEN NULL
    WHEN covered_to IS NULL THEN 'no history is read yet'
    WHEN NOT is_covered THEN CONCAT('the history is whole only to ', CAST(covered_to AS VARCHAR))
    WHEN is_unheld THEN 'an amount is beyond what can be held'
    WHEN status = 'not_reconcilable' AND NOT incomplete IS NULL
    THEN CONCAT('the source does not list all: ', incomplete)
    WHEN status = 'not_reconcilable' OR (status <> 'awaiting_coverage' AND unknown_legs > 0)
    THEN CONCAT(CAST(unknown_legs AS VARCHAR), ' of its movements have no amount that can be read')
    WHEN status = 'awaiting_coverage' THEN CONCAT('not read: ', unread)
    WHEN NOT explanation IS NULL THEN explanation
    WHEN is_unlisted THEN 'it moved, but the source lists no balance of it'
    WHEN honest_legs = 0 THEN 'a balance is reported, but no movement of it'
    ELSE 'reported and computed differ'
  END AS VARCHAR) AS reason,
  CAST(CASE WHEN status IN ('settling', 'off') THEN since END AS TIMESTAMP) AS since,
  CAST(price AS DECIMAL(38, 18)) AS price,
  CAST(TRY(
    CAST(CASE WHEN is_exact THEN difference END AS DECIMAL(38, 12)) * CAST(price AS DECIMAL(38, 8))
  ) AS DECIMAL(38, 6)) AS residual_value
FROM decided
