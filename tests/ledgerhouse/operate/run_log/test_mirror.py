"""ops.sync_runs is Airflow's history, an attempt a row, whatever order things are read in.

`Airflow` here is a scheduler's memory behind the four REST paths the mirror asks for, shaped as
Airflow 3.3 answers: a try that will be repeated is archived as failed, and a cleared task keeps
its number, without a state, until it starts again.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from urllib.parse import unquote

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledgerhouse.operate.airflow.api import AirflowApi, AirflowApiError, AirflowUnreachable
from ledgerhouse.operate.run_log import attempts
from ledgerhouse.operate.run_log.attempts import attempt
from ledgerhouse.operate.run_log.mirror import COLUMNS, RECENT_RUNS, mirror

DAGS = ("sync", "history")
INTERVAL = {
    "data_interval_start": "2026-01-31T00:00:00Z",
    "data_interval_end": "2026-01-31T06:00:00Z",
}


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class Airflow(AirflowApi):
    """Runs and the tries of their tasks; `records` is the folder the attempts write into."""

    def __init__(self, records):
        self.records, self.paths, self.tagged = records, [], set()
        self.runs: dict[tuple[str, str], dict] = {}
        self.tasks: dict[tuple, list[dict]] = {}  # (dag, run, task, map index): its tries
        self.truth: dict[tuple, dict] = {}  # what ops.sync_runs must say in the end

    def add_run(self, dag: str, run: str, run_type: str = "scheduled") -> None:
        self.runs.setdefault((dag, run), {"dag_run_id": run, "run_type": run_type} | INTERVAL)

    def attempt(self, dag, run, task, index=-1, end="success", records="both", **fields):
        """One try: starts, writes its records (none, start or both), and ends in `end`."""
        self.add_run(dag, run)
        tries = self.tasks.setdefault((dag, run, task, index), [])
        if tries and tries[-1]["state"] is None:
            tries.pop()  # the cleared one is what starts now
        number = tries[-1]["try_number"] + 1 if tries else 1
        key = dict(zip(attempts.KEY, (dag, run, task, index, number)))
        instance = {
            "try_number": number,
            "state": end,
            "start_date": now(),
            "task_id": task,
            "map_index": index,
        }
        if records != "none":
            before = set(self.records.glob("*.json")) if self.records.exists() else set()
            try:
                with attempt(
                    self.records, key, **{k: v for k, v in fields.items() if k != "rows"}
                ) as outcome:
                    outcome |= {"rows": fields.get("rows", 0)}
                    if end == "failed":
                        raise RuntimeError(f"broken {number}")
            except RuntimeError:
                pass
            if records == "start":
                for file in set(self.records.glob("*.json")) - before:
                    if "ended" in json.loads(file.read_text()):
                        file.unlink()
        tries.append(instance | {"end_date": now()})
        self.runs[dag, run]["end_date"] = now()
        both = records == "both"
        self.truth[tuple(key.values())] = {
            "state": end,
            "source": fields.get("source") if records != "none" else None,
            "rows": fields.get("rows", 0) if both else None,
            "error": f"broken {number}" if both and end == "failed" else None,
            "error_type": "RuntimeError" if both and end == "failed" else None,
        }

    def clear(self, dag, run, task, index=-1) -> None:
        """As the button does: the last try goes to the history, its number waits for a start."""
        tries = self.tasks[dag, run, task, index]
        if tries[-1]["state"] is not None:
            tries.append(tries[-1] | {"state": None, "start_date": None, "end_date": None})
            self.runs[dag, run]["end_date"] = None

    def call(self, method, path, body=None, **params):
        assert method == "GET", "the mirror only reads"
        query = "&".join(f"{name}={value}" for name, value in params.items())
        return self.get(f"{path}?{query}" if query else path)

    def get(self, path: str) -> dict:
        self.paths.append(path)
        if path.startswith("/dags?"):
            assert "tags=ledgerhouse" in path, "other people's DAGs are not copied"
            ids = sorted(self.tagged)
            return {"dags": [{"dag_id": dag} for dag in ids], "total_entries": len(ids)}
        if found := re.fullmatch(r"/dags/(\w+)/dagRuns\?order_by=-id&limit=(\d+)", path):
            runs = [r for (dag, _), r in self.runs.items() if dag == found[1]]
            return {"dag_runs": runs[::-1][: int(found[2])], "total_entries": len(runs)}
        base, _, query = path.removeprefix("/dags/").partition("?")
        dag, _, run, *rest = base.split("/")
        if (dag, unquote(run)) not in self.runs:
            raise AirflowApiError(404, path)
        mine = {k[2:]: tries for k, tries in self.tasks.items() if k[:2] == (dag, unquote(run))}
        if not rest:
            return self.runs[dag, unquote(run)]
        if rest == ["taskInstances"]:
            limit, offset = map(int, re.fullmatch(r"limit=(\d+)&offset=(\d+)", query).groups())
            newest = [tries[-1] for tries in mine.values()]
            return {"task_instances": newest[offset : offset + limit], "total_entries": len(newest)}
        _, task, *index, tries = rest
        assert tries == "tries"
        return {"task_instances": mine[task, int(index[0]) if index else -1]}

    def end(self) -> None:
        """Every cleared task runs again."""
        for (dag, run, task, index), tries in list(self.tasks.items()):
            if tries[-1]["state"] is None:
                self.attempt(dag, run, task, index, rows=99)


def rows(con) -> dict[tuple, dict]:
    found = con.execute(f"SELECT {', '.join(COLUMNS)} FROM ops.sync_runs").fetchall()
    keyed = {
        tuple(dict(zip(COLUMNS, row))[k] for k in attempts.KEY): dict(zip(COLUMNS, row))
        for row in found
    }
    assert len(keyed) == len(found), "an attempt has one row"
    return keyed


@pytest.fixture
def airflow(tmp_path):
    return Airflow(tmp_path / "attempts")


def test_retried_killed_mapped_cleared_and_upstream_failed(con, airflow):
    run = "scheduled__2026-01-31T00:00:00+00:00"
    at = ("sync", run)
    airflow.attempt(*at, "plan_debank", rows=2)
    airflow.attempt(*at, "fetch_debank", 0, "failed", source="debank", account="0x1")
    airflow.attempt(*at, "fetch_debank", 0, source="debank", account="0x1", rows=5)
    airflow.attempt(*at, "fetch_debank", 1, "failed", "start", source="debank")  # killed
    airflow.attempt(*at, "fetch_debank", 1, "failed", "none")  # killed at birth
    airflow.attempt(*at, "load", end="upstream_failed", records="none")
    assert mirror(con, airflow, airflow.records, DAGS) == 6
    said = {k[2:]: (r["state"], r["rows"], r["error"], r["source"]) for k, r in rows(con).items()}
    assert said == {
        ("plan_debank", -1, 1): ("success", 2, None, None),
        ("fetch_debank", 0, 1): ("failed", 0, "broken 1", "debank"),
        ("fetch_debank", 0, 2): ("success", 5, None, "debank"),
        ("fetch_debank", 1, 1): ("failed", None, None, "debank"),
        ("fetch_debank", 1, 2): ("failed", None, None, None),
        ("load", -1, 1): ("upstream_failed", None, None, None),
    }
    for key in (("fetch_debank", 1), ("load", -1)):
        airflow.clear(*at, *key)
    mirror(con, airflow, airflow.records, DAGS)
    airflow.attempt(*at, "fetch_debank", 1, source="debank", account="0x2", rows=7)
    mirror(con, airflow, airflow.records, DAGS)
    airflow.end()
    mirror(con, airflow, airflow.records, DAGS)
    found = rows(con)
    assert found[*at, "fetch_debank", 1, 3]["rows"] == 7
    assert [found[*at, "load", -1, n]["state"] for n in (1, 2)] == ["upstream_failed", "success"]
    assert {r["interval_start"] for r in found.values()} == {datetime(2026, 1, 31)}
    assert {r["run_type"] for r in found.values()} == {"scheduled"}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["run", "run", "run", "clear", "mirror", "mirror twice"]),
        st.sampled_from(DAGS),
        st.sampled_from(["manual__1+00:00", "scheduled__2"]),
        st.sampled_from([("load", -1), ("fetch_debank", 0), ("fetch_debank", 1)]),
        st.sampled_from(
            [
                ("success", "both"),
                ("failed", "both"),
                ("failed", "start"),
                ("failed", "none"),
                ("upstream_failed", "none"),
                ("skipped", "none"),
            ]
        ),
    ),
    max_size=14,
)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(STEPS)
def test_in_the_end_every_attempt_is_there_as_it_ended(con, tmp_path_factory, steps):
    """Whenever the mirror looked, and however often."""
    airflow = Airflow(tmp_path_factory.mktemp("mirror") / "attempts")
    con.execute("DELETE FROM ops.sync_runs")
    for step, dag, run, task, (end, records) in steps:
        if step == "run":
            airflow.attempt(dag, run, *task, end, records, source="debank", rows=3)
        elif step == "clear" and (dag, run, *task) in airflow.tasks:
            airflow.clear(dag, run, *task)
        elif step.startswith("mirror"):
            mirror(con, airflow, airflow.records, DAGS)
            if "twice" in step:
                before = rows(con)
                mirror(con, airflow, airflow.records, DAGS)
                assert rows(con) == before
    airflow.end()
    mirror(con, airflow, airflow.records, DAGS)
    found = rows(con)
    assert {k: {c: r[c] for c in airflow.truth[k]} for k, r in found.items()} == airflow.truth
    assert all(r["started"] and r["ended"] for r in found.values())


def test_a_record_is_kept_until_its_row_is_committed(con, airflow):
    airflow.attempt("sync", "R", "load", rows=3)

    class Broken:
        """A warehouse whose commit fails, as on a full disk."""

        def execute(self, sql, *args):
            if sql == "COMMIT":
                con.execute("ROLLBACK")
                raise duckdb.IOException("No space left on device")
            return con.execute(sql, *args)

    with pytest.raises(duckdb.IOException):
        mirror(Broken(), airflow, airflow.records, DAGS)
    assert len(list(airflow.records.glob("*.json"))) == 2 and rows(con) == {}
    assert mirror(con, airflow, airflow.records, DAGS) == 1
    assert list(airflow.records.glob("*.json")) == []
    assert rows(con)["sync", "R", "load", -1, 1]["rows"] == 3


def test_an_airflow_that_does_not_answer_costs_no_record(con, airflow):
    airflow.attempt("sync", "R", "load", rows=3)

    nobody = AirflowApi("http://127.0.0.1:9", "admin", "x")
    with pytest.raises(AirflowUnreachable):
        mirror(con, nobody, airflow.records, DAGS)
    assert len(list(airflow.records.glob("*.json"))) == 2 and rows(con) == {}


def test_the_records_of_a_run_that_was_deleted_are_kept_as_they_are(con, airflow):
    airflow.attempt("sync", "gone", "load", rows=3)
    airflow.attempt("sync", "here", "load", rows=4)
    del airflow.runs["sync", "gone"]
    mirror(con, airflow, airflow.records, DAGS)
    assert {k[1]: (r["state"], r["rows"]) for k, r in rows(con).items()} == {
        "gone": ("success", 3),
        "here": ("success", 4),
    }


def test_the_mirrors_own_attempt_has_succeeded_once_it_is_written(con, airflow):
    airflow.attempt("sync", "R", "mirror", end="running", records="none")
    own = ("sync", "R", "mirror", -1, 1)
    mirror(con, airflow, airflow.records, DAGS, own=own)
    assert rows(con)[own]["state"] == "success"


def test_a_run_is_looked_at_again_until_it_is_over_and_then_no_more(con, airflow):
    airflow.attempt("sync", "R", "load", end="running", records="start")
    mirror(con, airflow, airflow.records, DAGS)
    assert rows(con)["sync", "R", "load", -1, 1]["state"] == "running"
    airflow.tasks["sync", "R", "load", -1][0]["state"] = "failed"
    airflow.runs["sync", "R"]["end_date"] = now()
    mirror(con, airflow, airflow.records, DAGS)
    assert rows(con)["sync", "R", "load", -1, 1]["state"] == "failed"
    airflow.paths.clear()
    mirror(con, airflow, airflow.records, DAGS)
    assert len(airflow.paths) == len(DAGS), airflow.paths


def test_a_run_with_more_tasks_than_a_page_is_read_whole(con, airflow):
    for index in range(250):
        airflow.attempt("history", "R", "fetch_debank", index, records="none")
    assert mirror(con, airflow, airflow.records, DAGS) == 250 == len(rows(con))


def test_runs_that_no_record_tells_of_are_found_among_the_recent_ones(con, airflow):
    for number in range(RECENT_RUNS):
        airflow.attempt("sync", f"R{number}", "load", end="failed", records="none")
    mirror(con, airflow, airflow.records, DAGS)
    assert {k[1] for k in rows(con)} == {f"R{n}" for n in range(RECENT_RUNS)}


def test_dags_are_known_by_their_tag_whatever_their_ids(airflow, tmp_path, monkeypatch):
    """A run that was over before any of its tasks began has left no record: the tag finds it."""
    from types import SimpleNamespace

    from ledgerhouse.operate.airflow.operators.load import MirrorOperator
    from ledgerhouse.warehouse.connection import open_warehouse

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.setattr(AirflowApi, "for_task", lambda: airflow)
    airflow.tagged = {"crypto_history"}  # the list lags: a new DAG's own run comes all the same
    airflow.attempt("crypto_history", "H", "load", end="upstream_failed", records="none")
    airflow.attempt("somebody_elses", "E", "load", records="none")
    airflow.attempt("crypto", "R", "load", rows=3)
    airflow.attempt("crypto", "R", "mirror", end="running", records="none")
    ti = SimpleNamespace(
        dag_id="crypto", run_id="R", task_id="mirror", map_index=-1, try_number=1, max_tries=2
    )
    assert MirrorOperator(task_id="mirror").execute({"ti": ti}) == 3
    with open_warehouse(owner="test") as con:
        assert {k[:3]: r["state"] for k, r in rows(con).items()} == {
            ("crypto_history", "H", "load"): "upstream_failed",
            ("crypto", "R", "load"): "success",
            ("crypto", "R", "mirror"): "success",
        }
