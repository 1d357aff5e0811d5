"""Client of Airflow's own REST API (v2): for tasks, commands and the launcher.

Through the API rather than the metadata database: tasks may not open that one, and from a
terminal or a container it needs no database password, and Airflow itself checks and logs what
is done.

https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from extract.core.interval import iso

CONNECTION = "airflow_api"  # the Airflow Connection that tasks and commands log in with
TIMEOUT_S = 60
HEALTH_TIMEOUT_S = 5
PAGE = 100  # Airflow's largest page
COMPONENTS = ("metadatabase", "scheduler", "dag_processor")
FINAL = ("success", "failed")  # states of a run that has ended


class AirflowApiError(RuntimeError):
    """Airflow refused a call: `status` is HTTP's, the message Airflow's own words."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class AirflowUnreachable(RuntimeError):
    """Nothing can be asked of Airflow: no Connection, no answer, or a refused login."""


class AirflowApi:
    """One Airflow's REST API; logs in at the first call, and again when the token has ended
    (after 24 hours, `[api_auth] jwt_expiration_time`).

    Every call raises AirflowApiError for an answer that is an error, and AirflowUnreachable.
    """

    def __init__(self, url: str, user: str, password: str, *, connection_id: str = ""):
        import requests

        self.url, self._user, self._password = url.rstrip("/"), user, password
        self._connection_id, self._token = connection_id, ""
        self._session = requests.Session()
        # No proxy between us and a server beside us, and no .netrc instead of our token.
        self._session.trust_env = False
        self._session.verify = (
            os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        )

    @classmethod
    def for_task(cls, connection_id: str = CONNECTION) -> AirflowApi:
        """Inside a task, which asks the Task SDK for the Connection."""
        from airflow.sdk import BaseHook
        from airflow.sdk.exceptions import AirflowNotFoundException

        try:
            return cls._of(BaseHook.get_connection(connection_id), connection_id)
        except AirflowNotFoundException:
            raise _no_connection(connection_id) from None

    @classmethod
    def for_command(cls, connection_id: str = CONNECTION) -> AirflowApi:
        """On Airflow's command line, where the environment or the database has the Connection."""
        from airflow.models.connection import Connection

        try:
            connection = Connection.get_connection_from_secrets(connection_id)
        except Exception:  # not defined, or the metadata database is out of reach too
            raise _no_connection(connection_id) from None
        return cls._of(connection, connection_id)

    @classmethod
    def _of(cls, connection: Any, connection_id: str) -> AirflowApi:
        host = (connection.host or "").strip()
        if host and "://" not in host:
            port = f":{connection.port}" if connection.port else ""
            host = f"{connection.schema or 'http'}://{host}{port}"
        return cls(
            host, connection.login or "", connection.password or "", connection_id=connection_id
        )

    def call(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Parsed JSON of a path of /api/v2; None where the answer is empty."""
        self._token = self._token or self._login()
        answer = self._send(method, f"/api/v2{path}", body, params)
        if answer.status_code == 401:  # the token has ended
            self._token = ""
            self._token = self._login()
            answer = self._send(method, f"/api/v2{path}", body, params)
        if answer.status_code >= 400:
            raise AirflowApiError(
                answer.status_code,
                f"{_reason(answer)} ({method} {path}: HTTP {answer.status_code})",
            )
        return answer.json() if answer.content else None

    def all(self, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        """Every entry of a paged list; `key` is the list's name in the answer."""
        entries: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", path, limit=PAGE, offset=len(entries), **params)
            entries += page[key]
            if not page[key] or len(entries) >= page["total_entries"]:
                return entries

    def close(self) -> None:
        """Let go of the connection: an API server with an idle one takes 3 s longer to stop."""
        self._session.close()

    def _login(self) -> str:
        answer = self._send(
            "POST", "/auth/token", {"username": self._user, "password": self._password}
        )
        if answer.status_code != 201:
            fix = (
                f": fix login and password of the Airflow Connection {self._connection_id!r}"
                if self._connection_id
                else ""
            )
            raise AirflowUnreachable(
                f"{self.url} does not let {self._user!r} in (HTTP {answer.status_code}){fix}"
            )
        return answer.json()["access_token"]

    def _send(
        self, method: str, path: str, body: Any = None, params: Any = None, timeout: int = TIMEOUT_S
    ):
        import requests

        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            return self._session.request(
                method,
                self.url + path,
                json=body,
                params=params,
                headers=headers,
                timeout=timeout,
            )
        except requests.RequestException as error:
            raise AirflowUnreachable(
                f"Airflow does not answer at {self.url} ({type(error).__name__})"
            ) from None

    # --- health -------------------------------------------------------------------------------

    def health(self) -> dict[str, str]:
        """Component → status; empty while nothing answers. Needs no login."""
        try:
            answer = self._send("GET", "/api/v2/monitor/health", timeout=HEALTH_TIMEOUT_S)
            return {name: component["status"] for name, component in answer.json().items()}
        except (AirflowUnreachable, ValueError, TypeError, KeyError):
            return {}

    def healthy(self) -> bool:
        """True when the server, its database, the scheduler and the dag-processor are up."""
        status = self.health()
        return all(status.get(name) == "healthy" for name in COMPONENTS)

    def scheduler_is_alive(self) -> bool:
        answer = self._send("GET", "/api/v2/monitor/health")
        return answer.ok and answer.json().get("scheduler", {}).get("status") == "healthy"

    # --- pools and DAGs -----------------------------------------------------------------------

    def ensure_pool(self, name: str, description: str) -> bool:
        """Create a pool of one slot where there is none; whether it was created."""
        try:
            self.call("GET", f"/pools/{name}")
            return False
        except AirflowApiError as error:
            if error.status != 404:
                raise
        pool = {"name": name, "slots": 1, "description": description, "include_deferred": False}
        self.call("POST", "/pools", pool)
        return True

    def dags(self) -> dict[str, dict[str, Any]]:
        """Registered DAGs by id."""
        return {dag["dag_id"]: dag for dag in self.all("/dags", "dags")}

    def import_errors(self) -> dict[str, str]:
        """DAG file → stack trace, for the files that could not be imported."""
        errors = self.all("/importErrors", "import_errors")
        return {error["filename"]: error["stack_trace"] for error in errors}

    def wait_for_dags(self, *dag_ids: str, limit_s: float = 60.0) -> None:
        """Wait until the DAGs are registered; AirflowApiError with the import errors otherwise."""
        deadline = time.monotonic() + limit_s
        while missing := sorted(set(dag_ids) - set(self.dags())):
            errors = self.import_errors()
            if errors or time.monotonic() > deadline:
                details = "\n".join(f"{file}:\n{trace}" for file, trace in errors.items())
                raise AirflowApiError(
                    404, f"DAG {', '.join(missing)} is not registered. {details or 'No error.'}"
                )
            time.sleep(0.3)

    def unpause(self, dag_id: str) -> None:
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    # --- runs ---------------------------------------------------------------------------------

    def trigger(
        self,
        dag_id: str,
        conf: dict[str, Any] | None = None,
        interval: tuple[datetime, datetime] | None = None,
        run_id: str | None = None,
    ) -> str:
        """Create a run, its id returned (None: Airflow names it); `interval` becomes the run's data interval [start, end).

        Airflow drops the interval of a run without a logical date, and makes no task at all for
        one dated before the DAG's start (such a run "succeeds"): so it is dated now.
        """
        body: dict[str, Any] = {"logical_date": None, "conf": conf or {}}
        if run_id:
            body["dag_run_id"] = run_id
        if interval:
            start, end = map(iso, interval)
            body |= {
                "logical_date": iso(datetime.now(UTC)),
                "data_interval_start": start,
                "data_interval_end": end,
            }
        return self.call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"]

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return self.call("GET", run_path(dag_id, run_id))

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Every task instance of a run, mapped ones each."""
        return self.all(f"{run_path(dag_id, run_id)}/taskInstances", "task_instances")

    def log(self, task: dict[str, Any]) -> list[str]:
        """The lines of a task instance's last try (`task`: an entry of `task_instances`)."""
        answer = self.call(
            "GET",
            f"{run_path(task['dag_id'], task['dag_run_id'])}/taskInstances/{task['task_id']}"
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


def run_path(dag_id: str, run_id: str) -> str:
    """The path of a DAG run; run ids hold colons and plus signs."""
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _no_connection(connection_id: str) -> AirflowUnreachable:
    return AirflowUnreachable(
        f"there is no Airflow Connection {connection_id!r} here (type http; host: the address of "
        "the running Airflow; login and password)"
    )


def _reason(answer: Any) -> str:
    """Airflow's own words for an error, else the status and the beginning of the answer."""
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return answer.text[:300] or "no reason was given"
    if isinstance(detail, list):
        detail = "; ".join(
            str(item.get("msg", item)) if isinstance(item, dict) else str(item) for item in detail
        )
    return str(detail)
