"""An Airflow of a few lines: its REST API as the backfill asks it, with runs that end as asked."""

from __future__ import annotations

from extract.core.interval import iso, utc
from ledgerhouse.operate.airflow.api import AirflowApi, AirflowApiError
from tests.ledgerhouse.operate.commands.scene import SIX_HOURS


class FakeAirflow(AirflowApi):
    """Answers as the REST API does; every query of the runs lets one more of them end.

    `ends`: how they end, by logical date ("success" where none is given).
    """

    def __init__(self, ends=None, *, dag=None, alive=True, dies=False, there=()):
        self.url, self.ends, self.alive, self.dies = "http://airflow", ends or {}, alive, dies
        self.dag = {
            "dag_id": "sync",
            "timetable_periodic": True,
            "is_paused": False,
            "start_date": "2024-11-01T00:00:00Z",
            "timetable_summary": "0 */6 * * *",
            "timezone": "UTC",
            "max_active_runs": 1,
            "tags": [{"name": "ledgerhouse"}],
            "params": {"interval_start": {}, "interval_end": {}, "refetch": {}},
        } | (dag or {})
        self.runs = {utc(at): state for at, state in dict(there).items()}
        self.created, self.said = None, []

    def scheduler_is_alive(self):
        return self.alive and not (self.dies and self.created)

    def dates(self, body):
        found, at = [], utc(body["from_date"])
        while at <= utc(body["to_date"]):
            state = self.runs.get(at)
            if (
                state is None
                or body["reprocess_behavior"] == "completed"
                or (state == body["reprocess_behavior"] == "failed")
            ):
                found.append(at)
            at += SIX_HOURS
        return found

    def call(self, method, path, body=None, **params):
        self.said.append((method, path))
        if path == f"/dags/{self.dag['dag_id']}/details":
            return self.dag
        if path == "/backfills/dry_run":
            return {"backfills": [{"logical_date": iso(at)} for at in self.dates(body)]}
        if (method, path) == ("POST", "/backfills"):
            self.runs |= dict.fromkeys(self.dates(body), "queued")
            self.created = body | {"id": 7, "completed_at": None}
            return self.created
        if path == "/backfills":
            return {"backfills": [self.created] if self.created else []}
        if path.endswith("/taskInstances"):
            return {"task_instances": [{"task_id": "fetch_debank"}]}
        if path.endswith(("/pause", "/cancel")):
            return None
        if path == "/dags/sync":
            return self.dag
        raise AirflowApiError(404, "not found")

    def all(self, path, key, **params):
        if path == "/dags":
            return [{"dag_id": "history"}, {"dag_id": "sync"}]
        paused = ("PUT", "/backfills/7/pause") in self.said
        for at, state in sorted(self.runs.items()) if not self.dies else ():
            if state == "running":
                self.runs[at] = self.ends.get(iso(at), "success")
                break
            if state == "queued" and not paused:
                self.runs[at] = "running"
                break
        return [
            {
                "logical_date": iso(at),
                "dag_run_id": f"backfill__{iso(at)}",
                "state": state,
                "data_interval_start": iso(at),
                "data_interval_end": iso(at + SIX_HOURS),
            }
            for at, state in self.runs.items()
        ]


class FakeHistory(FakeAirflow):
    """With the DAG history, whose run takes three looks."""

    def __init__(self, ends):
        super().__init__()
        self.last, self.looks, self.conf = ends, 0, None

    def call(self, method, path, body=None, **params):
        if path == "/dags/history":
            return {"is_paused": False}
        if path == "/dags/history/dagRuns":
            self.conf = body["conf"]
            return {"dag_run_id": "manual__1"}
        if path.startswith("/dags/history/dagRuns/"):
            self.looks += 1
            return {"state": self.last if self.looks > 3 else "running"}
        return super().call(method, path, body, **params)

    def all(self, path, key, **params):
        if key == "task_instances":
            return [
                {"task_id": "load", "state": "running"},
                {"task_id": "plan", "state": "success"},
            ]
        return super().all(path, key, **params)
