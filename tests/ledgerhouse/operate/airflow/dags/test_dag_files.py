"""The DAG files: what each schedules, who waits for whom, and that nothing heavy is imported."""

from __future__ import annotations

from tests.helpers.books import ACCOUNTS
from tests.ledgerhouse.operate.airflow.dags.scene import HEAVY, ROOT, run

CONNECTIONS = {a.connection: a.pool for a in ACCOUNTS}
INTERVAL = {
    "interval_start": "{{ data_interval_start }}",
    "interval_end": "{{ data_interval_end }}",
}

# The same files without the DagBag: what they import by themselves.
PLAIN = """
import json, runpy, sys
for file in sys.argv[2:]:
    runpy.run_path(file)
print(json.dumps(sorted(set(sys.modules) & set(sys.argv[1].split()))))
"""


def test_the_dag_files_import_nothing_heavy(tmp_path):
    files = sorted(str(f) for f in (ROOT / "dags").glob("*.py"))
    assert len(files) >= 2
    heavy = run(PLAIN, tmp_path, " ".join(HEAVY), *files)
    assert heavy == [], f"parsing the DAGs imports {heavy}: move it into execute()"


def test_the_folder_parses_into_the_dags_that_are_mirrored(parsed):
    from ledgerhouse.operate.airflow.context import TAG

    assert parsed["errors"] == {} and parsed["heavy"] == []
    assert set(parsed["dags"]) == {file.stem for file in (ROOT / "dags").glob("*.py")}
    for name, dag in parsed["dags"].items():
        assert dag["tags"] == [TAG], "by it the mirror knows which DAGs are ours"
        assert dag["doc"] and dag["doc"].startswith(f"### {name}"), "its docstring is its page"
        assert not dag["catchup"] and dag["active"] == 1
        assert dag["params"] == sorted(
            {"replay": ["accept_less"], "late_alert": [], "maintenance": []}.get(
                name,
                [
                    "interval_end",
                    "interval_start",
                    "scope" if name == "weekly_refresh" else "refetch",
                ],
            )
        )


# --- deadlines ------------------------------------------------------------------------------------


def test_sync_has_explicit_six_hour_intervals(parsed):
    sync = parsed["dags"]["sync"]
    assert (sync["timetable"], sync["cron"], sync["zone"]) == (
        "CronDataIntervalTimetable",
        "0 */6 * * *",
        "UTC",
    ), "a plain cron string gives empty intervals in Airflow 3"
    assert sync["start"] == "2026-01-31T06:00:00+00:00", "SYNC_START_DATE decides"
    assert parsed["dags"]["history"]["timetable"] == "NullTimetable"


def test_weekly_refresh_runs_on_sundays_at_two(parsed):
    weekly = parsed["dags"]["weekly_refresh"]
    assert (weekly["timetable"], weekly["cron"], weekly["zone"]) == (
        "CronDataIntervalTimetable",
        "0 2 * * 0",
        "UTC",
    )
    assert weekly["start"] == "2026-01-31T06:00:00+00:00"


def test_maintenance_keeps_no_sync_waiting_and_each_task_is_tried_whatever_the_others_do(parsed):
    maintenance = parsed["dags"]["maintenance"]
    assert (maintenance["timetable"], maintenance["cron"]) == (
        "CronDataIntervalTimetable",
        "30 3 * * *",
    )
    work = {"airflow_rows", "logs", "files", "landed", "compact"}
    assert set(maintenance["tasks"]) == work | {"complete", "mirror", "alert"}
    for name in work:
        task = maintenance["tasks"][name]
        assert (task["pool"], task["upstream"]) == ("default_pool", []), name


def test_weekly_refresh_tells_what_it_found_and_compares_before_it_publishes(parsed):
    tasks = parsed["dags"]["weekly_refresh"]["tasks"]
    assert tasks["report"]["upstream"] == ["load"] and tasks["report"]["rule"] == "all_done"
    assert tasks["transform"]["upstream"] == ["report"], "what was found is written with the rows"
    assert tasks["rebuild"]["upstream"] == ["check"] and tasks["rebuild"]["rule"] == "all_success"
    assert tasks["check"]["interval"] == {
        name: f"{{{{ ti.xcom_pull(task_ids='report')['{name}'] }}}}" for name in INTERVAL
    }


def test_weekly_refresh_does_nothing_before_there_are_books(parsed, tmp_path, monkeypatch, caplog):
    """It is due at once at the first start, and checked and rebuilt what the sync was loading."""
    from ledgerhouse.operate.airflow.operators.refresh import there_are_books

    tasks = parsed["dags"]["weekly_refresh"]["tasks"]
    assert tasks["books"]["upstream"] == []
    assert tasks["books"]["downstream"] == sorted(f"plan_{c}" for c in CONNECTIONS)
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    assert not there_are_books()
    assert "no books" in caplog.text and "the first sync" in caplog.text
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "books.duckdb").touch()
    assert there_are_books()


