/* Each audit selects the rows that break its law; @this_model is bounded to the interval. None stops
the run: the checkpoints ask the same by account, and hold back that account only. */
AUDIT (
  name only_known_amounts_count,
  blocking FALSE
);

SELECT *
FROM @this_model
WHERE
  counts AND (amount IS NULL OR NOT is_settled OR is_scam OR is_overflow);

AUDIT (
  name sign_follows_direction,
  blocking FALSE
);

SELECT *
FROM @this_model
WHERE
  domain = 'onchain'
  AND ((leg LIKE 'in:%' AND amount < 0) OR (NOT leg LIKE 'in:%' AND amount > 0));

AUDIT (
  name flows_are_positive,
  blocking FALSE
);

SELECT *
FROM @this_model
WHERE
  inflow < 0 OR outflow < 0 OR turnover <> TRY(inflow + outflow) OR net <> inflow - outflow;

AUDIT (
  name flows_equal_transactions,
  blocking FALSE
);

WITH flows AS (
  SELECT
    @wide_sum(net_wide, TRUE) AS net_wide,
    COALESCE(SUM(legs + overflow_legs), 0) AS legs
  FROM @this_model
), movements AS (
  SELECT
    amount_wide,
    counts OR (is_overflow AND is_settled AND NOT is_scam AND kind IS DISTINCT FROM 'nft') AS moves
  FROM @touched_rows(curated.tx_unified, ts) AS t
), transactions AS (
  SELECT
    @wide_sum(amount_wide, moves) AS net_wide,
    COUNT(*) FILTER(WHERE moves) AS legs
  FROM movements
)
SELECT f.legs, t.legs AS expected_legs
FROM flows AS f
CROSS JOIN transactions AS t
WHERE
  f.legs <> t.legs OR f.net_wide IS DISTINCT FROM t.net_wide
