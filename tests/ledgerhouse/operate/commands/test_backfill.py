"""`airflow dags backfill`, against an Airflow that is a few lines of Python."""

from __future__ import annotations

import json
import re

import pytest

from extract.core.interval import iso
from ledgerhouse.operate.airflow.api import AirflowApi
from ledgerhouse.operate.commands import backfill as backfilling
from ledgerhouse.operate.commands import follow as following
from tests.helpers.books import ACCOUNTS_TOML
from tests.ledgerhouse.operate.commands.fake_airflow import FakeAirflow, FakeHistory
from tests.ledgerhouse.operate.commands.scene import HOLE, SIX_HOURS, six_hourly

pytestmark = pytest.mark.slow


RANGE = ("-s", "2024-11-12", "-e", "2024-11-12T12:00", "sync")
FIRST, SECOND, THIRD = (f"2024-11-12T{hour:02d}:00:00Z" for hour in (0, 6, 12))


def test_a_backfill_ends_with_0_when_every_run_succeeded(run):
    fake = FakeAirflow()
    code, out, err = run(fake, *RANGE, "-y", "-c", '{"refetch": false}', "--max-active-runs", "2")
    assert code == 0 and "3 of 3 runs succeeded" in out and "Traceback" not in err
    assert fake.created["max_active_runs"] == 2 and fake.created["dag_run_conf"] == {
        "refetch": False
    }
    assert (fake.created["from_date"], fake.created["to_date"]) == (FIRST, THIRD)
    assert fake.created["reprocess_behavior"] == "none"


def test_the_first_failure_starts_no_further_run_unless_told_to_go_on(run):
    fake = FakeAirflow({FIRST: "failed"})
    code, out, _ = run(fake, *RANGE, "-y")
    assert code == 1 and "0 of 3 runs succeeded, 1 failed, 2 were not started" in out
    assert fake.said[-2:] == [("PUT", "/backfills/7/cancel"), fake.said[-1]]
    assert "fetch_debank failed; http://airflow/dags/sync/runs/backfill__" in out
    fake = FakeAirflow({FIRST: "failed"})
    code, out, _ = run(fake, *RANGE, "-y", "--continue-on-failures")
    assert code == 1 and "2 of 3 runs succeeded, 1 failed" in out
    assert not [path for _, path in fake.said if "cancel" in path]


def test_runs_that_are_there_are_made_again_only_when_told(run):
    there = {FIRST: "success", SECOND: "failed", THIRD: "success"}
    code, out, _ = run(FakeAirflow(there=there), *RANGE, "-y")
    assert code == 1
    assert "Nothing to do: all 3 intervals have their run (1 failed, 2 success)" in out
    fake = FakeAirflow(there=there)
    assert run(fake, *RANGE, "-y", "--rerun-failed-tasks")[0] == 0
    assert fake.created["reprocess_behavior"] == "failed"
    fake = FakeAirflow(there=there)
    code, _, err = run(fake, *RANGE, "--reset-dagruns")
    assert code == 2 and "-y" in err and fake.created is None, "asks, where somebody could answer"
    assert run(fake, *RANGE, "--reset-dagruns", "-y")[0] == 0
    assert fake.created["reprocess_behavior"] == "completed"


def test_a_dry_run_starts_nothing_and_tells_what_it_would_take(run, kept):
    fake = FakeAirflow()
    whole = ("-s", iso(HOLE.start), "-e", iso(HOLE.end - SIX_HOURS), "sync", "-n")
    code, out, _ = run(fake, *whole, "-o", "json")
    estimate = json.loads(out)
    assert code == 0 and fake.created is None
    assert [(r["start"], r["end"]) for r in estimate["intervals"]] == [
        (iso(i.start), iso(i.end)) for i in six_hourly(HOLE)
    ]
    assert [r["calls"] for r in estimate["intervals"]] == [
        run["debank"].calls for run in kept.tried["hole"].costs
    ]
    assert estimate["history_total"]["debank"]["calls"] < estimate["total"]["debank"]["calls"]
    code, out, _ = run(FakeAirflow(), *whole)
    assert "add --history" in out, "one run fetches the same for less"
    code, out, _ = run(FakeAirflow(), "-s", "2024-11-19", "-e", "2024-11-20", "-n", "sync")
    assert code == 0 and "0 calls and 0 units: all of it is covered" in out
    assert "-e 2024-11-20T18:00" in out, "the end is a midnight: how to have the whole day"


def test_a_dry_run_says_what_would_pass_the_budget(run, kept, tmp_path, monkeypatch):
    """The books' calls are of today, by our clock."""
    spent = sum(call["units"] for call in kept.calls if call["source"] == "debank")
    need = sum(cost["debank"].units for cost in kept.tried["hole"].costs)
    argv = ("-s", iso(HOLE.start), "-e", iso(HOLE.end - SIX_HOURS), "sync", "-n", "-o", "json")
    listed = ACCOUNTS_TOML
    for allowed, said in ((spent + need, []), (spent + need - 1, [need - 1])):
        file = tmp_path / "accounts.toml"
        file.write_text(f"{listed}\n[budget.debank]\nunits_per_month = {allowed}\n")
        monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(file))
        code, out, _ = run(FakeAirflow(), *argv)
        over = [r for r in json.loads(out)["remarks"] if r.startswith("Over budget")]
        assert code == 0 and len(over) == len(said)
        assert all(
            f"and {left:,} of {allowed:,} are left this month" in remark
            for left, remark in zip(said, over, strict=True)
        )


