"""Whatever the world is like: each balance is exact, explained by the very kind that is true of it,
or off since the very snapshot that shows it first."""

from __future__ import annotations

from random import Random

import pytest

from ledgerhouse.check.breaks import find_breaks
from ledgerhouse.transform.adjustments import settle
from sandbox.faults.limits import NoLimit
from sandbox.server import serve
from sandbox.world.moments import DAY, iso, seconds
from sandbox.world.world import GENESIS
from stack import truth
from tests.helpers.books import Books, Hurried
from tests.helpers.curated import make_views

HOUR = 3600
SINCE = seconds(GENESIS) + 60 * DAY  # the accounts are older than the books
SAID = """
    SELECT r.source, r.account, r.token, r.status, r.kind, r.difference_text AS difference,
        strftime(b.since, '%Y-%m-%dT%H:%M:%SZ') AS first_bad
    FROM curated.reconciliation r
    LEFT JOIN (SELECT source, account, token, min(first_bad_ts) AS since FROM ops.breaks
               WHERE suspect <> 'adjustment' GROUP BY ALL) b USING (source, account, token)"""

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(20))
def test_each_balance_is_what_the_truth_says_of_it(seed, tmp_path, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    rng, moment = Random(seed), SINCE + 4 * DAY
    with serve(seed=seed, now=iso(moment), scale=0.25, mess=True, books_start=SINCE) as url:
        url.app.coinbase.hour = url.app.coinbase.second = url.app.debank.second = NoLimit()
        books, snapshots = Books(url, tmp_path / "landing", clock=Hurried()), []
        make_views(books.con)
        for _ in range(5):
            moment += rng.randrange(6, 120) // 6 * 6 * HOUR
            url.clock.set(moment)
            books.sync(iso(SINCE), iso(moment), snapshot=True)
            settle(books.con, books.root)
            find_breaks(books.con, books.sources)
            snapshots.append(iso(moment))
            expected = truth.ask(url, iso(SINCE), snapshots)
            cursor = books.con.execute(SAID)
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row)) for row in cursor.fetchall()]
            assert truth.differences(rows, expected) == []
        assert {row["status"] for row in rows} >= {"exact", "explained", "off"}
