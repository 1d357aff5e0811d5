"""Whatever an exchange account is like, raw holds the truth about it after every sync."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace

import pytest

from sandbox.server import serve
from sandbox.world.moments import DAY, iso, seconds
from sandbox.world.world import GENESIS
from tests.helpers.books import ACCOUNTS, Books, Hurried, assert_truth

HOUR = 3600
START = seconds(GENESIS)
SINCE = START + 64 * DAY


def nothing(_now) -> list[dict]:
    return []


@pytest.mark.parametrize("seed", [2, 5])
def test_raw_is_the_truth_of_a_messy_exchange_at_every_sync(tmp_path, seed):
    rng, now = Random(seed), SINCE + DAY
    accounts = [account for account in ACCOUNTS if account.source == "coinbase"]
    with serve(seed=seed, now=iso(now), scale=1.0, mess=True, books_start=SINCE) as url:
        url.app.lift_limits()
        books, walked = Books(url, tmp_path, clock=Hurried()), []
        exchange = SimpleNamespace(
            ledger=url.world.ledger,
            fills=url.world.fills,
            transactions=nothing,
            transfers=nothing,
        )
        for _ in range(6):
            url.clock.set(now)
            before = len(books.calls)
            books.sync(iso(SINCE), iso(now), accounts=accounts, snapshot=True)
            assert_truth(books, exchange, iso(now), iso(SINCE))
            walked.append(sum("transactions" in c["endpoint"] for c in books.calls[before:]))
            now += rng.randrange(3, 14) * HOUR
        sick = {one["wallet"] for one in url.world.unread_wallets()}
        assert set(books.column("SELECT part FROM ops.unread_parts")) == sick
        named = books.con.execute("SELECT dataset, payload->>'$.name' FROM raw.rejected").fetchall()
        assert named == [("balances", "Retired Wallet")]
        assert max(walked[2:]) < 25 < walked[0], walked
