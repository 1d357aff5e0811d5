"""The DAGs as facts, and the interval a run works on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.core.interval import Interval, iso
from ledgerhouse.operate.airflow.context import resolve_interval
from tests.helpers.books import ACCOUNTS, ACCOUNTS_TOML

ROOT = Path(__file__).parents[4]
CONNECTIONS = {a.connection: a.pool for a in ACCOUNTS}
HEAVY = ("ccxt", "pandas", "sqlmesh", "great_expectations", "duckdb", "sqlalchemy.dialects.duckdb")
INTERVAL = {
    "interval_start": "{{ data_interval_start }}",
    "interval_end": "{{ data_interval_end }}",
}

# Parses the DAG folder in a process of its own, as the DAG processor does.
FACTS = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
airflow = set(sys.modules)
bag = DagBag(sys.argv[1])
def fact(task):
    return {
        "kind": type(task).__name__ if not task.is_mapped else task.operator_class.__name__,
        "timeout": task.execution_timeout and task.execution_timeout.total_seconds() / 3600,
        "pool": task.pool, "retries": task.retries, "delay": task.retry_delay.total_seconds(),
        "rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
        "teardown": task.is_teardown, "fails_run": task.on_failure_fail_dagrun,
        "mapped": bool(task.is_mapped), "templates": list(task.template_fields),
        "interval": {name: getattr(task, name) for name in ("interval_start", "interval_end")
                     if not task.is_mapped and hasattr(task, name)},
        "upstream": sorted(task.upstream_task_ids), "downstream": sorted(task.downstream_task_ids),
    }
def deadline(alerts):
    for alert in alerts or ():
        return [alert.reference.reference_name, alert.interval.total_seconds() / 3600,
                      type(alert.callback).__name__, alert.callback.path, alert.callback.kwargs]
dags = {name: {
    "timeout": dag.dagrun_timeout and dag.dagrun_timeout.total_seconds() / 3600,
    "deadline": deadline(dag.deadline),
    "timetable": type(dag.timetable).__name__, "cron": getattr(dag.timetable, "expression", None)
        or getattr(dag.timetable, "_expression", None), "zone": str(dag.timezone),
    "catchup": dag.catchup, "active": dag.max_active_runs, "doc": dag.doc_md,
    "start": dag.start_date.isoformat(), "params": sorted(dag.params),
    "tags": sorted(dag.tags), "file": dag.fileloc,
    "groups": {name: sorted(group.children) for name, group in
               dag.task_group.get_task_group_dict().items() if name},
    "tasks": {task.task_id: fact(task) for task in dag.tasks},
} for name, dag in bag.dags.items()}
print(json.dumps({"dags": dags, "errors": bag.import_errors,
                  "heavy": sorted((set(sys.modules) - airflow) & set(sys.argv[2].split()))}))
"""

# The same files without the DagBag: what they import by themselves.
PLAIN = """
import json, runpy, sys
for file in sys.argv[2:]:
    runpy.run_path(file)
print(json.dumps(sorted(set(sys.modules) & set(sys.argv[1].split()))))
"""


def run(script: str, home: Path, *arguments: str, **variables: str):
    env = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        env=env,
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    return run(
        FACTS,
        home,
        str(ROOT / "dags"),
        " ".join(HEAVY),
        SYNC_START_DATE="2026-01-31T06:00:00Z",
        RETRY_DELAY_S="3",
    )


@pytest.fixture(scope="module", params=["sync", "history", "weekly_refresh"])
def tasks(parsed, request):
    return parsed["dags"][request.param]["tasks"]


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


def test_every_task_and_every_run_ends(parsed):
    """A task without a limit holds its pool's only slot forever, and then no task of any DAG runs."""
    for name, dag in parsed["dags"].items():
        assert dag["timeout"] == (24 if name == "sync" else 168), name
        for task, fact in dag["tasks"].items():
            long = fact["kind"] in ("FetchOperator", "ReplayOperator")
            assert fact["timeout"] == (12 if long else 2), f"{name}.{task}"


def test_a_late_run_is_reported_by_a_callback_that_needs_no_triggerer(parsed):
    from ledgerhouse.operate.airflow.late_run import report_late_run

    path = f"{report_late_run.__module__}.{report_late_run.__qualname__}"
    for name, dag in parsed["dags"].items():
        hours = 3 if name == "sync" else 24
        assert dag["deadline"] == [
            "DagRunQueuedAtDeadline",
            hours,
            "SyncCallback",
            path,
            {"hours": hours},
        ], name