@pytest.mark.parametrize(("ends", "code"), [("success", 0), ("failed", 1)])
def test_history_fetches_the_whole_range_by_one_run(run, ends, code):
    fake = FakeHistory(ends)
    ended, out, _ = run(fake, *RANGE, "--history")
    assert ended == code and out.count("over [2024-11-12T00:00:00Z, 2024-11-12T18:00:00Z)") == 2
    assert fake.conf == {"interval_start": FIRST, "interval_end": "2024-11-12T18:00:00Z"}
    assert fake.created is None and ("✓" if code == 0 else "✗") in out


def test_a_dry_run_works_before_anything_was_read(run, tmp_path, monkeypatch):
    fake = FakeAirflow()
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path / "new"))
    code, out, _ = run(fake, "-n", *RANGE)
    assert code == 0 and "before anything was read" in out and "lower bound" in out
    assert not (tmp_path / "new").exists()


def test_a_sync_of_another_id_is_backfilled_and_priced_as_well(run):
    fake = FakeAirflow(dag={"dag_id": "crypto"})
    code, out, err = run(fake, *RANGE[:-1], "crypto", "--dry-run")
    assert code == 0 and "runs of crypto would be made" in out and "In all:" in out, err


WEEKLY = {
    "dag_id": "weekly_refresh",
    "timetable_summary": "0 2 * * 0",
    "params": {"scope": {}, "interval_start": {}, "interval_end": {}},
}


@pytest.mark.parametrize(
    ("fake", "argv", "code", "said"),
    [
        (FakeAirflow(), ("sync",), 2, "give a range"),
        (FakeAirflow(), ("-s", "2024-11-20", "-e", "2024-11-19", "sync"), 2, "before the start"),
        (FakeAirflow(), ("-s", "2999-01-01", "sync"), 2, "in the future"),
        (FakeAirflow(), ("-s", "2024-11-20", "-e", "2999-01-01", "sync"), 2, "in the future"),
        (FakeAirflow(), ("-s", "2024-11-20", "-c", "{", "sync"), 2, "no JSON"),
        (FakeAirflow(), ("-s", "2024-11-20", "-c", "[1]", "sync"), 2, "JSON object"),
        (
            FakeAirflow(),
            ("-s", "2024-11-20", "-c", '{"interval_start": "2024-11-01"}', "sync"),
            2,
            "every run the same interval",
        ),
        (FakeAirflow(), ("-s", "2024-11-20", "nosuch"), 2, "it knows: history, sync"),
        (
            FakeAirflow(),
            ("-s", "2024-10-01", "-e", "2024-11-20", "sync"),
            2,
            "begins at 2024-11-01",
        ),
        (
            FakeAirflow(dag=WEEKLY),
            ("-s", "2024-11-20", "weekly_refresh"),
            2,
            "cannot be backfilled",
        ),
        (
            FakeAirflow(dag={"timetable_periodic": False}),
            ("-s", "2024-11-20", "sync"),
            2,
            "cannot be backfilled",
        ),
        (
            FakeAirflow(dag={"is_paused": True}),
            ("-s", "2024-11-20", "sync"),
            1,
            "dags unpause sync",
        ),
        (FakeAirflow(alive=False), ("-s", "2024-11-20", "sync"), 1, "no scheduler is alive"),
        (FakeAirflow(), ("--follow", "sync"), 1, "no backfill of sync is under way"),
        (FakeAirflow(), ("--cancel", "sync"), 1, "no backfill of sync is under way"),
        (
            AirflowApi("http://127.0.0.1:9", "admin", "x"),
            ("-s", "2024-11-20", "sync"),
            1,
            "does not answer at http://127.0.0.1:9.*make up",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_words_and_nothing_is_made(run, fake, argv, code, said):
    ended, out, err = run(fake, *argv)
    assert (ended, out) == (code, "") and re.search(said, err), err
    assert "Traceback" not in err and getattr(fake, "created", None) is None


def test_a_scheduler_that_dies_meanwhile_is_reported_and_the_backfill_kept(run, monkeypatch):
    fake = FakeAirflow(dies=True)
    monkeypatch.setattr(following, "LOOK_AFTER_S", -1)
    code, _, err = run(fake, *RANGE, "-y")
    assert code == 1 and "no scheduler is alive: the backfill waits" in err
    assert "--follow sync" in err


def test_ctrl_c_ends_the_following_and_says_how_to_go_on(run, monkeypatch):
    fake = FakeAirflow()
    monkeypatch.setattr(
        backfilling.time, "sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    code, _, err = run(fake, *RANGE, "-y")
    assert code == 130 and "--follow sync" in err and "--cancel sync" in err
    monkeypatch.undo()
