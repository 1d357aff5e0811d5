"""The few calls of Airflow's REST API (/api/v2) that the launcher makes.

https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import requests

from stack.settings import USER, iso

TIMEOUT_S = 30
COMPONENTS = ("metadatabase", "scheduler", "dag_processor")
FINAL = {"success", "failed"}


class AirflowApiError(RuntimeError):
    """Airflow answered with an error; the message has the call, the status and the reason."""


class Rest:
    """A client of one Airflow: logs in when first needed, and again when the token is refused."""

    def __init__(self, url: str, password: str) -> None:
        self.url, self._password, self._token = url, password, ""
        self._session = requests.Session()

    def call(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """The answer as JSON (a JSON-lines answer as a list); AirflowApiError on any status >= 400."""
        for _ in range(2):
            self._token = self._token or self._login()
            answer = self._session.request(
                method,
                f"{self.url}/api/v2{path}",
                json=body,
                params=params,
                timeout=TIMEOUT_S,
                headers={"Authorization": f"Bearer {self._token}", "Accept": "application/json"},
            )
            if answer.status_code != 401:
                break
            self._token = ""
        if answer.status_code >= 400:
            raise AirflowApiError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    def close(self) -> None:
        """Let go of the connection: an API server with an idle one takes 3 s longer to stop."""
        self._session.close()

    def _login(self) -> str:
        answer = self._session.post(
            f"{self.url}/auth/token",
            json={"username": USER, "password": self._password},
            timeout=TIMEOUT_S,
        )
        if answer.status_code != 201:
            raise AirflowApiError(f"login as {USER} at {self.url}: {answer.status_code}")
        return answer.json()["access_token"]

    def health(self) -> dict[str, str]:
        """Component -> status; empty while nothing answers."""
        try:
            answer = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=5)
            return {name: facts["status"] for name, facts in answer.json().items()}
        except (requests.RequestException, ValueError, TypeError, KeyError):
            return {}

    def healthy(self) -> bool:
        """True when the server, its database, the scheduler and the dag-processor are up."""
        status = self.health()
        return all(status.get(name) == "healthy" for name in COMPONENTS)

    def dags(self) -> dict[str, dict]:
        """Registered DAGs by id."""
        return {dag["dag_id"]: dag for dag in self.call("GET", "/dags", limit=100)["dags"]}

    def import_errors(self) -> dict[str, str]:
        """DAG file -> stack trace, for the files that could not be imported."""
        listed = self.call("GET", "/importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in listed}

    def wait_for_dags(self, *dag_ids: str, limit_s: float = 60.0) -> None:
        """Wait until the DAGs are registered; AirflowApiError with the import errors otherwise."""
        deadline = time.monotonic() + limit_s
        while set(dag_ids) - set(self.dags()):
            errors = self.import_errors()
            if errors or time.monotonic() > deadline:
                missing = ", ".join(sorted(set(dag_ids) - set(self.dags())))
                details = "\n".join(f"{file}:\n{trace}" for file, trace in errors.items())
                raise AirflowApiError(f"DAG {missing} is not registered. {details or 'No error.'}")
            time.sleep(0.3)

    def unpause(self, dag_id: str) -> None:
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def trigger(
        self,
        dag_id: str,
        conf: dict | None = None,
        interval: tuple[datetime, datetime] | None = None,
    ) -> str:
        """Create a run, its id returned; `interval` becomes the run's data interval [start, end).

        Airflow drops the interval of a run without a logical date, and makes no task at all for
        one dated before the DAG's start (such a run "succeeds"): so it is dated now.
        """
        body: dict[str, Any] = {"logical_date": None, "conf": conf or {}}
        if interval:
            start, end = map(iso, interval)
            body |= {
                "logical_date": iso(datetime.now(UTC)),
                "data_interval_start": start,
                "data_interval_end": end,
            }
        return self.call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"]

    def run(self, dag_id: str, run_id: str) -> dict:
        return self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")

    def task_instances(self, dag_id: str, run_id: str) -> list[dict]:
        """Every task instance of a run, mapped ones each."""
        found: list[dict] = []
        while True:
            page = self.call(
                "GET",
                f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances",
                limit=100,
                offset=len(found),
            )
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def log(self, task: dict) -> list[str]:
        """The lines of a task instance's last try (`task`: one of `task_instances`)."""
        answer = self.call(
            "GET",
            f"/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"
            f"/logs/{max(task['try_number'], 1)}",
            map_index=task["map_index"],
            full_content="true",
        )
        lines = []
        for entry in answer["content"]:
            if isinstance(entry, str):
                lines.append(entry)
                continue
            lines.append(str(entry.get("event", "")))
            for error in entry.get("error_detail") or []:
                lines.append(f"{error.get('exc_type')}: {error.get('exc_value')}")
        return [line for line in lines if not line.startswith("::")]
