"""SQL that the mappings of all sources share."""

from __future__ import annotations

from extract.core.records import TIME

_USUAL = r"[12][0-9]{3}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?Z?"


def time(text: str) -> str:
    """SQL of a record's time as TIMESTAMP in UTC, NULL where it is none.

    As extract.core.records.time_of reads it. DuckDB's own cast to TIMESTAMP passes over an offset,
    so only what has none takes that short way.
    """
    seconds = f"CASE WHEN {text}[17] = ':' THEN {text} ELSE {text}[:16] || ':00' || {text}[17:] END"
    zone = f"CASE WHEN regexp_matches({text}, '(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$') AND length({text}) > 16 THEN '' ELSE 'Z' END"
    return (
        f"CASE WHEN regexp_full_match({text}, '{_USUAL}') THEN TRY_CAST({text} AS TIMESTAMP) "
        f"WHEN regexp_full_match({text}, '{TIME}') "
        f"THEN TRY_CAST(({seconds}) || {zone} AS TIMESTAMPTZ) AT TIME ZONE 'UTC' END"
    )


def seconds(text: str) -> str:
    """SQL of seconds since 1970, which may have a fraction, as TIMESTAMP in UTC; else NULL."""
    return (
        f"make_timestamp(TRY_CAST(TRY_CAST({text} AS DECIMAL(24,6))::DECIMAL(38,6) * 1000000 "
        "AS BIGINT))"
    )


def decimal(text: str) -> str:
    """SQL of an amount's text as DECIMAL(38,18): exact, or NULL where it does not fit, has more
    than 18 digits after the point (a cast would round them away), or is no number.
    """
    return _decimal(text, f"WHEN {_scale(text)} <= 18 THEN")


def decimal_of_float(text: str) -> str:
    """The same of a JSON number that has been a double: the nearest DECIMAL(38,18), since the
    digits of a double go on where those of the amount have ended.
    """
    return _decimal(text, "ELSE")


def _decimal(text: str, otherwise: str) -> str:
    """Plain notation by the short way; `otherwise` begins the branch of everything else.

    DuckDB reads text into a decimal of 38 digits at 4.7 us a value, into one of 18 at 0.04 us. So
    plain notation is read as one of those, or as two on either side of the point; the result is
    the same.
    """
    small = f"TRY_CAST({text} AS DECIMAL(18,9))::DECIMAL(38,18)"
    whole = f"TRY_CAST(split_part(ltrim({text}, '-'), '.', 1) AS DECIMAL(18,0))::DECIMAL(38,18)"
    part = f"TRY_CAST('0.' || split_part({text}, '.', 2) AS DECIMAL(18,18))"
    return (
        f"CASE WHEN {_plain(text, 9)} THEN {small} WHEN {_plain(text, 18)} "
        f"THEN CASE WHEN starts_with({text}, '-') THEN -({whole} + {part}) "
        f"ELSE {whole} + {part} END {otherwise} TRY_CAST({text} AS DECIMAL(38,18)) END"
    )


def _scale(text: str) -> str:
    """SQL of how many digits a number needs after its point, in whatever notation."""
    mantissa = f"split_part(lower({text}), 'e', 1)"
    exponent = f"coalesce(TRY_CAST(nullif(split_part(lower({text}), 'e', 2), '') AS INTEGER), 0)"
    digits = f"replace(ltrim({mantissa}, '+-'), '.', '')"
    return (
        f"CASE WHEN rtrim({digits}, '0') = '' THEN 0 ELSE "
        f"length(split_part({mantissa}, '.', 2)) - {exponent} "
        f"- length({digits}) + length(rtrim({digits}, '0')) END"
    )


def _plain(text: str, digits: int) -> str:
    """Whether it is plain notation with at most so many digits on either side of the point."""
    return f"regexp_full_match({text}, '-?[0-9]{{1,{digits}}}(\\.[0-9]{{1,{digits}}})?')"
