"""Laws of Interval: half-open, additive, and refusing what is empty."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.core.interval import Interval, first_of_month, iso, union, utc

ZERO = datetime(2024, 1, 1, tzinfo=UTC)
hours = st.integers(0, 400)


@st.composite
def intervals(draw):
    start = draw(hours)
    return Interval(
        ZERO + timedelta(hours=start), ZERO + timedelta(hours=start + draw(st.integers(1, 90)))
    )


def instants(spans):
    return {h for h in range(600) for s in spans if ZERO + timedelta(hours=h) in s}


@given(intervals(), st.lists(intervals(), max_size=8))
def test_minus_and_union_are_set_operations(whole, covered):
    assert instants(whole.minus(covered)) == instants([whole]) - instants(covered)
    merged = union(covered)
    assert instants(merged) == instants(covered)
    assert all(a.end < b.start for a, b in zip(merged, merged[1:])), "touching ones are merged"


@given(intervals())
def test_months_cut_without_gap_or_overlap(whole):
    months = whole.by_month()
    assert (months[0].start, months[-1].end) == (whole.start, whole.end)
    assert all(a.end == b.start and b.start.day == 1 for a, b in zip(months, months[1:]))


@given(st.datetimes(timezones=st.just(UTC)))
def test_the_first_of_a_month_is_its_first_instant_or_day(moment):
    first = first_of_month(moment)
    assert first <= moment and (first.year, first.month) == (moment.year, moment.month)
    assert first == datetime(moment.year, moment.month, 1, tzinfo=UTC)
    assert first_of_month(moment.date()) == date(moment.year, moment.month, 1)


@pytest.mark.parametrize("end", ["2026-01-01T00:00:00Z", "2025-12-31T00:00:00Z"])
def test_an_empty_interval_is_refused_with_what_to_do(end):
    with pytest.raises(ValueError, match="end must be after the start.*interval_start="):
        Interval("2026-01-01T00:00:00Z", end)


def test_time_without_zone_is_utc_and_text_that_is_no_time_says_so():
    assert utc("2026-01-01 06:00") == utc("2026-01-01T07:00:00+01:00")
    assert iso(utc("2026-01-01T07:00:00+01:00")) == "2026-01-01T06:00:00Z"
    with pytest.raises(ValueError, match="'yesterday' is not an ISO 8601 time; write it like"):
        utc("yesterday")
