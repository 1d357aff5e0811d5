"""Amounts are read from text exactly, whichever way round DuckDB."""

from decimal import Decimal

import duckdb
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extract.sources._sql import decimal

DIGITS = st.text("0123456789", min_size=1, max_size=24)
TEXTS = st.one_of(
    st.builds(
        lambda sign, whole, point, part, exponent: sign + whole + point + part + exponent,
        st.sampled_from(["", "-"]),
        DIGITS,
        st.sampled_from(["", "."]),
        st.one_of(st.just(""), DIGITS),
        st.sampled_from(["", "", "e-7", "E5", "e+20"]),
    ),
    st.text("0123456789.-+eE ", max_size=12),
    st.none(),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, min_size=40, max_size=200))
@example(
    [
        "-0.000000000000000001",
        "-0",
        "0.5",
        "-0.5",
        "99999999999999999999.999999999999999999",
        "100000000000000000000",
        "1.0000000000000000005",
        "",
        "-",
        ".5",
        "5.",
        "--1",
        "1-1",
    ]
)
def test_the_short_way_reads_what_the_long_way_reads(texts):
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t AS SELECT unnest(?::VARCHAR[]) AS s", [texts])
        got = con.execute(
            f"SELECT s, {decimal('s')}, TRY_CAST(s AS DECIMAL(38,18)) FROM t"
        ).fetchall()
    for text, short, long in got:
        assert short == long, text
        if (
            text
            and text.strip("-0123456789") in ("", ".")
            and len(text.partition(".")[2]) <= 18
            and short is not None
            and text.lstrip("-").replace(".", "", 1).isdigit()
        ):
            assert short == Decimal(text), text