def with_deadlines(text: str, home: Path, **variables: str):
    accounts = home / "accounts.toml"
    accounts.write_text(ACCOUNTS_TOML + "\n" + text)
    return run(
        FACTS, home, str(ROOT / "dags"), "", LEDGERHOUSE_ACCOUNTS=str(accounts), **variables
    )["dags"]


def test_deadlines_are_settings(tmp_path):
    text = "[deadlines]\ntask_hours = 1\nlong_task_hours = 30\nsync_hours = 40\n"
    dags = with_deadlines(text + "sync_late_hours = 0\nlate_hours = 5\n", tmp_path)
    assert (dags["sync"]["timeout"], dags["sync"]["deadline"]) == (40, None)
    assert dags["history"]["deadline"][1] == 5 and dags["history"]["timeout"] == 168
    tasks = dags["sync"]["tasks"]
    assert (tasks["load"]["timeout"], tasks["fetch_debank"]["timeout"]) == (1, 30)


def test_wrong_deadlines_leave_the_defaults_and_a_task_that_says_so(tmp_path):
    dags = with_deadlines("[deadlines]\ntask_hours = 0\n", tmp_path)
    assert dags["sync"]["tasks"]["load"]["timeout"] == 2, "an account is synced all the same"
    assert dags["sync"]["tasks"]["deadlines_of_accounts_toml"]["downstream"] == ["complete"]


def test_an_executor_that_runs_no_callbacks_gets_no_deadline(tmp_path):
    """Its scheduler would end at the first missed one: queue_workload raises NotImplementedError."""
    executor = "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor"
    dags = with_deadlines("", tmp_path, AIRFLOW__CORE__EXECUTOR=executor)
    assert dags["sync"]["deadline"] is None and dags["sync"]["timeout"] == 24


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


# --- in somebody else's dags folder -----------------------------------------------------------


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


# --- the interval -----------------------------------------------------------------------------

MOMENTS = st.datetimes(datetime(2009, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
SPANS = st.tuples(MOMENTS, st.timedeltas(timedelta(microseconds=1), timedelta(days=900))).map(
    lambda span: Interval(span[0], span[0] + span[1])
)
WRITTEN = st.sampled_from([iso, str, datetime.isoformat])  # jinja renders str(datetime)
NOTHING = st.sampled_from(["", "None", None])


def given_as(interval: Interval, write=iso) -> dict[str, str]:
    return {"interval_start": write(interval.start), "interval_end": write(interval.end)}


@given(SPANS, SPANS, WRITTEN)
def test_params_win_over_the_data_interval(asked, own, write):
    params = given_as(asked, write) | {"refetch": False}
    for start, end in ((own.start, own.end), ("", ""), (own.start, own.start)):
        assert resolve_interval(params, str(start), str(end)) == asked


@given(
    SPANS,
    WRITTEN,
    st.sampled_from(
        [
            {},
            {"interval_start": None, "interval_end": None},
            {"interval_start": "", "refetch": True},
        ]
    ),
)
def test_without_params_it_is_the_data_interval(own, write, params):
    assert resolve_interval(params, write(own.start), write(own.end)) == own


def refused(params, start, end) -> str:
    with pytest.raises(ValueError) as error:
        resolve_interval(params, start, end)
    return str(error.value)


@given(MOMENTS, NOTHING, NOTHING, WRITTEN, st.booleans())
def test_a_run_without_an_interval_is_told_how_to_get_one(moment, none, other, write, flip):
    for pair in ((none, other), (none, write(moment)), (write(moment), none)):
        text = refused({}, *pair)
        assert '{"interval_start": "2026-01-01T00:00:00Z", "interval_end": ' in text
    empty = refused({}, write(moment), write(moment))
    assert "CronDataIntervalTimetable" in empty and "interval_start" in empty


@given(SPANS, SPANS, st.sampled_from(["interval_start", "interval_end"]))
def test_half_an_interval_is_never_completed_by_guessing(asked, own, half):
    text = refused({half: given_as(asked)[half]}, str(own.start), str(own.end))
    assert "interval_start and interval_end" in text


@given(SPANS)
def test_an_interval_backwards_or_empty_is_refused(span):
    for end in (span.start, span.start - (span.end - span.start)):
        text = refused({"interval_start": iso(span.start), "interval_end": iso(end)}, "", "")
        assert "the end must be after the start" in text
        if end != span.start:
            assert "the end must be after" in refused({}, iso(span.start), iso(end))


def test_a_time_that_is_none_is_quoted_with_an_example():
    text = refused({"interval_start": "yesterday", "interval_end": "2026-01-01"}, "", "")
    assert "'yesterday'" in text and "2026-01-31T06:00:00Z" in text
