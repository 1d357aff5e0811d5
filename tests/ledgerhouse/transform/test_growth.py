"""What a rebasing token may have grown before the first snapshot, by all that moved."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal, localcontext

import duckdb
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledgerhouse.transform.residuals import most_growth

SINCE = datetime(2024, 1, 1)
DAY = timedelta(days=1)
RATE = Decimal("0.001")
TOKEN = ("debank", "0x1", "eth:steth")

movements = st.lists(st.tuples(st.integers(1, 60), st.integers(-100, 100)), min_size=1, max_size=12)
rates = st.integers(0, 10).map(lambda n: n * RATE / 10)


def booked(legs: list[tuple[datetime, Decimal]]) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute(
        "CREATE SCHEMA curated; CREATE TABLE curated.tx_unified (source VARCHAR, account VARCHAR, "
        "token VARCHAR, domain VARCHAR, counts BOOLEAN, ts TIMESTAMP, amount DECIMAL(38, 18))"
    )
    con.executemany(
        "INSERT INTO curated.tx_unified VALUES (?, ?, ?, 'onchain', true, ?, ?)",
        [(*TOKEN, ts, amount) for ts, amount in legs],
    )
    return con


def lived(
    wanted: list[tuple[int, int]], rate: Decimal, opening: Decimal = Decimal(0)
) -> tuple[list[tuple[datetime, Decimal]], Decimal, datetime]:
    """Legs of a token that grows by `rate` each day, what it grew in all, and when that ends.
    Nobody sends more than is there: a movement out is as much of the balance, in percent."""
    legs, held, moment = [], opening, SINCE
    with localcontext(prec=60):
        for days, what in wanted:
            moment += days * DAY
            held *= (1 + rate) ** days
            amount = Decimal(what) if what >= 0 else (held * what / 100).quantize(Decimal("1e-18"))
            held += amount
            legs.append((moment, amount))
        grown = held - opening - sum(amount for _, amount in legs)
    return legs, grown, moment


@settings(deadline=None, max_examples=50)
@given(movements, rates)
@example([(1, 1), (2, -100), (1, 0)], RATE)  # all is sent, with what has grown
def test_growth_within_the_band_is_never_more(wanted, rate):
    legs, grown, until = lived(wanted, rate)
    with booked(legs) as con, localcontext(prec=60):
        most = most_growth(con, TOKEN, RATE, SINCE, until)
        assert grown <= most + Decimal("1e-12")


@settings(deadline=None, max_examples=50)
@given(movements, st.integers(1, 100))
def test_what_was_sent_without_having_come_was_held_before(wanted, opening):
    legs, _, _ = lived([(1, -100), *wanted], Decimal(0), Decimal(opening))
    with booked(legs) as con:
        assert most_growth(con, TOKEN, RATE, SINCE, legs[-1][0] + DAY) == 0


def test_what_was_held_and_is_gone_has_grown_too():
    legs = [(SINCE, Decimal(100)), (SINCE + 300 * DAY, Decimal(-100))]
    with booked(legs) as con:
        assert most_growth(con, TOKEN, RATE, SINCE, SINCE + 600 * DAY) >= 30
