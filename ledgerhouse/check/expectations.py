"""Builders of expectations: the words, the severity and, in `meta`, the name of each, and
`offending`: a SQL that selects the rows that break it, of which a failure names the accounts.

Native expectations where Great Expectations has one for DuckDB; otherwise SQL that selects the
rows that break the rule (`{batch}` is the table within its dates; double braces in regular
expressions).
https://docs.greatexpectations.io/docs/core/customize_expectations/use_sql_to_define_a_custom_expectation
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Expectation = Any  # great_expectations.expectations.Expectation: importing it takes seconds
Severity = Literal["critical", "warning", "info"]

KINDS = ("trade", "deposit", "withdrawal", "conversion", "reward", "transfer", "fee", "unknown")


def no_rows(name: str, severity: Severity, description: str, query: str) -> Expectation:
    """`query` selects no row; a row it selects is quoted as text: no amount is rounded."""
    as_text = f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({query})"
    return _named(
        "UnexpectedRowsExpectation",
        name,
        severity,
        description,
        query,
        unexpected_rows_query=as_text,
    )


def native(
    kind: str,
    name: str,
    severity: Severity,
    description: str,
    offending: str = "",
    **arguments: Any,
) -> Expectation:
    """Great Expectations' own expectation of a kind: Expect<kind>.

    `offending` is a condition that only the rows that break it fulfil; without one a failure
    cannot be attributed to an account, and holds back everything.
    """
    query = f"SELECT * FROM {{batch}} {offending}" if offending else ""
    return _named(f"Expect{kind}", name, severity, description, query, **arguments)


def unique(*columns: str) -> Expectation:
    """No two rows have the same values in `columns`."""
    description = f"One row per ({', '.join(columns)})"
    repeated = f"QUALIFY count(*) OVER (PARTITION BY {', '.join(columns)}) > 1"
    if len(columns) == 1:
        return native(
            "ColumnValuesToBeUnique",
            "keys_unique",
            "critical",
            description,
            repeated,
            column=columns[0],
        )
    return native(
        "CompoundColumnsToBeUnique",
        "keys_unique",
        "critical",
        description,
        repeated,
        column_list=list(columns),
    )


def present(column: str, severity: Severity = "critical") -> Expectation:
    """No row has NULL in the column."""
    return native(
        "ColumnValuesToNotBeNull",
        f"{column}_present",
        severity,
        f"Every row has its {column}",
        f"WHERE {column} IS NULL",
        column=column,
    )


def among(column: str, values: Sequence, severity: Severity = "critical") -> Expectation:
    """The column holds nothing but these values, or NULL."""
    return native(
        "ColumnValuesToBeInSet",
        f"{column}_known",
        severity,
        f"{column} is one of {', '.join(map(str, values))}",
        f"WHERE {column} NOT IN ({', '.join(map(repr, values))})",
        column=column,
        value_set=list(values),
    )


def at_least(
    column: str, least: int, severity: Severity = "critical", *, strict: bool = False
) -> Expectation:
    """No number of the column is below `least`; with `strict`, none is equal either."""
    return native(
        "ColumnValuesToBeBetween",
        f"{column}_in_range",
        severity,
        f"{column} is {'above' if strict else 'at least'} {least}",
        f"WHERE {column} {'<=' if strict else '<'} {least}",
        column=column,
        min_value=least,
        strict_min=strict,
    )


def _named(
    kind: str, name: str, severity: Severity, description: str, offending: str, **arguments: Any
) -> Expectation:
    import great_expectations.expectations as gxe

    return getattr(gxe, kind)(
        severity=severity,
        description=description,
        meta={"name": name, "offending": offending},
        **arguments,
    )
