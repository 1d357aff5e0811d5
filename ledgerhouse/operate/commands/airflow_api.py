"""The running Airflow, asked through its REST API and the Connection `airflow_api`.

Through the API rather than the metadata database: the same from a terminal beside the stack and
from a container, no database password needed, and Airflow itself checks and logs what is done.

https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html
"""

from __future__ import annotations

from typing import Any

from ledgerhouse.operate.commands import CommandFailed

CONNECTION = "airflow_api"
TIMEOUT_S = 60
PAGE = 100
HOW = (
    'Start it (make up), and give this command its settings: make airflow ARGS="…" or, in '
    "make shell, airflow …"
)


class Refused(Exception):
    """Airflow said no: `status` is HTTP's, the message Airflow's own words."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Airflow:
    """Logged in at first use. CommandFailed where Airflow cannot be reached at all."""

    def __init__(self, host: str, login: str, password: str):
        import requests

        self.host, self._login, self._password = host.rstrip("/"), login, password
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between us and a server beside us

    def call(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Parsed JSON of a path of /api/v2. Raises Refused for an answer that is an error."""
        if "Authorization" not in self._session.headers:
            answer = self._send(
                "POST", "/auth/token", {"username": self._login, "password": self._password}
            )
            if answer.status_code != 201:
                raise CommandFailed(
                    f"{self.host} does not let {self._login!r} in (HTTP "
                    f"{answer.status_code}): mend login and password of the "
                    f"Airflow Connection {CONNECTION!r}"
                )
            self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        answer = self._send(method, f"/api/v2{path}", body, params)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, _words(answer))
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, body: Any = None, params: Any = None):
        import requests

        try:
            return self._session.request(
                method, self.host + path, json=body, params=params, timeout=TIMEOUT_S
            )
        except requests.RequestException as error:
            raise CommandFailed(
                f"Airflow does not answer at {self.host} ({type(error).__name__}). {HOW}"
            ) from None

    def scheduler_is_alive(self) -> bool:
        health = self._send("GET", "/api/v2/monitor/health")
        return health.ok and health.json().get("scheduler", {}).get("status") == "healthy"

    def all(self, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        """Every entry of a paged list."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", path, limit=PAGE, offset=len(found), **params)
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found


def _words(answer) -> str:
    try:
        said = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}: {answer.text[:300]}"
    if isinstance(said, list):
        said = "; ".join(
            str(one.get("msg", one)) if isinstance(one, dict) else str(one) for one in said
        )
    return str(said)


def connect() -> Airflow:
    """Airflow as the Connection `airflow_api` has it. CommandFailed where there is none."""
    from airflow.models.connection import Connection

    try:
        known = Connection.get_connection_from_secrets(CONNECTION)
    except Exception:  # not defined, or the metadata database is out of reach too
        raise CommandFailed(
            f"there is no Airflow Connection {CONNECTION!r} here (host: the address of the "
            f"running Airflow; login and password). {HOW}"
        ) from None
    host = known.host or ""
    if host and "://" not in host:
        host = f"{known.schema or 'http'}://{host}" + (f":{known.port}" if known.port else "")
    return Airflow(host, known.login or "", known.password or "")
