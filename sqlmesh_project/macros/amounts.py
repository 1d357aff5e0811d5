"""Exact arithmetic on DECIMAL that survives whatever a token's maker can mint."""

from sqlmesh import macro


def _safe_sum(amount, condition, window, scale: int) -> str:
    value = amount.sql("duckdb")
    total = f"FILTER (WHERE {condition.sql('duckdb')})" + (f" OVER {window.name}" if window else "")
    whole = f"COALESCE(SUM(CAST(TRUNC({value}) AS DECIMAL(32, 0))) {total}, 0)"
    parts = f"COALESCE(SUM(CAST({value} - TRUNC({value}) AS DECIMAL({scale}, {scale}))) {total}, 0)"
    units = f"{whole} + TRUNC({parts})"
    return (
        f"CASE WHEN ABS({units}) < {10 ** (38 - scale)}"
        f" THEN TRY_CAST({units} AS DECIMAL(38, {scale}))"
        f" + CAST({parts} - TRUNC({parts}) AS DECIMAL(38, {scale})) END"
    )


@macro()
def exact_sum(evaluator, amount, condition, window=None):
    """SUM of a DECIMAL(38,18) where `condition`: 0 for no rows, NULL where it does not fit.

    DuckDB's own SUM raises past 1e20, so a spam token minted at 9e19 and sent twice would stop
    every later run. Whole and fractional parts are summed apart, where neither can overflow.
    `window` is the name of a WINDOW of the query.
    """
    return _safe_sum(amount, condition, window, 18)


@macro()
def wide_sum(evaluator, amount, condition, window=None):
    """The same for a DECIMAL(38,6): up to 1e32 units, six digits after the point."""
    return _safe_sum(amount, condition, window, 6)


@macro()
def rounded(evaluator, amount, decimals):
    """`amount` at the token's own scale: the wire's 16179.999999999998 of 6 decimals is 16180.

    Unknown decimals, and 18 or more, leave it as it is; NULL where rounding up leaves
    DECIMAL(38,18). DuckDB's ROUND wants a constant scale, hence the CASE.
    """
    value, scale = amount.sql("duckdb"), decimals.sql("duckdb")
    cases = " ".join(
        f"WHEN {d} THEN TRY_CAST(ROUND({value}, {d}) AS DECIMAL(38, 18))" for d in range(18)
    )
    return f"CASE {scale} {cases} ELSE CAST({value} AS DECIMAL(38, 18)) END"


@macro()
def plain(evaluator, amount):
    """A DECIMAL as text without trailing zeros: 16180.000000 is 16180."""
    return f"RTRIM(RTRIM(CAST({amount.sql('duckdb')} AS VARCHAR), '0'), '.')"


@macro()
def native_token(evaluator, chain):
    """Id of the token a chain's gas is paid in.

    DeBank names the native token by the chain's own id (eth, bsc, matic, arb, op, avax), on
    rollups too: arb's gas is ether, but its token id there is 'arb'.
    """
    return chain


@macro()
def token_key(evaluator, chain, token):
    """One column naming an on-chain token: 'eth:0xa0b8…'. Exchange assets have no colon."""
    return f"CONCAT({chain.sql('duckdb')}, ':', {token.sql('duckdb')})"
