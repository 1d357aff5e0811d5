"""Amounts, times and texts are read exactly, and by fetch and load alike."""

import json
from contextlib import suppress
from decimal import Decimal, InvalidOperation

import duckdb
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extract.core.records import repaired, time_of
from extract.core.sql import decimal, decimal_of_float, time

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
def test_amounts_are_exact_or_null_and_floats_are_rounded(texts):
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t AS SELECT unnest(?::VARCHAR[]) AS s", [texts])
        got = con.execute(
            f"SELECT s, {decimal('s')}, {decimal_of_float('s')}, TRY_CAST(s AS DECIMAL(38,18)) "
            "FROM t"
        ).fetchall()
    for text, exact, nearest, cast in got:
        assert nearest == cast, text
        if exact is not None:
            assert exact == nearest, text
        with suppress(InvalidOperation):  # DuckDB takes "1e", too
            if exact is not None:
                assert exact == Decimal((text or "").strip()), text
            elif nearest is not None and len(text) < 20:  # never rounded in silence
                assert Decimal(text.strip()) != nearest, text


TIMES = st.builds(
    "".join,
    st.tuples(
        st.dates().map(str),
        st.sampled_from("T Tx"),
        st.times().map(lambda t: t.isoformat()),
        st.sampled_from(["", ":00", ".5", ".1234567891"]),
        st.sampled_from(["", "Z", "+00:00", "+02:00", "-0530", "+14", "+15:00", "z", " UTC"]),
    ),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(TIMES, min_size=40, max_size=200))
@example(
    ["2026-02-02T10:37Z", "2026-02-02T10:37", "2026-02-30T00:00:00Z", "infinity", "2026-02-02"]
)
@example(["2026-02-02T24:00:00Z", "2026-02-02T00:30:00+02:00", "2026-02-02T10:37-02", "", "epoch"])
def test_the_fetch_and_the_load_read_the_same_times(texts):
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'America/New_York'")  # nobody's time zone may matter
        con.execute("CREATE TABLE t AS SELECT unnest(?::VARCHAR[]) AS s", [texts])
        for text, read in con.execute(f"SELECT s, {time('s')} FROM t").fetchall():
            moment = time_of(text)
            assert read == (moment and moment.replace(tzinfo=None)), text


BODIES = st.lists(
    st.one_of(
        st.sampled_from(
            ["\\ud83d", "\\ude80", "\\u0000", "\\\\", "\\n", "\\u00e9", "u0000", "\\D800"]
        ),
        st.text(
            st.characters(codec="utf-8", exclude_characters='"\\', exclude_categories=["Cc"]),
            max_size=4,
        ),
    )
)


@settings(max_examples=100, deadline=None)
@given(BODIES)
def test_whatever_python_reads_is_read_alike_by_duckdb(pieces):
    body = f'{{"a": "{"".join(pieces)}"}}'
    try:
        json.loads(body)
    except ValueError:
        return
    body = repaired(body)
    with duckdb.connect() as con:
        ((there,),) = con.execute("SELECT (?::JSON)->>'$.a'", [body]).fetchall()
    assert there == json.loads(body)["a"] and "\0" not in there
    there.encode()  # no half of a surrogate pair is left


def test_what_needs_no_repair_is_left_as_it_is():
    text = r'{"a": "\\ud83d \\\u0041 \ud83d\ude80"}'
    assert repaired(text) == text
    assert repaired(r'"\ud83d \ude80\ud83d \u0000"') == r'"\ufffd \ufffd\ufffd \ufffd"'
