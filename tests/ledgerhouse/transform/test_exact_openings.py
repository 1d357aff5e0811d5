"""Openings by running balances: exact for START_TS anywhere, and replaced where more is read."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from ledgerhouse.transform import adjustments
from tests.helpers.curated import make_views
from tests.helpers.ledger_bank import END, START, Bank, Row, ledger

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """No adjustments.toml of anybody's."""
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(tmp_path / "accounts.toml"))
    return tmp_path


def opened(root) -> Bank:
    bank = Bank(root)
    make_views(bank.con)
    return bank


def held(rows: list[Row], until) -> dict[tuple[str, str], Decimal]:
    """By wallet and asset, before an instant."""
    found = {}
    for row in rows:
        found.setdefault(row.chain, row.balance - row.amount)
        if row.ts < until:
            found[row.chain] = row.balance
    return found


def booked(bank: Bank) -> dict[tuple[str, str], Decimal]:
    """Exact openings by wallet and asset."""
    return {
        (ident.split("/")[-1], token): Decimal(text)
        for ident, token, text in bank.con.execute(
            "SELECT adjustment_id, token, amount_text FROM raw.adjustments WHERE kind = 'opening'"
        ).fetchall()
    }


def inferred(bank: Bank) -> dict[str, str]:
    return dict(
        bank.con.execute(
            "SELECT token, amount_text FROM raw.adjustments WHERE kind = 'opening_inferred'"
        ).fetchall()
    )


def statuses(bank: Bank) -> dict[str, tuple[str, str | None]]:
    return {
        token: (status, kind)
        for token, status, kind in bank.con.execute(
            "SELECT token, status, kind FROM curated.reconciliation"
        ).fetchall()
    }


@pytest.mark.parametrize("seed", range(6))
def test_an_opening_is_exact_wherever_the_books_begin_and_goes_back_with_them(tmp_path, seed):
    rng, bank = random.Random(seed), opened(tmp_path)
    rows = ledger(rng)
    begins = START + timedelta(seconds=rng.randint(4 * 86400, 12 * 86400))
    for since in (begins, begins - timedelta(hours=rng.randint(1, 72)), START):
        if since == begins:
            bank.sync(rows, start=since, held=held(rows, END))
        else:
            bank.sync(rows, start=since, end=begins)
        moved = {row.chain for row in rows if row.ts >= since}
        truth = {chain: amount for chain, amount in held(rows, since).items() if chain in moved}
        assert adjustments.settle(bank.con, tmp_path)
        assert booked(bank) == {chain: amount for chain, amount in truth.items() if amount}
        assert inferred(bank) == {}
        assert statuses(bank) == dict.fromkeys(("BTC", "EUR"), ("explained", "opening"))
        assert bank.con.execute("SELECT DISTINCT ts FROM raw.adjustments").fetchall() == [(since,)]
        assert adjustments.settle(bank.con, tmp_path) is None
    evidence = bank.con.execute(
        "SELECT evidence FROM raw.adjustments WHERE token = 'BTC'"
    ).fetchall()
    first = {next(row for row in rows if row.chain == (w, "BTC")).ident for w in ("w1", "w2")}
    assert {words.split()[4] for (words,) in evidence} == first
    assert all(" in ledgerbank~main~20260101T" in words for (words,) in evidence)


def test_what_lies_in_a_wallet_that_never_moved_is_inferred_beside_it(tmp_path):
    rng, bank = random.Random(9), opened(tmp_path)
    rows = ledger(rng)
    at_end = held(rows, END) | {("w3", "BTC"): Decimal("7.5"), ("w3", "ETH"): Decimal(2)}
    bank.sync(rows, start=START + 5 * DAY, held=at_end)
    adjustments.settle(bank.con, tmp_path)
    assert inferred(bank) == {"BTC": "7.5", "ETH": "2"}
    assert statuses(bank) == {
        "BTC": ("explained", "opening+opening_inferred"),
        "ETH": ("explained", "opening_inferred"),
        "EUR": ("explained", "opening"),
    }
    # Once it is fixed, the chain of a wallet that begins to move takes its part of it over.
    later = [
        Row(f"late{n}", END + n * DAY, "w3", "BTC", Decimal(1), Decimal(0), Decimal("7.5") + n)
        for n in range(1, 4)
    ]
    at_end = held([*rows, *later], END + 9 * DAY) | {("w3", "ETH"): Decimal(2)}
    bank.sync([*rows, *later], start=END, end=END + 9 * DAY, held=at_end)
    adjustments.settle(bank.con, tmp_path)
    assert inferred(bank) == {"ETH": "2"} and booked(bank)["w3", "BTC"] == Decimal("7.5")
    assert statuses(bank)["BTC"] == ("explained", "opening")


def test_a_difference_that_no_opening_explains_stays_one(tmp_path):
    """The inference would have taken it for an opening."""
    rng, bank = random.Random(10), opened(tmp_path)
    rows = ledger(rng)
    at_end = held(rows, END)
    at_end["w1", "BTC"] += 5
    bank.sync(rows, start=START + 5 * DAY, held=at_end)
    adjustments.settle(bank.con, tmp_path)
    assert inferred(bank) == {}
    ((difference,),) = bank.con.execute(
        "SELECT difference_text FROM curated.reconciliation WHERE token = 'BTC'"
    ).fetchall()
    assert difference == "5"


def test_entries_that_come_late_before_the_first_move_the_opening(tmp_path):
    rng, bank = random.Random(11), opened(tmp_path)
    rows = ledger(rng)
    first = [next(row for row in rows if row.chain == chain) for chain in held(rows, END)]
    bank.sync([row for row in rows if row not in first], held=held(rows, END))
    adjustments.settle(bank.con, tmp_path)
    assert booked(bank) != held(rows, START)
    bank.sync(rows)
    adjustments.settle(bank.con, tmp_path)
    assert booked(bank) == held(rows, START) and bank.breaks() == []


def test_a_wallet_without_running_balances_is_inferred_as_before(tmp_path):
    rng, bank = random.Random(12), opened(tmp_path)
    rows = [replace(row, balance=Decimal(0)) for row in ledger(rng, wallets=("w1",))]
    total = {asset: sum(r.amount for r in rows if r.asset == asset) for asset in ("BTC", "EUR")}
    reported = {("w1", asset): amount + 100 for asset, amount in total.items()}
    bank.sync(rows, held=reported)
    adjustments.settle(bank.con, tmp_path)
    assert booked(bank) == {} and inferred(bank) == {"BTC": "100", "EUR": "100"}
