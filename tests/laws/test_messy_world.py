"""Whatever the world is like: each balance is exact, explained by the very kind that is true of it,
or off since the very snapshot that shows it first."""

from __future__ import annotations

from random import Random

import pytest
import requests

from ledgerhouse.check.breaks import find_breaks
from ledgerhouse.config import MEMORY_LIMIT
from ledgerhouse.transform.adjustments import settle
from sandbox.server import serve
from sandbox.world.moments import DAY, iso, seconds
from sandbox.world.world import GENESIS
from tests.helpers.books import ACCOUNTS, Books, Hurried
from tests.helpers.curated import make_views

HOUR = 3600
VENDORS = sorted({account.source for account in ACCOUNTS})
SINCE = seconds(GENESIS) + 60 * DAY  # the accounts are older than the books
SAID = """
    SELECT r.source, r.account, r.token, r.status, r.kind, r.difference_text AS difference,
        strftime(b.since, '%Y-%m-%dT%H:%M:%SZ') AS first_bad
    FROM curated.reconciliation r
    LEFT JOIN (SELECT source, account, token, min(first_bad_ts) AS since FROM ops.breaks
               WHERE suspect <> 'adjustment' GROUP BY ALL) b USING (source, account, token)"""

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("seed", "until"),
    [(7, "2026-11-26T12:00:00Z"), (11, "2026-11-25T18:00:00Z"), (3, "2026-11-26T00:00:00Z")],
)
def test_so_it_is_after_two_years(seed, until, tmp_path, monkeypatch):
    """As in the demo: what rebasing tokens have grown and what was held before is much by then."""
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    moments = [seconds(until) - 30 * HOUR, seconds(until)]
    since = moments[0] - 730 * DAY
    begin = since - 400 * DAY
    with serve(seed=seed, start=iso(begin), now=iso(since), scale=0.3, mess=True, books_start=since) as url:  # fmt: skip
        live(url, tmp_path, since, moments)


@pytest.mark.parametrize("seed", range(20))
def test_each_balance_is_what_the_truth_says_of_it(seed, tmp_path, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    rng, moment = Random(seed), SINCE + 4 * DAY
    with serve(seed=seed, now=iso(moment), scale=0.25, mess=True, books_start=SINCE) as url:
        moments = [moment := moment + rng.randrange(6, 120) // 6 * 6 * HOUR for _ in range(5)]
        rows = live(url, tmp_path, SINCE, moments)
        assert {row["status"] for row in rows} >= {"exact", "explained", "off"}


def live(url, root, since: int, moments: list[int]) -> list[dict]:
    """Sync at the moments, each balance judged at each; the rows at the last."""
    url.app.lift_limits()
    books, snapshots, rows = Books(url, root / "landing", clock=Hurried()), [], []
    make_views(books.con)
    for moment in moments:
        url.clock.set(moment)
        books.sync(iso(since), iso(moment), snapshot=True)
        # As a transform has it, whose connection is its own: the load has left it less.
        books.con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        settle(books.con, books.root)
        find_breaks(books.con, books.sources)
        snapshots.append(iso(moment))
        cursor = books.con.execute(SAID)
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row)) for row in cursor.fetchall()]
        asked = {"since": iso(since), "snapshots": snapshots, "rows": rows, "vendors": VENDORS}
        assert requests.post(f"{url}/_truth/differences", json=asked, timeout=120).json() == []
    return rows
