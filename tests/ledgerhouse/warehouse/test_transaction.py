"""A transaction is whole or was never there; spans hold all they were made of, and no more gaps."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.core.interval import closed, joined
from ledgerhouse.warehouse.transaction import transaction


def test_after_an_error_nothing_is_there_and_the_connection_goes_on():
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t (n INTEGER UNIQUE)")
        for error in (ValueError, KeyboardInterrupt):
            with pytest.raises(error), transaction(con):
                con.execute("INSERT INTO t VALUES (1)")
                raise error
        with pytest.raises(duckdb.Error), transaction(con):
            con.execute("INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)")
        with transaction(con):
            con.execute("INSERT INTO t VALUES (2)")
        assert con.execute("FROM t").fetchall() == [(2,)]


SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 5)).map(lambda one: (one[0], one[0] + one[1]))
)


def points(spans) -> set[int]:
    return {n for start, end in spans for n in range(start, end)}


@given(SPANS, st.integers(-2, 12))
def test_spans_hold_what_they_were_made_of_and_the_smallest_gaps_are_closed(spans, gaps):
    whole = joined(spans)
    assert points(whole) == points(spans) and whole == sorted(whole)
    assert all(before[1] < after[0] for before, after in zip(whole, whole[1:]))
    fewer = closed(whole, gaps)
    assert len(fewer) == (max(1, len(whole) - max(0, gaps)) if whole else 0)
    assert points(fewer) >= points(whole) and fewer == joined(fewer)
    sizes = sorted(after[0] - before[1] for before, after in zip(whole, whole[1:]))
    added = len(points(fewer)) - len(points(whole))
    assert added == sum(sizes[: max(0, gaps)])
