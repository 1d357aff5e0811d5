"""Every kind of paging, over a list in memory that answers as exchanges of that kind do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.core.errors import Fatal, Retriable
from extract.core.interval import Interval
from extract.core.source import Job
from extract.fetch.client import Answer
from extract.ledger import (
    Balances,
    ByTime,
    Cursor,
    Exchange,
    LastId,
    Ledger,
    Offset,
    PageNumber,
    walk,
)

SIZE = 4
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
NOW = END + timedelta(hours=1)
MS = timedelta(milliseconds=1)


class Client:
    """Sends at once; what the tests say of a call is what the vendor does."""

    def call(self, endpoint, send):
        return send()

    def run_concurrently(self, work, first, workers=1):
        work(first, lambda item: False)


class Vendor:
    """Rows newest first; `answer(params)` is the page and what stands around it."""

    def __init__(self, rows, answer):
        self.rows, self.answer, self.asked = rows, answer, []

    def call(self, method, params, key, expect, rows=None):
        self.asked.append(params)
        assert len(self.asked) < 500, "the paging has no end"
        data, headers = self.answer(self, params)
        assert expect(data) is None
        return Answer(200, "{}", data, NOW, headers=headers)

    def within(self, params):
        since, until = params.get("since", 0), params.get("until", 2**60)
        return [row for row in self.rows if since <= row["ts"] <= until]


def offset(vendor, params):
    rows, skip = vendor.within(params), params["skip"]
    return {"rows": rows[skip : skip + SIZE], "count": len(rows)}, {}


def number(vendor, params):
    rows, page = vendor.within(params), params["page"]
    return {"rows": rows[(page - 1) * SIZE : page * SIZE]}, {}


def cursor(vendor, params):
    rows, skip = vendor.within(params), int(params.get("cursor") or 0)
    more = str(skip + SIZE) if skip + SIZE < len(rows) else ""
    return {"rows": rows[skip : skip + SIZE], "next": more}, {"X-Next": more}


def last_id(vendor, params):
    rows = [
        row for row in vendor.within(params) if int(row["id"]) < int(params.get("after", 2**60))
    ]
    return {"rows": rows[:SIZE]}, {}


def by_time(vendor, params):
    return {"rows": vendor.within(params)[:SIZE]}, {}


KINDS = {
    "offset": (Offset("skip", SIZE, count="count"), offset),
    "offset without a count": (Offset("skip", SIZE), offset),
    "page number": (PageNumber("page", SIZE), number),
    "cursor": (Cursor("cursor", "next"), cursor),
    "cursor in a header": (Cursor("cursor", header="x-next"), cursor),
    "last id": (LastId("after", SIZE), last_id),
    "by time": (ByTime("until", SIZE), by_time),
}
LEDGER = Ledger(
    call="list",
    endpoint="/list",
    rows="rows",
    time=("ts", "ms"),
    since=("since", "ms"),
    until=("until", "ms"),
)
EXCHANGE = Exchange(
    name="memory",
    title="Memory",
    documentation="https://example.com",
    host="https://example.com",
    ccxt="kraken",
    ledgers=(LEDGER,),
    balances=(Balances(call="held", endpoint="/held"),),
    rates={},
)


def rows_at(moments: list[int]) -> list[dict]:
    """Newest first; ids rise with time."""
    base = int(START.timestamp() * 1000)
    numbered = enumerate(sorted(moments))
    return [{"id": str(n), "ts": base + at} for n, at in numbered][::-1]


def fetched(vendor: Vendor, ledger: Ledger) -> tuple[set[str], list]:
    job = Job("memory", "main", "memory", Interval(START, END), START)
    got = walk.fetch(replace(EXCHANGE, ledgers=(ledger,)), Client(), vendor, job)
    return got, got.covered


def had(vendor: Vendor) -> set[str]:
    return {
        row["id"] for params in vendor.asked for row in vendor.answer(vendor, params)[0]["rows"]
    }


moments = st.lists(st.integers(0, 172_799_999), max_size=40)


@pytest.mark.parametrize("kind", KINDS)
@given(at=moments)
def test_every_row_is_had_and_the_end_has_a_reason(kind, at):
    paging, answer = KINDS[kind]
    if kind == "by time":  # more of one instant than a page holds is another law
        at = sorted({moment: moment for moment in at})
    vendor = Vendor(rows_at(at), answer)
    _, covered = fetched(vendor, replace(LEDGER, paging=paging))
    assert had(vendor) == {row["id"] for row in vendor.rows}
    (one,) = covered
    assert one.interval == Interval(START, END) and one.reason


@pytest.mark.parametrize("kind", KINDS)
@given(at=moments, hours=st.integers(1, 30))
def test_windows_lose_nothing_at_their_borders(kind, at, hours):
    paging, answer = KINDS[kind]
    at = sorted({*at, *(hours * 3_600_000 * n for n in range(48 // hours))})
    vendor = Vendor(rows_at(at), answer)
    fetched(vendor, replace(LEDGER, paging=paging, window=timedelta(hours=hours)))
    assert had(vendor) == {row["id"] for row in vendor.rows}
    longest = max(params["until"] - params["since"] for params in vendor.asked if "until" in params)
    assert longest <= hours * 3_600_000


@pytest.mark.parametrize("kind", ["page number", "offset without a count", "last id"])
def test_a_page_that_comes_again_is_no_end_and_no_loop(kind):
    """A vendor that does not heed the parameter answers its first page for ever."""
    paging, _ = KINDS[kind]
    vendor = Vendor(rows_at(list(range(20))), lambda v, params: ({"rows": v.rows[:SIZE]}, {}))
    with pytest.raises(Retriable, match="came twice|that page again"):
        fetched(vendor, replace(LEDGER, paging=paging))


def test_a_cursor_that_goes_in_a_circle_is_no_end():
    def circle(vendor, params):
        skip = int(params.get("cursor") or 0) + 1
        return {"rows": vendor.rows[skip : skip + SIZE], "next": params.get("cursor") or "1"}, {}

    with pytest.raises(Retriable, match="circle"):
        fetched(
            Vendor(rows_at(list(range(20))), circle), replace(LEDGER, paging=KINDS["cursor"][0])
        )


def test_an_empty_page_with_a_cursor_to_more_is_no_end():
    vendor = Vendor([], lambda v, params: ({"rows": [], "next": "7"}, {}))
    with pytest.raises(Retriable, match="an empty page with a cursor"):
        fetched(vendor, replace(LEDGER, paging=KINDS["cursor"][0]))


def test_a_list_that_shrinks_while_it_is_read_is_read_again():
    """Else a row would move to a page that was read already."""
    gone = []

    def shrinking(vendor, params):
        if params["skip"] and not gone:
            gone.append(vendor.rows.pop(0))
        return offset(vendor, params)

    vendor = Vendor(rows_at(list(range(10))), shrinking)
    fetched(vendor, replace(LEDGER, paging=KINDS["offset"][0]))
    assert gone and [params["skip"] for params in vendor.asked].count(0) == 2
    assert {row["id"] for row in vendor.rows} <= had(vendor)


def test_more_rows_than_pages_reach_are_read_in_halves():
    paging = PageNumber("page", SIZE, most=2 * SIZE)
    vendor = Vendor(rows_at([n * 1_000_000 for n in range(60)]), number)
    fetched(vendor, replace(LEDGER, paging=paging))
    assert had(vendor) == {row["id"] for row in vendor.rows}
    assert max(params["page"] for params in vendor.asked) == 2


def test_more_rows_of_one_instant_than_can_be_reached_are_said():
    vendor = Vendor(rows_at([5] * (SIZE + 1)), by_time)
    with pytest.raises(Fatal, match="more rows between .* export file"):
        fetched(vendor, replace(LEDGER, paging=KINDS["by time"][0]))