def test_whoever_opens_the_warehouse_takes_its_slot_and_a_fetch_its_connections(tasks):
    pools = {name: task["pool"] for name, task in tasks.items() if task["kind"] != "EmptyOperator"}
    fetches = {
        f"{task}_{connection}": pool
        for connection, pool in CONNECTIONS.items()
        for task in ("probe", "fetch")
    }
    fetches["units"] = "default_pool"  # a vendor's time is not the warehouse's
    # They hold it only while the file is copied, or looked at, and take their turn at the lock.
    fetches |= {name: "default_pool" for name in pools if name in ("rebuild", "alert", "books")}
    assert pools == fetches | dict.fromkeys(set(pools) - set(fetches), "warehouse")
    assert {t["kind"] for t in tasks.values()} <= {
        "PlanOperator",
        "ProbeOperator",
        "FetchOperator",
        "UnitsOperator",
        "LoadOperator",
        "TransformOperator",
        "CheckOperator",
        "PublishOperator",
        "MirrorOperator",
        "EmptyOperator",
        "RefreshPlanOperator",
        "RefreshReportOperator",
        "RebuildOperator",
        "AlertOperator",
        "ShortCircuitOperator",
    }, "which pool takes this kind of task?"


def test_every_task_is_tried_again(tasks):
    assert {(t["retries"], t["delay"]) for t in tasks.values()} == {(2, 3.0)}


def test_every_task_that_needs_an_interval_gets_the_runs_own(tasks):
    needing = {
        name: task
        for name, task in tasks.items()
        if task["kind"] in ("PlanOperator", "CheckOperator", "RefreshReportOperator")
    }
    plans = sum(task["kind"] == "PlanOperator" for task in tasks.values())
    assert plans == (0 if "report" in tasks else len(CONNECTIONS))
    assert len(needing) == plans + 1 + ("report" in tasks)
    for name, task in needing.items():
        assert task["interval"] == INTERVAL or (name == "check" and "report" in tasks), name
        assert set(INTERVAL) <= set(task["templates"]), f"{name} would see the braces"


def test_a_failure_cannot_look_like_success(tasks):
    """The run's result is that of `complete`, which needs every fetch and the books; the mirror
    waits for all that is written, since `complete` has failed with the first fetch that has."""
    mirror, alert, complete = tasks["mirror"], tasks["alert"], tasks["complete"]
    for last in (mirror, alert):
        assert last["teardown"] and last["fails_run"] is False
    assert (complete["downstream"], mirror["downstream"], alert["downstream"]) == (
        ["mirror"],
        ["alert"],
        [],
    ), "alerts are sent when it is known how the run went"
    assert set(mirror["upstream"]) == {
        name
        for name, task in tasks.items()
        if task["pool"] == "warehouse"
        and name != "mirror"
        and not task["kind"].endswith("PlanOperator")
    } | {"complete"} | ({"rebuild"} & set(tasks))
    leaves = [
        name
        for name, task in tasks.items()
        if set(task["downstream"]) <= {"mirror"} and not task["teardown"]
    ]
    assert leaves == ["complete"]
    assert complete["rule"] == "none_failed"
    assert {"publish", *(f"fetch_{c}" for c in CONNECTIONS)} <= set(complete["upstream"])


def test_a_failed_source_does_not_keep_the_others_from_arriving(tasks):
    for name in ("units", "load", "transform"):
        assert tasks[name]["rule"] == "all_done", name
    assert tasks["load"]["upstream"] == ["units"]
    assert set(tasks["units"]["upstream"]) == {f"fetch_{c}" for c in CONNECTIONS}
    for connection in CONNECTIONS:  # of a host that is not there no fetch is begun
        probe, fetch = tasks[f"probe_{connection}"], tasks[f"fetch_{connection}"]
        assert probe["upstream"] == [f"plan_{connection}"] and probe["rule"] == "all_success"
        assert set(fetch["upstream"]) == {f"plan_{connection}", f"probe_{connection}"}
        assert fetch["rule"] == "all_success"
    assert all(tasks[f"fetch_{c}"]["mapped"] for c in CONNECTIONS)
    assert tasks["check"]["rule"] == "all_success", "no check of what was not transformed"


def test_nothing_is_published_before_the_check_has_passed(tasks):
    assert set(tasks["publish"]["upstream"]) == {"check", "rebuild"} & set(tasks)
    assert tasks["publish"]["rule"] == "all_success" and tasks["publish"]["pool"] == "warehouse"


def test_the_graph_has_a_box_for_the_sources_and_one_for_curated(parsed):
    for name, dag in parsed["dags"].items():
        if name in ("late_alert", "maintenance"):
            continue  # they have nothing to do with sources
        assert set(dag["groups"]) == {"sources", "curated"}
        inside = set().union(*dag["groups"].values())
        assert set(dag["tasks"]) - inside == {"complete", "mirror", "alert"}, name
        curated = {"transform", "check", "publish"} | {"rebuild"} & set(dag["tasks"])
        assert set(dag["groups"]["curated"]) == curated
