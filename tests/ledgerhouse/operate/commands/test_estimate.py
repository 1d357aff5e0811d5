"""What a backfill would cost: the estimate is what runs then plan and pay."""

from __future__ import annotations

import pytest

from extract.core.interval import Interval, utc
from extract.sources import all_sources
from ledgerhouse.plan.estimate import Known, simulate, total
from ledgerhouse.publish.books import open_books
from tests.ledgerhouse.operate.commands.scene import (
    ACCOUNTS,
    BROKEN,
    DAY,
    HOLE,
    NOW,
    OTHER,
    TRIES,
    WHOLE,
    six_hourly,
)

pytestmark = pytest.mark.slow


def test_what_is_covered_costs_nothing(kept):
    sources = all_sources()
    with open_books(kept.var / "published") as con:
        known = Known.read(con, sources, ACCOUNTS, utc(NOW))
    covered = six_hourly(Interval("2024-11-14", "2024-11-20"))
    assert simulate(known, sources, ACCOUNTS, covered, utc(NOW)) == [{}] * len(covered)
    assert total(simulate(known, sources, ACCOUNTS, [HOLE], utc(NOW))).keys() == {"debank"}


@pytest.mark.parametrize("name", TRIES)
def test_the_estimated_jobs_are_those_that_runs_then_plan(kept, name):
    result = kept.tried[name]
    assert result.jobs == result.planned and any(result.jobs)
    if name == "of late":
        assert all(
            job.read_from == job.interval.start - DAY for jobs in result.jobs for job in jobs
        )


@pytest.mark.parametrize("name", ["again", "long ago"])
def test_rows_that_are_known_are_estimated_to_the_call(kept, name):
    result = kept.tried[name]
    estimated = [{s: (c.calls, c.units) for s, c in run.items()} for run in result.costs]
    assert estimated == result.paid
    assert any(calls > 2 for run in estimated for calls, _ in run.values())


def test_a_hole_is_estimated_run_by_run_from_how_dense_the_account_is(kept):
    result = kept.tried["hole"]
    assert [set(run) for run in result.costs] == [set(run) for run in result.paid]
    actual, estimated = (
        sum(n)
        for n in ((r["debank"][0] for r in result.paid), (r["debank"].calls for r in result.costs))
    )
    assert actual >= len(result.paid) and abs(actual - estimated) <= max(2, actual / 4), (
        actual,
        estimated,
    )


def test_an_account_never_read_is_estimated_from_the_others_and_said_so(kept):
    sources = all_sources()
    stranger = BROKEN.__class__("debank", "0xfeed", "debank")
    with open_books(kept.var / "published") as con:
        known = Known.read(con, sources, [*ACCOUNTS, stranger], utc(NOW))
        alone = Known.read(con, sources, [stranger], utc(NOW))
    month = [Interval("2024-10-20", NOW)]
    (estimate,) = simulate(known, sources, [stranger], month, utc(NOW))
    costs = [
        simulate(known, sources, [a], month, utc(NOW), refetch=True)[0]["debank"].calls
        for a in (WHOLE, OTHER)
    ]
    assert min(costs) // 2 <= estimate["debank"].calls <= 2 * max(costs)
    assert known.guessed == {("debank", "0xfeed")}
    (least,) = simulate(alone, sources, [stranger], month, utc(NOW))
    assert least["debank"].calls == 2, "a walk a month: two of them, a page each, at least"


def test_units_are_at_the_prices_of_the_connection(kept):
    sources = all_sources()
    with open_books(kept.var / "published") as con:
        known = Known.read(con, sources, [BROKEN], utc(NOW))
    (own,) = simulate(known, sources, [BROKEN], [HOLE], utc(NOW))
    (dear,) = simulate(
        known,
        sources,
        [BROKEN],
        [HOLE],
        utc(NOW),
        prices={"debank": {"/v1/user/all_history_list": 1000}},
    )
    assert dear["debank"].units == 1000 * own["debank"].calls == 50 * own["debank"].units
