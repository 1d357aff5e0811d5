"""What is wrong: each kind of incident by the tables that tell it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from extract.core.interval import iso
from ledgerhouse.config import Account, Rules
from ledgerhouse.operate.alerts import conditions, incidents
from ledgerhouse.operate.alerts.conditions import KINDS, present_incidents
from ledgerhouse.operate.commands.tables import rows
from ledgerhouse.operate.commands.warehouse import STATUS
from ledgerhouse.operate.ui import calendar, figures
from tests.ledgerhouse.operate.alerts.scene import MINE, NOW
from tests.ledgerhouse.operate.alerts.stories import STORIES


@pytest.mark.parametrize("name", STORIES)
def test_each_kind_opens_once_and_is_resolved_once(books, name):
    """A story spoils the books step by step; after the last step all is well again."""
    steps, opened = 0, 0
    for key, *said in STORIES[name](books):
        for _ in range(2):  # a pass that finds nothing new sends nothing
            found = books.incidents()
            assert {incident.key for incident in found.values() if incident.certain} <= {key}, name
            assert key is None or key in found
            opened += incidents.reconcile(
                books.con,
                present_incidents(books.con, MINE, Rules(), NOW),
                ["log"],
                run_id="r",
                now=NOW,
            )[0]
        for part in said if key and found[key].certain else ():
            assert part in found[key].text
        steps += key is not None
    later = NOW + timedelta(days=1) if name == "budget" else NOW
    if name == "budget":  # a new day, in which the coverage is older
        books.cover(MINE[0], NOW, later), books.cover(MINE[1], NOW, later)
    assert books.incidents(later) == {}
    done = incidents.reconcile(
        books.con,
        present_incidents(books.con, MINE, Rules(), later),
        ["log"],
        run_id="s",
        now=later,
    )
    assert (opened, done) == ((1, (0, 1)) if steps else (0, (0, 0)))
    assert [n.event for n in incidents.waiting(books.con, "log")] == (
        ["opened", "resolved"] if steps else []
    )


def test_every_kind_has_a_story():
    assert {kind for kind in KINDS if not any(name.startswith(kind) for name in STORIES)} == set(
        conditions.UNRECORDED
    )


def test_accounts_that_are_not_listed_any_more_are_nobodys_incident(books):
    books.ran(state="failed")
    found = present_incidents(books.con, MINE[1:], Rules(), NOW + timedelta(hours=1))
    assert not any(found.values())


NEW = Account("debank", "0xnew", "debank_new")


def stale(books, *accounts) -> list[tuple[str, bool]]:
    found = present_incidents(books.con, accounts, Rules(), NOW)["stale_coverage"]
    return [(incident.account, incident.certain) for incident in found]


def test_an_account_whose_first_load_is_under_way_is_no_incident(books):
    """Another run's alert saw a history of years, which is loaded at its end, as never read."""
    assert stale(books, NEW) == [("0xnew", True)], "nobody is about to read it"
    run = books.ran("plan_debank_new", source=None, account=None)
    assert stale(books, NEW) == [("0xnew", False)], "between the plan and its fetches"
    books.ran("fetch_debank_new", "running", account="0xnew", run=run)
    assert stale(books, NEW) == [("0xnew", False)]
    books.ran("fetch_debank_new", "success", account="0xnew", run=run, number=2)
    books.ran("load", "running", source=None, account=None, run=run)
    assert stale(books, NEW) == [("0xnew", False)]
    books.ran("mirror", "success", source=None, account=None, run=run)
    assert stale(books, NEW) == [("0xnew", True)], "the run is over and it is still not there"


@pytest.mark.parametrize("task, state", [("load", "failed"), ("mirror", "skipped")])
def test_a_load_that_failed_or_was_stopped_is_no_longer_under_way(books, task, state):
    run = books.ran("fetch_debank_new", account="0xnew")
    books.ran(task, state, source=None, account=None, run=run)
    assert stale(books, NEW) == [("0xnew", True)]


def test_a_load_that_began_a_day_ago_hides_nothing(books):
    books.ran("fetch_debank_new", "running", account="0xnew")
    books.do("UPDATE ops.sync_runs SET started = started - INTERVAL 25 HOUR")
    assert stale(books, NEW) == [("0xnew", True)]


def test_another_connections_run_hides_nothing(books):
    books.ran("fetch_debank", "running")
    assert stale(books, NEW) == [("0xnew", True)]


def test_covered_through_is_as_far_as_the_dataset_that_lags_whoever_tells_it(books, tmp_path):
    books.do(
        "INSERT INTO ops.coverage SELECT * REPLACE ('onchain_transfers' AS dataset, "
        "end_ts - INTERVAL 13 HOUR AS end_ts) FROM ops.coverage WHERE source = 'debank'"
    )
    books.do(
        "CREATE TABLE published AS SELECT 1 AS generation, now() AS published_at, 'r' AS run_id"
    )
    reached = "2026-03-09T23:00:00Z"
    alert = books.incidents()["stale_coverage", "debank", "0xa", ""]
    assert alert.text.startswith(f"covered through {reached};")
    (status,) = [row for row in rows(books.con, STATUS) if row["source"] == "debank"]
    assert iso(status["covered_through"]) == reached
    assert figures.overview(books.con, tmp_path)["through"] == reached
    assert {a["account"]: a["until"] for a in calendar.coverage(books.con)["accounts"]}[
        "0xa"
    ] == reached


def test_a_kind_that_cannot_be_judged_stays_as_it_is(books, caplog):
    next(story := STORIES["check_failed"](books)), next(story)

    def reconcile():
        return incidents.reconcile(
            books.con,
            present_incidents(books.con, MINE, Rules(), NOW),
            ["log"],
            run_id="r",
            now=NOW,
        )

    assert reconcile() == (1, 0)
    books.do("DROP TABLE ops.checkpoints")
    assert reconcile() == (0, 0)
    assert "check_failed and refresh_difference cannot be checked at present" in caplog.text
    assert books.con.execute(
        "SELECT kind FROM ops.incidents WHERE resolved_at IS NULL"
    ).fetchall() == [("check_failed",)]
