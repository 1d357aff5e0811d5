"""The same DAGs in somebody else's dags folder."""

from __future__ import annotations

import os

import pytest

from tests.ledgerhouse.operate.airflow.dags.scene import FACTS, HEAVY, run


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A dags folder with the three lines a DAG, parsed in a process of its own."""
    home, folder = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("their_dags")
    for name in ("sync", "history", "weekly_refresh", "replay", "late_alert", "maintenance"):
        (folder / f"{name}.py").write_text(
            f"from ledgerhouse.airflow import {name}_dag\n\n{name}_dag()\n"
        )
    (folder / "named.py").write_text(
        "from datetime import UTC, datetime\n"
        "from ledgerhouse.airflow import sync_dag\n\n"
        "sync_dag('crypto', schedule='30 * * * *', start_date=datetime(2025, 1, 1, tzinfo=UTC),"
        " tags=['finance'])\n"
    )
    env = {"SYNC_START_DATE": "2026-01-31T06:00:00Z", "RETRY_DELAY_S": "3"}
    env["LEDGERHOUSE_ACCOUNTS"] = os.environ["LEDGERHOUSE_ACCOUNTS"]
    return folder, run(FACTS, home, str(folder), " ".join(HEAVY), **env)


def test_three_lines_make_the_same_dag_in_any_folder(parsed, elsewhere):
    folder, theirs = elsewhere
    assert theirs["errors"] == {} and theirs["heavy"] == []
    assert set(theirs["dags"]) == set(parsed["dags"]) | {"crypto"}
    for name, ours in parsed["dags"].items():
        dag = theirs["dags"][name]
        assert dag["file"] == str(folder / f"{name}.py") and dag["doc"]
        for fact in ours.keys() - {"doc", "file"}:
            assert dag[fact] == ours[fact], f"{name}: {fact}"


def test_id_schedule_start_and_tags_are_theirs_to_choose(parsed, elsewhere):
    dag = elsewhere[1]["dags"]["crypto"]
    assert (dag["timetable"], dag["cron"], dag["zone"]) == (
        "CronDataIntervalTimetable",
        "30 * * * *",
        "UTC",
    )
    assert dag["start"] == "2025-01-01T00:00:00+00:00"
    assert dag["tags"] == ["finance", "ledgerhouse"], "ours stays: the mirror goes by it"
    assert dag["tasks"] == parsed["dags"]["sync"]["tasks"]
