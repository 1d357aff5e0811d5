"""Wallets: what has not changed is not asked for, and what cannot be read is named."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.core.errors import Fatal, Retriable
from extract.core.interval import Interval, iso, utc
from extract.fetch.client import WORKERS
from extract.sources.coinbase import calls, wallets
from tests.extract.sources.coinbase.scene import CLOCK, NOW, START, THEN, entries, fill
from tests.helpers.coinbase_stub import Vendor, mapped, served

LOOKBACK = "2026-03-09T06:00:00Z"


# ---- what has not changed is not asked for
def test_a_sync_of_300_wallets_of_which_3_have_changed_takes_8_calls(vendor):
    for number in range(299):
        vendor.wallet(f"w{number}", f"C{number}", "0")
    first = vendor.fetch(START, THEN)
    assert len(first.part_states) == 300 and len(vendor.asked) == 300 // 100 + 300 + 1
    assert [c.parts for c in first.covered] == [None] * 3
    vendor.now = CLOCK[NOW]
    vendor.asked.clear()
    for number in (3, 150, 298):
        vendor.wallet(f"w{number}", f"C{number}", "1", "2026-03-10T08:00:00Z")
        vendor.entry(f"w{number}", 1, "2026-03-10T08:00:00Z")
    vendor.fills.append(fill(sequence_timestamp="2026-03-10T08:00:00Z"))
    second = vendor.fetch(THEN, NOW, read_from=LOOKBACK, known=first.part_states)
    assert len(vendor.asked) <= 8
    assert entries(second) == {"w3-1", "w150-1", "w298-1"}
    (ledger,) = [c for c in second.covered if c.dataset == "exchanges_ledger"]
    assert sorted(ledger.parts) == ["w150", "w298", "w3"]
    assert ledger.interval == Interval(LOOKBACK, NOW) and len(second.part_states) == 300


@settings(max_examples=40, deadline=None)
@given(
    old=st.lists(st.lists(st.integers(0, 100), max_size=6), min_size=1, max_size=6),
    new=st.dictionaries(st.integers(0, 5), st.lists(st.integers(0, 40), max_size=4), max_size=4),
    open_=st.integers(0, 5),
    page=st.integers(1, 3),
)
def test_what_is_not_asked_for_is_there_already(old, new, open_, page):
    """`old`: hours before THEN at which entries of each wallet fell; `new`: after it, by wallet,
    some later than the interval reaches; the wallet `open_` has a pending entry."""
    with pytest.MonkeyPatch.context() as patch, served(Vendor(CLOCK[THEN])) as vendor:
        patch.setattr(calls, "V2_PAGE", page)
        for wallet, hours in enumerate(old):
            vendor.wallet(f"w{wallet}", "A", str(len(hours)))
            for n, hour in enumerate(sorted(hours, reverse=True)):
                vendor.entry(f"w{wallet}", n, iso(utc(THEN) - timedelta(hours=hour)))
            if wallet == open_ and hours:
                vendor.transactions[f"w{wallet}"][0]["status"] = "pending"
        first = vendor.fetch(START, THEN)
        vendor.now = "2026-03-12T00:00:00Z"
        for wallet, hours in new.items():
            if wallet < len(old) and hours:
                vendor.wallet(f"w{wallet}", "A", str(len(hours)), "2026-03-12T00:00:00Z")
                for n, hour in enumerate(sorted(hours), 100):
                    vendor.entry(f"w{wallet}", n, iso(utc(THEN) + timedelta(hours=hour)))
        second = vendor.fetch(THEN, NOW, read_from=LOOKBACK, known=first.part_states)
        third = vendor.fetch(
            NOW, "2026-03-12T00:00:00Z", read_from=LOOKBACK, known=second.part_states
        )
        everything = vendor.fetch(START, "2026-03-12T00:00:00Z")
    asked = [
        (first, START, THEN),
        (second, LOOKBACK, NOW),
        (third, LOOKBACK, "2026-03-12T00:00:00Z"),
    ]
    loaded = {
        (row["entry_id"], row["wallet"])
        for fetched, start, end in asked
        for row in mapped(fetched, "exchanges_ledger")
        if utc(row["ts"]) in Interval(start, end)
    }
    whole = {
        (row["entry_id"], row["wallet"])
        for row in mapped(everything, "exchanges_ledger")
        if utc(row["ts"]) in Interval(START, "2026-03-12T00:00:00Z")
    }
    assert loaded == whole
    if open_ < len(old) and old[open_]:
        assert f"w{open_}" not in first.part_states, "a pending entry is waited for"


def test_wallets_are_read_together_and_each_answer_is_its_own(vendor):
    """ccxt keeps the last answer in its client: one that two threads use mixes them up."""
    for number in range(40):
        vendor.wallet(f"w{number}", f"C{number}")
        for n in range(3):
            vendor.entry(f"w{number}", n, "2026-02-01T10:00:00Z")
    vendor.delay_s = 0.01
    rows = mapped(vendor.fetch(START, THEN), "exchanges_ledger")
    assert 2 <= vendor.most_at_once <= WORKERS
    assert len(rows) == 40 * 3 + 1
    assert all(row["entry_id"].startswith(f"{row['wallet']}-") for row in rows)


# ---- what cannot be read is named
@pytest.mark.parametrize("answer", [400, 403, 404, 410, 500, 503, '{"data": []}', "<html>"])
def test_a_wallet_that_cannot_be_read_keeps_no_other_from_the_books(vendor, answer):
    vendor.wallet("dead", "OLD")
    vendor.status["dead"] = answer
    first = vendor.fetch(START, THEN)
    assert entries(first) == {"btc-1"} and set(first.part_states) == {"btc"}
    (unread,) = first.unread
    assert (unread.dataset, unread.part, unread.interval) == (
        "exchanges_ledger",
        "dead",
        Interval(START, THEN),
    )
    assert "/v2/accounts/{id}/transactions" in unread.reason
    assert [c.parts for c in first.covered if c.dataset == "exchanges_ledger"] == [("btc",)]

    del vendor.status["dead"]
    vendor.now = CLOCK[NOW]
    vendor.entry("dead", 1, "2026-01-20T10:00:00Z")
    again = vendor.fetch(
        THEN,
        NOW,
        read_from=LOOKBACK,
        known=first.part_states,
        unread={"dead": utc(START)},
    )
    (page,) = [p for p in again.pages if p.params.get("account_id")]
    assert page.read_from == utc(START) and entries(again) == {"dead-1"}
    assert [(c.interval, c.parts) for c in again.covered if c.dataset == "exchanges_ledger"] == [
        (Interval(LOOKBACK, NOW), ("dead",)),
        (Interval(START, LOOKBACK), ("dead",)),
    ]
    assert again.unread == [] and set(again.part_states) == {"btc", "dead"}


def test_many_sick_wallets_cost_few_calls(vendor):
    for number in range(40):
        vendor.wallet(f"sick{number}", "OLD")
        vendor.status[f"sick{number}"] = 500
    first = vendor.fetch(START, THEN, tries=6)
    assert len(first.unread) == 40 and entries(first) == {"btc-1"}
    most = wallets.IN_VAIN + WORKERS - 1  # all workers may be at one by then
    assert len(vendor.asked) <= 3 + 40 * wallets.AT_FIRST + 6 * most
    vendor.asked.clear()
    vendor.now = CLOCK[NOW]
    unread = {u.part: u.interval.start for u in first.unread}
    second = vendor.fetch(THEN, NOW, tries=6, known=first.part_states, unread=unread)
    assert len(vendor.asked) == 1 + 40 + 1 and len(second.unread) == 40
    assert {u.interval.start for u in second.unread} == {utc(START)}


@pytest.mark.parametrize("status, error", [(401, Fatal), (403, Fatal), (500, Retriable)])
def test_the_trouble_of_the_account_is_an_error(vendor, status, error):
    vendor.wallet("eur", "EUR")
    vendor.status |= {"btc": status, "eur": status}
    with pytest.raises(error, match="/v2/accounts/{id}/transactions"):
        vendor.fetch(START, THEN)
    vendor.status["eur"] = 200
    if status == 401:
        with pytest.raises(Fatal):
            vendor.fetch(START, THEN)
    else:
        assert [u.part for u in vendor.fetch(START, THEN).unread] == ["btc"]
