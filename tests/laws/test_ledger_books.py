"""Exchanges that list a ledger, from the fetch to the reconciliation: every balance is exact, or
explained by what the account held before the books began."""

from __future__ import annotations

from decimal import Decimal
from random import Random

import pytest

from extract import sources
from ledgerhouse.check.breaks import find_breaks
from ledgerhouse.transform.adjustments import settle
from sandbox.ledgers.history import LedgerHistory
from sandbox.server import serve
from sandbox.vendors import all_vendors
from sandbox.world.moments import DAY, iso, seconds
from sandbox.world.world import GENESIS
from tests.helpers.books import Books, Hurried, of
from tests.helpers.curated import make_views

pytestmark = pytest.mark.slow

HOUR, SINCE = 3600, seconds(GENESIS) + 40 * DAY  # the accounts are older than the books
VENDORS = sorted(
    name for name, vendor in all_vendors().items() if issubclass(vendor.history, LedgerHistory)
)
SAID = """SELECT source, token, status, kind, difference_text, reason
    FROM curated.reconciliation ORDER BY ALL"""


@pytest.mark.parametrize("seed", range(3))
def test_balances_agree_whenever_the_books_began(seed, tmp_path, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    rng, moment = Random(seed), SINCE + 3 * DAY
    accounts = [account for name in VENDORS for account in of(name)]
    with serve(seed=seed, now=iso(moment), mess=True, books_start=SINCE) as url:
        url.app.lift_limits()
        books = Books(url, tmp_path / "landing", clock=Hurried())
        make_views(books.con)
        for _ in range(3):
            url.clock.set(moment := moment + rng.randrange(6, 120) // 6 * 6 * HOUR)
            books.sync(iso(SINCE), iso(moment), accounts=accounts, snapshot=True)
            settle(books.con, books.root)
            find_breaks(books.con, books.sources)
            assert books.column("SELECT entry_id FROM ops.chain_breaks") == []
            judge(books, url.world, moment)
        said = books.con.execute(
            "SELECT source, depth, reconcilable, why FROM ops.sources"
        ).fetchall()
        facts = {name: sources.get(name) for name in VENDORS}
        assert sorted(said) == [
            (name, one.depth, one.reconcilable, one.why) for name, one in sorted(facts.items())
        ]
        # Whatever made the folders: nobody else reads the books.
        assert (tmp_path / "landing").stat().st_mode & 0o077 == 0
        before = len(books.calls)
        assert books.plan(iso(SINCE), iso(moment), accounts) == [], "all of it is covered"
        assert len(books.calls) == before


def judge(books: Books, world, moment: int) -> None:
    """Compare the reconciliation with what the world says was held before the books began."""
    said = {(row[0], row[1]): row[2:] for row in books.con.execute(SAID).fetchall()}
    for row in world.residuals(iso(moment), vendors=VENDORS):
        name, token = row["vendor"], row["token"]
        status, kind, difference, reason = said[name, token]
        where = f"{name} {token}: {status} {kind} {difference} ({reason}); truth {row['parts']}"
        if not sources.get(name).reconcilable:
            assert status in ("exact", "explained", "not_reconcilable"), where
            continue
        assert status in ("exact", "explained") and Decimal(difference) == 0, where
        if Decimal(row["parts"].get("opening", "0")):
            assert status == "explained" and kind.startswith("opening"), where
