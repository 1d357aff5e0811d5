"""The interval of a run: its params, otherwise its data interval."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.core.interval import Interval, iso
from ledgerhouse.operate.airflow.context import resolve_interval

MOMENTS = st.datetimes(datetime(2009, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
SPANS = st.tuples(MOMENTS, st.timedeltas(timedelta(microseconds=1), timedelta(days=900))).map(
    lambda span: Interval(span[0], span[0] + span[1])
)
WRITTEN = st.sampled_from([iso, str, datetime.isoformat])  # jinja renders str(datetime)
NOTHING = st.sampled_from(["", "None", None])


def given_as(interval: Interval, write=iso) -> dict[str, str]:
    return {"interval_start": write(interval.start), "interval_end": write(interval.end)}


@given(SPANS, SPANS, WRITTEN)
def test_params_win_over_the_data_interval(asked, own, write):
    params = given_as(asked, write) | {"refetch": False}
    for start, end in ((own.start, own.end), ("", ""), (own.start, own.start)):
        assert resolve_interval(params, str(start), str(end)) == asked


@given(
    SPANS,
    WRITTEN,
    st.sampled_from(
        [
            {},
            {"interval_start": None, "interval_end": None},
            {"interval_start": "", "refetch": True},
        ]
    ),
)
def test_without_params_it_is_the_data_interval(own, write, params):
    assert resolve_interval(params, write(own.start), write(own.end)) == own


def refused(params, start, end) -> str:
    with pytest.raises(ValueError) as error:
        resolve_interval(params, start, end)
    return str(error.value)


@given(MOMENTS, NOTHING, NOTHING, WRITTEN, st.booleans())
def test_a_run_without_an_interval_is_told_how_to_get_one(moment, none, other, write, flip):
    for pair in ((none, other), (none, write(moment)), (write(moment), none)):
        text = refused({}, *pair)
        assert '{"interval_start": "2026-01-01T00:00:00Z", "interval_end": ' in text
    empty = refused({}, write(moment), write(moment))
    assert "CronDataIntervalTimetable" in empty and "interval_start" in empty


@given(SPANS, SPANS, st.sampled_from(["interval_start", "interval_end"]))
def test_half_an_interval_is_never_completed_by_guessing(asked, own, half):
    text = refused({half: given_as(asked)[half]}, str(own.start), str(own.end))
    assert "interval_start and interval_end" in text


@given(SPANS)
def test_an_interval_backwards_or_empty_is_refused(span):
    for end in (span.start, span.start - (span.end - span.start)):
        text = refused({"interval_start": iso(span.start), "interval_end": iso(end)}, "", "")
        assert "the end must be after the start" in text
        if end != span.start:
            assert "the end must be after" in refused({}, iso(span.start), iso(end))


def test_a_time_that_is_none_is_quoted_with_an_example():
    text = refused({"interval_start": "yesterday", "interval_end": "2026-01-01"}, "", "")
    assert "'yesterday'" in text and "2026-01-31T06:00:00Z" in text
