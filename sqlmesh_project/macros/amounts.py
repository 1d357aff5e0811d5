"""Exact arithmetic on DECIMAL that survives whatever a token's maker can mint."""

from sqlmesh import macro


# TRUNC divides 128-bit integers, 0.4 us a value: of small ones no sum of 1e11 rows overflows, so
# only the large ones are summed as whole and fractional parts.
SMALL = 10**9


def _whole(value: str, small: str) -> str:
    return (f"CASE WHEN {value} BETWEEN -{SMALL} AND {SMALL} THEN {small}"
            f" ELSE CAST(TRUNC({value}) AS DECIMAL(32, 0)) END")


def _part(value: str, scale: int) -> str:
    return (f"CASE WHEN {value} BETWEEN -{SMALL} AND {SMALL} THEN {value}"
            f" ELSE CAST({value} - TRUNC({value}) AS DECIMAL({scale}, {scale})) END")


def _joined(whole: str, parts: str, scale: int) -> str:
    units = f"{whole} + TRUNC({parts})"
    return (
        f"CASE WHEN {whole} = 0 THEN CAST({parts} AS DECIMAL(38, {scale}))"
        f" WHEN ABS({units}) < {10 ** (38 - scale)}"
        f" THEN TRY_CAST({units} AS DECIMAL(38, {scale}))"
        f" + CAST({parts} - TRUNC({parts}) AS DECIMAL(38, {scale})) END"
    )


def _safe_sum(amount, condition, scale: int) -> str:
    value, total = amount.sql("duckdb"), f"FILTER (WHERE {condition.sql('duckdb')})"
    return _joined(f"COALESCE(SUM({_whole(value, 'NULL')}) {total}, 0)",
                   f"COALESCE(SUM({_part(value, scale)}) {total}, 0)", scale)


@macro()
def whole(evaluator, amount):
    """What `exact_sum` adds up, to sum in steps: the integer part of a large DECIMAL, else 0."""
    return f"COALESCE({_whole(amount.sql('duckdb'), '0')}, 0)"


@macro()
def part(evaluator, amount, scale):
    """The rest of a DECIMAL of `scale` digits after the point: all of a small one, 0 for NULL."""
    return f"COALESCE({_part(amount.sql('duckdb'), int(scale.sql()))}, 0)"


@macro()
def joined(evaluator, whole, part, scale):
    """Sums of wholes and of parts as one DECIMAL(38,scale); NULL where it does not fit."""
    return _joined(whole.sql("duckdb"), part.sql("duckdb"), int(scale.sql()))


@macro()
def exact_sum(evaluator, amount, condition):
    """SUM of a DECIMAL(38,18) where `condition`: 0 for no rows, NULL where it does not fit.

    DuckDB's own SUM raises past 1e20, so a spam token minted at 9e19 and sent twice would stop
    every later run. Whole and fractional parts of large amounts are summed apart, where neither
    can overflow.
    """
    return _safe_sum(amount, condition, 18)


@macro()
def wide_sum(evaluator, amount, condition):
    """The same for a DECIMAL(38,6): up to 1e32 units, six digits after the point."""
    return _safe_sum(amount, condition, 6)


@macro()
def rounded(evaluator, amount, decimals):
    """`amount` at the token's own scale: the response's 16179.999999999998 of 6 decimals is 16180.

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
def token_key(evaluator, chain, token):
    """One column naming an on-chain token: 'eth:0xa0b8…'. Exchange assets have no colon."""
    return f"CONCAT({chain.sql('duckdb')}, ':', {token.sql('duckdb')})"
