"""What a refresh reads again: by the coverage alone."""

from __future__ import annotations

import random
from datetime import datetime

import pytest

from extract.core.interval import Interval, iso, union, utc
from ledgerhouse.config import Account
from ledgerhouse.plan import coverage, refresh
from tests.ledgerhouse.plan.refresh.scene import DAY, SOURCES, WEEK

WALLET = Account("debank", "0xme", "debank")
COINBASE = Account("coinbase", "main", "coinbase_main")


class Weeks:
    """An account's coverage, day by day: each day and when it was last read."""

    def __init__(self, con, account: Account, first: datetime, days: int):
        self.con, self.account, self.source = con, account, SOURCES[account.source]
        self.now = first + days * DAY
        self.read = {first + n * DAY: self.now for n in range(days)}

    def pass_a_week(self) -> None:
        for _ in range(7):
            self.read[self.now] = self.now = self.now + DAY

    def due(self) -> list[Interval]:
        """What is due, which is read at once."""
        self.con.execute("DELETE FROM ops.coverage")
        spans: list[list] = []
        for day, at in self.read.items():
            if spans and spans[-1][2] == at:
                spans[-1][1] = day + DAY
            else:
                spans.append([day, day + DAY, at])
        spans = [[moment.replace(tzinfo=None) for moment in span] for span in spans]
        rows = [(dataset, *span) for dataset in coverage.events(self.source) for span in spans]
        self.con.execute(
            "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
            "reason, run_id, batch_id, recorded_at) "
            "SELECT ?, ?, unnest(?), unnest(?), unnest(?), unnest(?), "
            "'', '', '', '2000-01-01'",
            [self.account.source, self.account.account, *(list(column) for column in zip(*rows))],
        )
        jobs = refresh.jobs(self.con, SOURCES, [self.account], "quarter")
        assert all(job.read_from == job.interval.start and not job.snapshot for job in jobs)
        return [job.interval for job in jobs]

    def months(self) -> dict[Interval, datetime]:
        """Whole months that were over a week before the end of what is covered → last read."""
        days: dict[datetime, list[datetime]] = {}
        for day in self.read:
            days.setdefault(day.replace(day=1), []).append(day)
        found = {}
        for first, inside in days.items():
            end = (first + 32 * DAY).replace(day=1)
            if end + 7 * DAY <= max(self.read) + DAY:
                found[Interval(min(inside), end)] = min(self.read[day] for day in inside)
        return found


@pytest.mark.parametrize("account", [WALLET, COINBASE], ids=lambda a: a.source)
def test_within_weeks_every_settled_month_has_been_read_again_oldest_first(con, account):
    for seed in range(8):
        rng = random.Random(f"{seed}/{account.source}")
        weeks = Weeks(
            con,
            account,
            utc("2022-01-01") + rng.randrange(400) * DAY,
            rng.choice([3, 45, 200, 500, 1000]) + rng.randrange(60),
        )
        settled, wholly = dict.fromkeys(weeks.months(), -1), 0
        # An API that cannot seek is due when the fourth week is about over.
        limit = refresh.PARTS + (0 if SOURCES[account.source].monthly else 1)
        for week in range(12):
            weeks.pass_a_week()
            months = weeks.months()
            read = weeks.due()
            chosen = [m for m in months if any(m.start in span for span in read)]
            assert union(chosen) == union(read), "whole months, and no other time"
            if SOURCES[account.source].monthly:
                assert len(chosen) == -(-len(months) // refresh.PARTS)
                left = [at for m, at in months.items() if m not in chosen]
                assert max((months[m] for m in chosen), default=weeks.now) <= min(
                    left, default=weeks.now
                ), "longest ago first"
            else:
                assert chosen in ([], list(months)) and len(read) <= 1, "whole, or not at all"
                wholly += bool(chosen)
            for span in read:
                for day in weeks.read:
                    if day in span:
                        weeks.read[day] = weeks.now
            settled = dict.fromkeys(months, week) | settled
            assert [
                m
                for m, at in weeks.months().items()
                if week - settled[m] >= limit and at <= weeks.now - limit * WEEK
            ] == []
        assert wholly <= 12 // refresh.PARTS, "no oftener than a quarter a week costs"


def test_only_what_every_dataset_covers_is_read_whatever_is_asked(con):
    def cover(dataset, start, end):
        con.execute(
            "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
            "reason, run_id, batch_id, recorded_at) "
            "VALUES ('debank', '0xme', ?, ?, ?, '2025-01-01', '', "
            "'', '', '2025-01-01')",
            [dataset, start, end],
        )

    def asked(scope):
        return [
            f"{iso(j.interval.start)[:10]} {iso(j.interval.end)[:10]}"
            for j in refresh.jobs(con, SOURCES, [WALLET], scope)
        ]

    assert asked("full") == asked("quarter") == [], "nothing was ever read"
    cover("onchain_transactions", "2024-01-10", "2024-06-20")
    assert asked("full") == [], "the transfers were never read"
    cover("onchain_transfers", "2024-01-20", "2024-03-05")
    cover("onchain_transfers", "2024-03-12", "2024-07-01")
    assert asked("full") == ["2024-01-20 2024-03-05", "2024-03-12 2024-06-20"]
    assert asked(Interval("2024-02-10", "2024-03-20")) == [
        "2024-02-10 2024-03-05",
        "2024-03-12 2024-03-20",
    ]
    assert asked("quarter") == ["2024-01-20 2024-03-01"], "two of six pieces"
    # Months of many rows are fetches of their own: a fetch is loaded at once.
    con.execute(
        f"INSERT INTO raw.onchain_transactions (source, account, chain, tx_id, ts) SELECT "
        f"'debank', '0xme', 'eth', n, '2024-04-03' FROM range({refresh.ROWS_A_JOB + 1}) "
        "r(n)"
    )
    assert asked("full") == [
        "2024-01-20 2024-03-05",
        "2024-03-12 2024-04-01",
        "2024-04-01 2024-05-01",
        "2024-05-01 2024-06-20",
    ]
