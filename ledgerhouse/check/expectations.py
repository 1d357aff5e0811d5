"""Great Expectations' expectations as the suites make them, each with its name in `meta`.

Native expectations where Great Expectations has one for DuckDB; otherwise SQL that selects the
rows breaking the law (`{batch}` is the bounded table; double braces in regular expressions).
https://docs.greatexpectations.io/docs/core/customize_expectations/use_sql_to_define_a_custom_expectation
"""

from __future__ import annotations

from collections.abc import Sequence

KINDS = ("trade", "deposit", "withdrawal", "conversion", "reward", "transfer", "fee", "unknown")


def rows(name: str, severity: str, says: str, query: str):
    """No row is selected by `query`; what is selected is quoted as text: no amount is rounded."""
    import great_expectations.expectations as gxe

    return gxe.UnexpectedRowsExpectation(
        unexpected_rows_query=f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({query})",
        severity=severity,
        description=says,
        meta={"name": name},
    )


def native(kind: str, name: str, severity: str, says: str, **arguments):
    """Great Expectations' own Expect<kind>."""
    import great_expectations.expectations as gxe

    return getattr(gxe, f"Expect{kind}")(
        severity=severity, description=says, meta={"name": name}, **arguments
    )


def unique(*columns: str):
    says = f"One row per ({', '.join(columns)})"
    if len(columns) == 1:
        return native("ColumnValuesToBeUnique", "keys_unique", "critical", says, column=columns[0])
    return native(
        "CompoundColumnsToBeUnique", "keys_unique", "critical", says, column_list=list(columns)
    )


def present(column: str, severity: str = "critical"):
    return native(
        "ColumnValuesToNotBeNull",
        f"{column}_present",
        severity,
        f"Every row has its {column}",
        column=column,
    )


def among(column: str, values: Sequence, severity: str = "critical"):
    return native(
        "ColumnValuesToBeInSet",
        f"{column}_known",
        severity,
        f"{column} is one of {', '.join(map(str, values))}",
        column=column,
        value_set=list(values),
    )


def at_least(column: str, least: int, *, strict: bool = False):
    return native(
        "ColumnValuesToBeBetween",
        f"{column}_in_range",
        "critical",
        f"{column} is {'above' if strict else 'at least'} {least}",
        column=column,
        min_value=least,
        strict_min=strict,
    )
